"""Bodies of the sandbox's webhooks: what the package writes, too, and the milliseconds of a change."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from pathlib import Path

import pytest

from airflow_insightly_hooks.core.payload import build_body
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.sandbox.crm.clock import Clock
from airflow_insightly_hooks.sandbox.crm.custom_fields import CUSTOM_FIELDS, CUSTOM_OBJECTS
from airflow_insightly_hooks.sandbox.seed.seeded_records import seeded_store
from airflow_insightly_hooks.sandbox.webhooks.entity_body import entity_body, times_of_change

VECTORS = Path(__file__).parent.parent.parent / "vectors"
NOW = 1_763_980_000.257
"""2025-11-24 10:26:40.257 UTC"""
ALL_TYPES = (*RECORD_TYPES, *CUSTOM_OBJECTS)
ODD_TIMES = (
    "0001-01-01 00:00:00",
    "0001-01-01 05:00:00",
    "1883-11-18 19:59:59",
    "1883-11-18 20:07:02",
    "1969-12-31 23:59:59",
    "2017-03-12 09:59:59",
    "2017-03-12 10:00:00",
    "2017-11-05 08:59:59",
    "9999-12-31 00:00:00",
    "9999-12-31 23:59:59",
)


@pytest.fixture
def store():
    """The records that a sandbox begins with, and a clock that stands still."""
    return seeded_store(Clock(lambda: NOW), NOW)


def expected_body(record_type, record):
    """Return the body that the package writes of a record."""
    kinds = {field.name: field.kind for field in CUSTOM_FIELDS.get(record_type.name, ())}
    return build_body(
        record,
        record_type=record_type.name,
        custom_date_fields=[name for name, kind in kinds.items() if kind in ("DATE", "DATETIME")],
        custom_day_fields=[name for name, kind in kinds.items() if kind == "DATE"],
    )


def writes_of(store):
    """Return the list that each creation and update of the store is added to."""
    writes = []
    store.on_write = writes.append
    return writes


@pytest.mark.parametrize("name", ALL_TYPES)
def test_the_package_writes_the_same_body(store, name):
    """Of each record that the sandbox begins with, the body is the package's own, byte for byte."""
    record_type = store.record_types[name]
    records = store.all(record_type)
    assert records
    for record in records:
        assert entity_body(record_type, record) == expected_body(record_type, record)


@pytest.mark.parametrize("name", ALL_TYPES)
def test_every_date_of_a_record(store, name):
    """Each date, those among custom fields and occasions included, is written as the package writes it."""
    record_type = store.record_types[name]
    custom = [field.name for field in CUSTOM_FIELDS.get(name, ()) if field.kind in ("DATE", "DATETIME")]
    for time in ODD_TIMES:
        fields = {**dict.fromkeys(record_type.date_fields, time), "EXTRA": [1.5, "é/"]}
        if custom:
            fields["CUSTOMFIELDS"] = [{"FIELD_NAME": field, "FIELD_VALUE": time} for field in custom]
        if "DATES" in record_type.fields:
            fields["DATES"] = [{"OCCASION_NAME": "x", "OCCASION_DATE": time}, {"OCCASION_DATE": None}]
        record = store.write_any_fields(record_type, fields)
        body = entity_body(record_type, record)
        assert body == expected_body(record_type, record)
        dates = len(record_type.date_fields) + len(custom) + ("DATES" in record_type.fields)
        assert body.count(r"\/Date(") == dates > 0


def test_the_help_pages_example(store):
    """The task of Insightly's help page becomes its example, milliseconds included, but for white space."""
    tasks = store.record_types["Tasks"]
    task = store.get(tasks, 99922875)
    moment = datetime(2017, 3, 10, 3, 34, 10, 787_000, tzinfo=timezone.utc)
    page = (VECTORS / "help_page_task_body.json").read_text()
    expected = re.sub(r'("(?:[^"\\]|\\.)*")|\s+', lambda match: match[1] or "", page)
    assert entity_body(tasks, task, {"DATE_CREATED_UTC": moment, "DATE_UPDATED_UTC": moment}) == expected


def test_only_the_changes_own_times_have_milliseconds(store):
    """A creation sets both times, an update one, and a time that a user has set has none."""
    tasks, writes = store.record_types["Tasks"], writes_of(store)
    task = store.create(tasks, {"TITLE": "x", "COMPLETED": False, "DUE_DATE": "2025-11-24 10:26:40"})
    store.update(tasks, {"TASK_ID": task["TASK_ID"], "COMPLETED": True})
    store.update(tasks, {"TASK_ID": task["TASK_ID"], "PRIORITY": 3})
    store.write_any_fields(tasks, {"DATE_UPDATED_UTC": "2025-05-05 00:00:00"}, task["TASK_ID"])
    assert [set(times_of_change(write)) for write in writes] == [
        {"DATE_CREATED_UTC", "DATE_UPDATED_UTC"},
        {"DATE_UPDATED_UTC", "COMPLETED_DATE_UTC"},
        {"DATE_UPDATED_UTC"},
        set(),
    ]
    bodies = [entity_body(tasks, write.record, times_of_change(write)) for write in writes]
    found = [
        [(name, milliseconds[-3:]) for name, milliseconds in re.findall(r'"(\w+)":"\\/Date\((\d+)', body)]
        for body in bodies
    ]
    assert found[0] == [("DUE_DATE", "000"), ("DATE_CREATED_UTC", "257"), ("DATE_UPDATED_UTC", "257")]
    assert dict(found[1]) == {
        "DUE_DATE": "000",
        "COMPLETED_DATE_UTC": "257",
        "DATE_CREATED_UTC": "000",
        "DATE_UPDATED_UTC": "257",
    }


def test_a_rounded_time_is_told_as_it_is(store):
    """Where record times are rounded, so into the future, the body has the time of the change itself."""
    store.clock.source = lambda: NOW + 0.5
    store.clock.record_times = "rounded"
    emails, writes = store.record_types["Emails"], writes_of(store)
    store.write_any_fields(emails, {"SUBJECT": "x"})
    (write,) = writes
    assert write.record["DATE_CREATED_UTC"] == "2025-11-24 10:26:41"
    body = json.loads(entity_body(emails, write.record, times_of_change(write)))
    assert body["entity"]["DATE_CREATED_UTC"] == "/Date(1763980000757-0800)/"


def test_a_custom_objects_update_time(store):
    """It stands among the custom fields, and has its milliseconds there."""
    sites, writes = store.record_types["Site__c"], writes_of(store)
    store.write_any_fields(sites, {"RECORD_NAME": "x"})
    (write,) = writes
    custom = json.loads(entity_body(sites, write.record, times_of_change(write)))["entity"]["CUSTOMFIELDS"]
    assert [one["FIELD_VALUE"] for one in custom if one["FIELD_NAME"] == "DATE_UPDATED_UTC"] == [
        "/Date(1763980000257-0800)/"
    ]


def test_deletions_and_seeding_are_no_writes(store):
    """on_write is called for creations and updates alone, once each, with the record before the change."""
    contacts, writes = store.record_types["Contacts"], writes_of(store)
    contact = store.create(contacts, {"FIRST_NAME": "Ada"})
    changed = store.update(contacts, {"CONTACT_ID": contact["CONTACT_ID"], "TITLE": "Countess"})
    store.delete(contacts, contact["CONTACT_ID"])
    assert [(write.previous, write.record) for write in writes] == [(None, contact), (contact, changed)]
