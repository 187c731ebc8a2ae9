"""Which record a body is about: each type is recognized by its fields, and anything else is refused."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.errors import InvalidPayload, UnknownRecordType
from airflow_insightly_hooks.core.exact_json import dumps
from airflow_insightly_hooks.core.incoming.received_entity import InvalidEntity, read_entity
from airflow_insightly_hooks.core.payload import build_body
from airflow_insightly_hooks.core.records import CREATED, RECORD_TYPES, UPDATED, field_value
from airflow_insightly_hooks.core.sample_record import sample_record
from tests.strategies import exact_values, records

VECTORS = Path(__file__).parents[2] / "vectors"


def test_body_of_the_help_page() -> None:
    """The only body that Insightly documents is recognized as a task."""
    found = read_entity((VECTORS / "help_page_task_body.json").read_bytes())
    assert found.record_type == "Tasks"
    assert found.record_id > 0
    assert found.changed_at is not None


@pytest.mark.parametrize("record_type", RECORD_TYPES)
def test_each_type_by_its_fields(record_type: str) -> None:
    """A body with all of a type's fields tells the type."""
    body = build_body(full_record(record_type), record_type=record_type)
    found = read_entity(body.encode())
    assert (found.record_type, found.record_id) == (record_type, 7)


@pytest.mark.parametrize("record_type", RECORD_TYPES)
def test_each_type_by_name(record_type: str) -> None:
    """If the URI names the type, the record needs the id of that type, and no other id will do."""
    id_field = RECORD_TYPES[record_type].id_field
    body = json.dumps({"entity": {id_field: 7}}).encode()
    assert read_entity(body, record_type).record_id == 7
    with pytest.raises(InvalidEntity, match=f"no {id_field}, as {record_type} have: .* webhook's URI"):
        read_entity(b'{"entity": {"NONE_ID": 7}}', record_type)
    with pytest.raises(InvalidEntity, match=f"{id_field} must be"):
        read_entity(json.dumps({"entity": {id_field: None}}).encode(), record_type)


def test_no_id() -> None:
    """The error says that the record's id is missing, and gives no advice that would not help."""
    with pytest.raises(InvalidEntity, match=r"^it has no field with a record's id, such as TASK_ID$"):
        read_entity(b'{"entity": {"TITLE": "Call back"}}')


def full_record(record_type: str) -> dict[str, Any]:
    kind = RECORD_TYPES[record_type]
    samples = {"datetime": "2026-01-31 08:00:00"}
    return {name: samples.get(field.kind) for name, field in kind.fields.items()} | {kind.id_field: 7}


@given(st.data())
def test_what_is_built_is_read(data: st.DataObject) -> None:
    """A body that this package writes comes back as the same record, with its time of change."""
    record_type = data.draw(st.sampled_from([*RECORD_TYPES]))
    record = data.draw(records(record_type))
    try:
        body = build_body(record, record_type=record_type)
    except InvalidPayload:
        return
    found = read_entity(body.encode(), record_type)
    assert found.record_id == record[RECORD_TYPES[record_type].id_field]
    assert found.record.keys() == record.keys()
    written = field_value(record, UPDATED) or field_value(record, CREATED)
    if isinstance(written, str) and written:
        expected = api_time(written)
        assert found.changed_at == expected.replace(microsecond=expected.microsecond // 1000 * 1000)


def test_custom_object() -> None:
    """A custom object's times are among its custom fields; the URI names its type."""
    body = build_body(dict(sample_record("Invoice__c")) | {"RECORD_ID": 7}, record_type="Invoice__c").encode()
    found = read_entity(body, "Invoice__c")
    assert (found.record_type, found.record_id) == ("Invoice__c", 7)
    with pytest.raises(InvalidEntity, match=r"\?record_type=Invoice__c"):
        read_entity(body)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/Date(1769846400000-0800)/", datetime(2026, 1, 31, 8, tzinfo=timezone.utc)),
        ("2026-01-31 08:00:00", datetime(2026, 1, 31, 8, tzinfo=timezone.utc)),
        ("2026-01-31T09:00:00+01:00", datetime(2026, 1, 31, 8, tzinfo=timezone.utc)),
        *((text, None) for text in ("", "soon", "/Date()/", f"/Date({'9' * 5_000})/")),
        *((value, None) for value in (5, None, [], {}, True)),
    ],
)  # fmt: skip
def test_times(value: object, expected: datetime | None) -> None:
    """A time is read in each form that it may have; one that can't be read counts as missing."""
    body = json.dumps({"entity": {"CONTACT_ID": 7, "DATE_UPDATED_UTC": value}}).encode()
    assert read_entity(body).changed_at == expected


def test_time_of_creation() -> None:
    """If a record has no update time, its creation time counts."""
    body = (
        b'{"entity": {"CONTACT_ID": 7, "DATE_UPDATED_UTC": null, "DATE_CREATED_UTC": "2026-01-31 08:00:00"}}'
    )
    assert read_entity(body).changed_at == datetime(2026, 1, 31, 8, tzinfo=timezone.utc)


def test_unknown_type() -> None:
    with pytest.raises(UnknownRecordType):
        read_entity(b'{"entity": {"CONTACT_ID": 7}}', "Contact")


MARK = "Wichtelmann"
names = st.sampled_from(["CONTACT_ID", "TASK_ID", "RECORD_ID", "DATE_UPDATED_UTC", "CUSTOMFIELDS", MARK])
values = exact_values | st.just(MARK)
bodies = (
    st.binary(max_size=60)
    | values.map(lambda value: dumps(value).encode())
    | st.dictionaries(names, values, max_size=5).map(lambda fields: dumps({"entity": fields}).encode())
    | st.dictionaries(names, values, max_size=5).map(lambda fields: dumps({"entity": fields}).encode()[:-1])
)


@given(bodies, st.none() | st.sampled_from(["Contacts", "Invoice__c", "Contact", MARK]))
def test_anything(body: bytes, record_type: str | None) -> None:
    """Whatever comes is a record, or is refused with an error that shows nothing of it."""
    shown = ""
    try:
        found = read_entity(body, record_type)
    except UnknownRecordType:
        shown = ""
    except InvalidEntity as error:
        shown = str(error)
    else:
        shown = repr(found)
        assert found.record_id > 0
    assert MARK not in shown
