"""The records that a sandbox begins with."""

from __future__ import annotations

import json
import re

import pytest

from airflow_insightly_hooks.core.records import RECORD_TYPES, field_value

NAMES = [*RECORD_TYPES, "Invoice__c", "Site__c"]
TITLES = {RECORD_TYPES[name].title: name for name in RECORD_TYPES}
REFERENCES = {
    "CONTACT_ID": "Contacts",
    "CREATED_CONTACT_ID": "Contacts",
    "CREATED_USER_ID": "Users",
    "FOLDER_ID": "KnowledgeArticleFolder",
    "FORUM_CATEGORY_ID": "ForumCategories",
    "FORUM_ID": "CommunityForums",
    "LEAD_ID": "Leads",
    "OPPORTUNITY_ID": "Opportunities",
    "OPPORTUNITY_ITEM_ID": "OpportunityLineItem",
    "ORGANISATION_ID": "Organisations",
    "OWNER_USER_ID": "Users",
    "POST_ID": "CommunityPosts",
    "PRICEBOOK_ENTRY_ID": "PricebookEntry",
    "PRICEBOOK_ID": "Pricebook",
    "PRODUCT_ID": "Product",
    "PROJECT_ID": "Projects",
    "QUOTE_ID": "Quotation",
    "RESPONSIBLE_USER": "Users",
    "RESPONSIBLE_USER_ID": "Users",
}


def _all(sandbox, name):
    return sandbox.get(f"/{name}", top=500)


@pytest.mark.parametrize("name", NAMES)
def test_records_keep_to_their_type(still, name):
    """Each type has records; they have all fields in order, and what is required is there."""
    record_type = RECORD_TYPES[name]
    records = [record for record in _all(still, name) if record[record_type.id_field] != 99922875]
    assert records
    required = [field.name for field in record_type.fields.values() if field.required]
    for record in records:
        assert list(record) == list(record_type.fields)
        assert [field for field in required if record[field] in (None, "")] == []


def test_the_help_pages_task(still):
    """The task of Insightly's help page has exactly its fields, order and values, as the API writes them."""
    assert json.dumps(still.get("/Tasks/99922875")) == (
        '{"TASK_ID": 99922875, "TITLE": "New Lead Task", "CATEGORY_ID": 9998895, '
        '"DUE_DATE": "2017-03-10 08:00:00", "PUBLICLY_VISIBLE": true, "COMPLETED": false, "DETAILS": "", '
        '"STATUS": "NOT STARTED", "PRIORITY": 2, "PERCENT_COMPLETE": 0, "OWNER_VISIBLE": false, '
        '"RESPONSIBLE_USER_ID": 999308, "OWNER_USER_ID": 999308, '
        '"DATE_CREATED_UTC": "2017-03-10 03:34:10", "DATE_UPDATED_UTC": "2017-03-10 03:34:10", '
        '"REMINDER_SENT": false, "TASKLINKS": []}'
    )


def test_references_lead_somewhere(still):
    """Every id of another record, and every link, is that of a seeded record."""
    ids = {name: {record[RECORD_TYPES[name].id_field] for record in _all(still, name)} for name in NAMES}
    lost = [
        (name, field, record[field])
        for name in NAMES
        for record in _all(still, name)
        for field, target in REFERENCES.items()
        if record.get(field) is not None and record[field] not in ids[target]
    ]
    links = [
        (name, link) for name in NAMES for record in _all(still, name) for link in record.get("LINKS", ())
    ]
    assert lost == []
    assert [
        link for _, link in links if link["LINK_OBJECT_ID"] not in ids[TITLES[link["LINK_OBJECT_NAME"]]]
    ] == []
    assert all(link["OBJECT_NAME"] == RECORD_TYPES[name].title for name, link in links)
    assert len({link["LINK_ID"] for _, link in links}) == len(links)


def test_times_are_in_the_year_before_the_start(still):
    """Records were created and updated within the last year, in that order, some of them today."""
    created_and_updated = [
        (record["DATE_CREATED_UTC"], field_value(record, "DATE_UPDATED_UTC") or record["DATE_CREATED_UTC"])
        for name in NAMES
        for record in _all(still, name)
        if record.get("TASK_ID") != 99922875
    ]
    assert len(created_and_updated) > 300
    assert all(created <= updated for created, updated in created_and_updated)
    assert min(created for created, _ in created_and_updated) >= "2024-11-24 10:26:40"
    updates = [updated for _, updated in created_and_updated]
    assert max(updates) <= "2025-11-24 10:23:40"
    assert max(updates) > "2025-11-24 00:00:00"


A_FRACTION = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9:]{8}[.,][0-9]")


def test_times_have_whole_seconds(sandbox):
    """In every record, as the API's: seeded, created and changed ones, custom objects, records below records.

    Public clients read no other.
    """
    late = "2025-12-01T10:00:00.787Z"
    contact = sandbox.post(
        "/Contacts",
        FIRST_NAME="Ada",
        DATE_OF_BIRTH=late,
        DATES=[{"OCCASION_NAME": "x", "OCCASION_DATE": late}],
        CUSTOMFIELDS=[{"FIELD_NAME": "Customer_since__c", "FIELD_VALUE": late}],
    )
    sandbox.put("/Contacts", CONTACT_ID=contact["CONTACT_ID"], DATE_OF_BIRTH=late)
    times = {"DATE_CREATED_UTC": late, "DATE_UPDATED_UTC": late}
    for name in NAMES:
        made = sandbox.create(name, times)
        record_id = made[RECORD_TYPES[name].id_field]
        sandbox.ask("PUT", f"/_sandbox/records/{name}/{record_id}", json=times)
        assert (field_value(made, "DATE_UPDATED_UTC") or late)[:19].replace("T", " ") in (
            "2025-12-01 10:00:00",
            "2025-11-24 10:26:40",
        )
    sandbox.post(f"/Contacts/{contact['CONTACT_ID']}/Notes", TITLE="x", BODY="y")
    project = sandbox.get("/Projects")[0]["PROJECT_ID"]
    sandbox.post(f"/Projects/{project}/Milestones", TITLE="x", DUE_DATE=late, COMPLETED=False)
    for name in NAMES:
        for record in _all(sandbox, name):
            assert A_FRACTION.search(json.dumps(record)) is None, (name, record)
    assert A_FRACTION.search(json.dumps(sandbox.get("/CustomObjects"))) is None


def test_the_seed_is_the_same_each_time(sandbox, clock):
    """Two sandboxes that start at one time hold the same; a later one holds the same but later."""
    other = type(sandbox)(clock)
    clock.tick(3600)
    later = type(sandbox)(clock)
    assert all(_all(sandbox, name) == _all(other, name) for name in NAMES)
    assert _all(later, "Contacts")[0]["EMAIL_ADDRESS"] == _all(sandbox, "Contacts")[0]["EMAIL_ADDRESS"]
    assert _all(later, "Contacts")[0]["DATE_UPDATED_UTC"] > _all(sandbox, "Contacts")[0]["DATE_UPDATED_UTC"]
    other.close()
    later.close()


def test_names_are_from_all_over(still):
    """Names have letters beyond ASCII."""
    text = still.api("GET", "/Contacts?top=500").text + still.api("GET", "/Organisations").text
    assert [letter for letter in ("é", "ü", "日本") if letter not in text] == []


def test_sandboxes_are_apart(sandbox, clock):
    """Two applications share nothing."""
    other = type(sandbox)(clock)
    other.post("/Contacts", FIRST_NAME="x")
    assert len(_all(other, "Contacts")) == len(_all(sandbox, "Contacts")) + 1
    other.close()
