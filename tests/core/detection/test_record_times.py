"""When a record was created and updated."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from airflow_insightly_hooks.core.detection.record_times import (
    RecordTimes,
    has_time,
    readable_times,
    record_times,
    time_fields,
)
from airflow_insightly_hooks.core.errors import InvalidTime
from airflow_insightly_hooks.core.records import RECORD_TYPES

CREATED, UPDATED = "2019-01-01 08:00:00", "2020-05-01 09:30:00.250"
CREATED_AT = datetime(2019, 1, 1, 8, tzinfo=timezone.utc)
UPDATED_AT = datetime(2020, 5, 1, 9, 30, 0, 250_000, tzinfo=timezone.utc)
RECORD = {"DATE_CREATED_UTC": CREATED, "DATE_UPDATED_UTC": UPDATED}
CUSTOM_OBJECT = {
    "RECORD_ID": 3,
    "DATE_UPDATED_UTC": None,
    "CUSTOMFIELDS": [
        {"FIELD_NAME": "DATE_CREATED_UTC", "FIELD_VALUE": CREATED},
        {"FIELD_NAME": "DATE_UPDATED_UTC", "FIELD_VALUE": UPDATED},
    ],
}
FIELDS = ("DATE_CREATED_UTC", "DATE_UPDATED_UTC")
UNREADABLE = ["soon", 20200501, True, ["2020-05-01"]]


@pytest.mark.parametrize("times", [record_times, readable_times])
@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (RECORD, (CREATED_AT, UPDATED_AT)),
        (CUSTOM_OBJECT, (CREATED_AT, UPDATED_AT)),
        ({"DATE_CREATED_UTC": CREATED}, (CREATED_AT, None)),
        ({"DATE_UPDATED_UTC": UPDATED}, (None, UPDATED_AT)),
        ({"DATE_CREATED_UTC": "", "DATE_UPDATED_UTC": None}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_a_records_times_are_read_in_utc(times, record, expected):
    """The times are on top or among the custom fields. A time that is absent, null or empty is ``None``."""
    assert times(record) == RecordTimes(*expected)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", UNREADABLE)
def test_a_time_that_cannot_be_read_is_refused(field, value):
    """The error names the field, after the record type where that is given."""
    record = {**RECORD, field: value}
    with pytest.raises(InvalidTime) as caught:
        record_times(record, RECORD_TYPES["Contacts"])
    assert caught.value.where == f"Contacts.{field}"
    with pytest.raises(InvalidTime) as caught:
        record_times(record)
    assert caught.value.where == field


def test_of_two_times_that_cannot_be_read_the_creation_time_is_named():
    """It is read first."""
    with pytest.raises(InvalidTime) as caught:
        record_times(dict.fromkeys(FIELDS, "soon"))
    assert caught.value.where == "DATE_CREATED_UTC"


@pytest.mark.parametrize("value", UNREADABLE)
def test_what_is_readable_is_told_beside_what_is_not(value):
    """A time that can't be read is ``None``; the other one is still returned."""
    assert readable_times({**RECORD, "DATE_CREATED_UTC": value}) == (None, UPDATED_AT)
    assert readable_times({**RECORD, "DATE_UPDATED_UTC": value}) == (CREATED_AT, None)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (RECORD, True),
        (CUSTOM_OBJECT, True),
        ({"DATE_CREATED_UTC": CREATED}, True),
        ({"DATE_UPDATED_UTC": UPDATED}, True),
        ({"DATE_UPDATED_UTC": "soon"}, True),
        ({"DATE_CREATED_UTC": None, "DATE_UPDATED_UTC": ""}, False),
        ({"CONTACT_ID": 7}, False),
    ],
)
def test_whether_a_record_tells_a_time(record, expected):
    """Either time is enough, whether it can be read or not."""
    assert has_time(record) is expected


def test_the_two_fields_are_told_as_they_are():
    """Both values are returned, from wherever the record has them."""
    assert time_fields(CUSTOM_OBJECT) == RECORD
    assert time_fields({"DATE_CREATED_UTC": "soon"}) == {"DATE_CREATED_UTC": "soon", "DATE_UPDATED_UTC": None}
