"""Record types: the table of the API's facts, custom objects, and a record's fields."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given

from airflow_insightly_hooks.core.errors import UnknownRecordType
from airflow_insightly_hooks.core.records import RECORD_TYPES, Field, RecordType, field_value
from tests.strategies import records

FACTS = json.loads((Path(__file__).parent.parent / "vectors" / "record_types.json").read_text())
KINDS = {
    "int32",
    "int64",
    "number",
    "text",
    "boolean",
    "datetime",
    "custom_fields",
    "tags",
    "links",
    "dates",
    "email_domains",
}


def test_every_record_type_of_the_api_is_there():
    """The mapping holds the 27 record types, each with the field that holds its id."""
    assert {name: record_type.id_field for name, record_type in RECORD_TYPES.items()} == FACTS["ids"]
    assert len(RECORD_TYPES) == 27


@pytest.mark.parametrize("name", FACTS["ids"])
def test_which_record_types_tell_updates(name):
    """A record type has update times, unless the API gives its records only a creation time."""
    assert RECORD_TYPES[name].has_updates == (name not in FACTS["without_update_time"])
    assert "DATE_CREATED_UTC" in RECORD_TYPES[name].date_fields


@pytest.mark.parametrize("name", [*FACTS["ids"], "Invoice__c"])
def test_fields_are_read_from_the_table(name):
    """Each field bears its own name and a kind that is known."""
    record_type = RECORD_TYPES[name]
    assert [field.name for field in record_type.fields.values()] == list(record_type.fields)
    assert {field.kind for field in record_type.fields.values()} <= KINDS


def test_a_field_is_a_date_in_every_record_type_or_in_none():
    """A name is a date in every record type that has it, or in none.

    So a body needs no record type to know.
    """
    dates = {name for record_type in RECORD_TYPES.values() for name in record_type.date_fields}
    others = {name for record_type in RECORD_TYPES.values() for name in record_type.fields} - dates
    for record_type in RECORD_TYPES.values():
        assert {name for name in record_type.fields if name in dates} == set(record_type.date_fields)
    assert not dates & others


def test_a_record_type_in_full():
    """Tasks: path, title, methods and parents as the API has them."""
    tasks = RECORD_TYPES["Tasks"]
    assert isinstance(tasks, RecordType)
    assert (tasks.path, tasks.title, tasks.is_custom_object) == ("/Tasks", "Task", False)
    assert tasks.methods == {"POST", "PUT", "DELETE"}
    assert tasks.date_fields == {
        "ASSIGNED_DATE_UTC",
        "COMPLETED_DATE_UTC",
        "DATE_CREATED_UTC",
        "DATE_UPDATED_UTC",
        "DUE_DATE",
        "REMINDER_DATE_UTC",
        "START_DATE",
    }
    assert RECORD_TYPES["Milestones"].parents == ("Projects",)


def test_a_custom_object():
    """A name that ends in __c is a custom object: it isn't listed, but can be asked for."""
    invoices = RECORD_TYPES["Invoice__c"]
    assert (invoices.name, invoices.title, invoices.path) == ("Invoice__c", "Invoice__c", "/Invoice__c")
    assert invoices.id_field == "RECORD_ID"
    assert invoices.is_custom_object
    assert invoices.has_updates
    assert invoices.date_fields == {"DATE_CREATED_UTC", "DATE_UPDATED_UTC"}
    assert "Invoice__c" in RECORD_TYPES
    assert "Invoice__c" not in list(RECORD_TYPES)
    assert RECORD_TYPES["Invoice__c"] is invoices


@pytest.mark.parametrize(
    "name",
    [
        "Contact",
        "contacts",
        "",
        "__c",
        "1x__c",
        "_x__c",
        "a b__c",
        "a/b__c",
        "../x__c",
        "Invoice__c\n",
        "Invoice__C",
    ],
)
def test_a_name_that_is_no_record_type_is_refused(name):
    """UnknownRecordType, a KeyError, has the name and the known names."""
    assert name not in RECORD_TYPES
    assert RECORD_TYPES.get(name) is None
    with pytest.raises(UnknownRecordType) as caught:
        RECORD_TYPES[name]
    assert isinstance(caught.value, KeyError)
    assert caught.value.name == name
    assert caught.value.known == tuple(RECORD_TYPES)


@pytest.mark.parametrize("name", [None, 5, ("Tasks",)])
def test_what_is_no_name_is_no_record_type(name):
    """A value that isn't a text is no record type."""
    assert name not in RECORD_TYPES
    with pytest.raises(UnknownRecordType):
        RECORD_TYPES[name]


def test_a_misspelt_name_is_guessed():
    """The message names the record type that was probably meant."""
    with pytest.raises(UnknownRecordType, match="did you mean 'Contacts'"):
        RECORD_TYPES["Contact"]


@pytest.mark.parametrize(
    ("facts", "field"),
    [
        ("int64 read-only", Field("X", "int64", read_only=True)),
        ("text", Field("X", "text")),
        ("text(255) required", Field("X", "text", 255, required=True)),
        ("text(20) required read-only", Field("X", "text", 20, required=True, read_only=True)),
    ],
)
def test_a_field_is_parsed(facts, field):
    """Kind, length, required and read-only are read from the table's short form."""
    assert Field.parse("X", facts) == field


@pytest.mark.parametrize(
    "facts", ["", "text()", "text(many)", "text read-only required", "text(5) unique", "TEXT"]
)
def test_a_field_that_cannot_be_parsed_is_refused(facts):
    """A table that was edited wrongly is found when it is read."""
    with pytest.raises(ValueError, match="not a field of"):
        Field.parse("X", facts)


RECORD = {
    "TITLE": "Call",
    "DETAILS": None,
    "CUSTOMFIELDS": [
        {"FIELD_NAME": "Region__c", "FIELD_VALUE": "North"},
        {"FIELD_NAME": "Empty__c", "FIELD_VALUE": None},
        {"FIELD_NAME": "TITLE", "FIELD_VALUE": "another"},
    ],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [("TITLE", "Call"), ("DETAILS", None), ("Region__c", "North"), ("Empty__c", None), ("Absent__c", None)],
)
def test_a_fields_value(name, value):
    """The record's own field comes first, then the custom field of that name. Otherwise there is no value."""
    assert field_value(RECORD, name) == value


@pytest.mark.parametrize("record", [{}, {"CUSTOMFIELDS": None}, {"CUSTOMFIELDS": []}, {"CUSTOMFIELDS": [{}]}])
def test_a_record_without_custom_fields(record):
    """A record may have no list of custom fields, or an empty one."""
    assert field_value(record, "Region__c") is None


@given(records())
def test_every_field_of_a_record_is_found(record):
    """Each field and each custom field has its value, under its name."""
    for name, value in record.items():
        assert field_value(record, name) == value
    for custom in record.get("CUSTOMFIELDS") or ():
        assert field_value(record, custom["FIELD_NAME"]) == custom["FIELD_VALUE"]


def test_an_empty_field_on_top_hides_no_custom_field():
    """A custom object's time among its custom fields counts, even if there is an empty field on top."""
    entry = {"FIELD_NAME": "DATE_UPDATED_UTC", "FIELD_VALUE": "2026-01-01 00:00:00"}
    record = {"DATE_UPDATED_UTC": None, "CUSTOMFIELDS": [entry]}
    assert field_value(record, "DATE_UPDATED_UTC") == "2026-01-01 00:00:00"
