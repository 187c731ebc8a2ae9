"""Changes in a store that loses the order of keys, and some characters."""

from __future__ import annotations

import copy
import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from airflow.sdk.serde import deserialize, serialize
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.detection.changes import RecordChange, check_changes
from airflow_insightly_hooks.core.detection.storable_changes import exact_record, record_of, storable
from airflow_insightly_hooks.core.exact_json import dumps, loads
from airflow_insightly_hooks.core.payload import build_body
from airflow_insightly_hooks.core.records import RECORD_TYPES
from tests.strategies import any_text, changes, exact_values, number_texts


def jsonb(value: Any) -> Any:
    """Return what PostgreSQL's JSONB returns.

    It sorts keys by length, writes numbers as its numeric type does, and refuses some characters.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = Decimal(repr(value))
        assert number.is_finite()
        return json.loads(f"{number if number else abs(number):f}")
    if isinstance(value, str):
        assert "\0" not in value
        value.encode()
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(key.encode()), key))
        return {jsonb(key): jsonb(value[key]) for key in keys}
    return [jsonb(item) for item in value] if isinstance(value, list) else value


def through_xcom(value: Any) -> Any:
    """Return what the next task gets on PostgreSQL: serialized by Airflow, sent to its API and back."""

    def over_the_wire(sent: Any) -> Any:
        return msgspec.msgpack.decode(msgspec.msgpack.encode(sent))

    stored = jsonb(json.loads(json.dumps(over_the_wire(serialize(value)), allow_nan=False)))
    return deserialize(over_the_wire(stored))


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
    """Its order is known, so nothing extra is kept."""
    change = change_of(IN_ORDER)
    assert storable(change) == change
    assert "record_json" not in storable(change)
    assert json.dumps(exact_record(jsonb(storable(change)))) == json.dumps(IN_ORDER)


@pytest.mark.parametrize(
    "record",
    [
        {"LAST_NAME": "Dubois", "CONTACT_ID": 7},
        {"CONTACT_ID": 7, "Z_NEW": 1, "A_NEW": 2},
        {"CONTACT_ID": 7, "FIRST_NAME": {"b": 1, "a": [{"d": 1, "c": 2}]}},
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
    """Such a character becomes U+FFFD in the record, in names and in values, and is restored."""
    record = {"CONTACT_ID": 7, "FIRST_NAME": odd, "TAGS": [{"TAG_NAME": [odd, 1]}], odd: None}
    kept = jsonb(storable(change_of(record)))
    replaced = "".join("\ufffd" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in odd)
    assert kept["record"]["FIRST_NAME"] == replaced
    assert replaced in kept["record"]
    assert exact_record(kept) == record
    assert list(exact_record(kept)) == list(record)


def test_new_fields_come_last_by_name():
    """Fields that the table doesn't know come last, sorted by name, whatever a store's order is."""
    record = {"A_NEW": 1, "CONTACT_ID": 7, "B_NEW": 2}
    assert list(exact_record(change_of(record))) == ["CONTACT_ID", "A_NEW", "B_NEW"]
    assert list(exact_record(change_of(dict(reversed(record.items()))))) == ["CONTACT_ID", "A_NEW", "B_NEW"]


@given(changes(), st.dictionaries(any_text, st.none() | any_text | st.integers(), max_size=2), st.randoms())
def test_any_record_survives_a_store(change, more, random):
    """Whatever a record contains, a store takes it, and its body is the same afterwards."""
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


NUMBERS = [
    *(
        "18446744073709551616",
        "-9223372036854775809",
        "1e20",
        "1e400",
        "-1E400",
        "1e16",
        "12345678901234567.0",
    ),
    *(
        "1234567890123456.78",
        "1.10",
        "1E2",
        "1e-400",
        "-0",
        "-0.0",
        "0.1",
        "5e-324",
        "1.7976931348623157e308",
    ),
    "9" * 5_000,
]


@pytest.mark.parametrize("text", NUMBERS)
def test_a_number_that_a_store_changes(text):
    """If JSONB writes a number differently, or Airflow's API refuses it, the number's own text is kept."""
    record = loads(f'{{"OPPORTUNITY_ID":7,"OPPORTUNITY_VALUE":{text},"LINKS":[{{"A":[{text},"x"]}}]}}')
    kept = through_xcom(storable(change_of(record, "Opportunities")))
    assert dumps(exact_record(kept)) == dumps(record)
    assert build_body(exact_record(kept)) == build_body(record)
    assert record_of(kept) == record


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1.10", 1.1),
        ("-0", 0),
        ("-0.0", 0),
        ("1e16", "1e16"),
        ("1e20", "1e20"),
        ("1e400", "1e400"),
        (str(2**63 - 1), 2**63 - 1),
        (str(2**64), str(2**64)),
        ("5", 5),
    ],
)
def test_what_stands_for_such_a_number(text, shown):
    """In the record, it is replaced by the nearest number that a store keeps, or by its text."""
    stored = storable(change_of(loads(f'{{"CONTACT_ID":7,"X":{text}}}')))
    assert stored["record"]["X"] == shown
    assert type(stored["record"]["X"]) in (int, float, str)
    assert not json.dumps(stored["record"]["X"]).startswith("-")


def test_a_number_of_python_that_a_store_changes():
    """A record that a user's task has made has plain floats."""
    stored = storable(change_of({"CONTACT_ID": 7, "X": 1e20}))
    assert stored["record"]["X"] == "1e+20"
    assert exact_record(stored) == {"CONTACT_ID": 7, "X": 1e20}


@pytest.mark.parametrize(
    "key", ["__classname__", "__version__", "__data__", "__type", "__var", "__id__", "__"]
)
def test_a_key_that_airflow_takes_for_its_own(key):
    """Airflow refuses such keys, or misinterprets them."""
    record = {"CONTACT_ID": 7, key: "builtins.tuple", "TAGS": [{key: 1, "__version__": 2, "__data__": 3}]}
    assert exact_record(through_xcom(storable(change_of(record)))) == record


json_records = st.dictionaries(
    st.sampled_from(list(RECORD_TYPES["Contacts"].fields)) | any_text, exact_values, max_size=6
)


@given(json_records, st.lists(number_texts, max_size=3))
def test_any_json_passes_through_xcom(record, texts):
    """Any JSON value that the API can send reaches the next task exactly, and so does its body."""
    record = {**record, "NUMBERS": [loads(text) for text in texts]}
    record.pop("CUSTOMFIELDS", None), record.pop("DATES", None)  # from some of them no body can be built
    change = change_of(record)
    kept = through_xcom(storable(change))
    assert dumps(exact_record(kept)) == dumps(record)
    assert dumps(record_of(kept)) == dumps(record) or "record_json" not in kept
    assert build_body(exact_record(kept), record_type="Contacts") == build_body(
        record, record_type="Contacts"
    )
    assert check_changes([kept]) == [kept]
    assert storable(kept | {"record": record}) == storable(change)


def test_a_record_that_was_changed_since_is_taken_as_it_is() -> None:
    """If a task before build removes something from a record, its exact text doesn't bring it back."""
    stored = storable(change_of({"UNDOCUMENTED": 1, "TASK_ID": 1, "TITLE": "secret"}, "Tasks"))
    assert "record_json" in stored
    del stored["record"]["TITLE"]
    assert exact_record(stored) == {"TASK_ID": 1, "UNDOCUMENTED": 1}
