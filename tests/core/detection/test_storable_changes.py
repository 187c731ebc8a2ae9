"""Changes in a store that loses the order of keys, and some characters."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.detection.changes import RecordChange, check_changes
from airflow_insightly_hooks.core.detection.storable_changes import exact_record, storable
from airflow_insightly_hooks.core.payload import build_body
from airflow_insightly_hooks.core.records import RECORD_TYPES
from tests.strategies import any_text, changes


def jsonb(value: Any) -> Any:
    """Return what PostgreSQL's JSONB gives back, its keys in order of length; some characters it refuses."""
    if isinstance(value, str):
        assert "\0" not in value
        value.encode()
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(key.encode()), key))
        return {jsonb(key): jsonb(value[key]) for key in keys}
    return [jsonb(item) for item in value] if isinstance(value, list) else value


def change_of(record: dict[str, Any], record_type: str = "Contacts") -> RecordChange:
    return {
        "record_type": record_type,
        "record_id": 7,
        "event": "added",
        "changed_at": "2020-05-01T09:30:00Z",
        "record": record,
    }


IN_ORDER = {
    "CONTACT_ID": 7,
    "FIRST_NAME": "Zoë 😀",
    "LAST_NAME": None,
    "DATES": [{"DATE_ID": 1, "OCCASION_NAME": "Birthday", "OCCASION_DATE": "2020-05-01 00:00:00"}],
    "TAGS": [{"TAG_NAME": "hot"}],
    "CUSTOMFIELDS": [{"FIELD_NAME": "Region__c", "FIELD_VALUE": "North", "CUSTOM_FIELD_ID": "Region__c"}],
}
IN_ORDER = {name: IN_ORDER[name] for name in RECORD_TYPES["Contacts"].fields if name in IN_ORDER}


def test_a_record_in_the_apis_order_is_stored_as_it_is():
    """Its order is known, so nothing is kept beside it."""
    change = change_of(IN_ORDER)
    assert storable(change) == change
    assert "record_json" not in storable(change)
    assert json.dumps(exact_record(jsonb(storable(change)))) == json.dumps(IN_ORDER)


@pytest.mark.parametrize(
    "record",
    [
        {"LAST_NAME": "Dubois", "CONTACT_ID": 7},
        {"CONTACT_ID": 7, "Z_NEW": 1, "A_NEW": 2},
        {"CONTACT_ID": 7, "TAGS": [{"TAG_NAME": "hot", "A_NEW": 1}, {"Z": 1, "A": 2}]},
        {
            "CONTACT_ID": 7,
            "CUSTOMFIELDS": [{"FIELD_VALUE": {"b": 1, "a": [{"d": 1, "c": 2}]}, "FIELD_NAME": "X__c"}],
        },
    ],
)
def test_another_order_is_kept_beside_the_record(record):
    """Where the fields aren't in the API's order, the record's text is kept, and restores it."""
    kept = storable(change_of(record))
    assert kept["record"] == record
    assert json.dumps(exact_record(jsonb(kept))) == json.dumps(record)


@pytest.mark.parametrize("odd", ["\0", "\ud83d", "\udc00x", "a\0b"])
def test_what_a_store_refuses_is_kept_beside_the_record(odd):
    """A character that a store may refuse is U+FFFD in the record, in names as in values, and restored."""
    record = {"CONTACT_ID": 7, "FIRST_NAME": odd, "TAGS": [{"TAG_NAME": [odd, 1]}], odd: None}
    kept = jsonb(storable(change_of(record)))
    assert "\ufffd" in kept["record"]["FIRST_NAME"]
    assert exact_record(kept) == record
    assert list(exact_record(kept)) == list(record)


def test_new_fields_come_last_by_name():
    """A field that the table doesn't know has a place of its own, whatever order a store gives."""
    record = {"A_NEW": 1, "CONTACT_ID": 7, "B_NEW": 2}
    assert list(exact_record(change_of(record))) == ["CONTACT_ID", "A_NEW", "B_NEW"]
    assert list(exact_record(change_of(dict(reversed(record.items()))))) == ["CONTACT_ID", "A_NEW", "B_NEW"]


@given(changes(), st.dictionaries(any_text, st.none() | any_text | st.integers(), max_size=2), st.randoms())
def test_any_record_survives_a_store(change, more, random):
    """Whatever a record holds, in whatever order, the store takes it and its body is the same afterwards."""
    items = [*change["record"].items(), *more.items()]
    if random.random() < 0.5:
        random.shuffle(items)
    change["record"] = dict(items)
    before = copy.deepcopy(change)
    kept = jsonb(json.loads(json.dumps(storable(change))))
    assert json.dumps(change) == json.dumps(before)
    record = exact_record(kept)
    assert json.dumps(record) == json.dumps(change["record"])
    assert build_body(record) == build_body(change["record"])
    assert check_changes([kept]) == [kept]


def test_a_record_that_was_changed_since_is_taken_as_it_is() -> None:
    """What a task between detect and build left out of a record does not come back from its exact text."""
    stored = storable(change_of({"UNDOCUMENTED": 1, "TASK_ID": 1, "TITLE": "secret"}, "Tasks"))
    assert "record_json" in stored
    del stored["record"]["TITLE"]
    assert exact_record(stored) == {"TASK_ID": 1, "UNDOCUMENTED": 1}
