"""The paths below ``/_sandbox``: settings, records with any fields, and going back to the beginning."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    "settings",
    [
        {"clock": 5},
        {"clock_offset": "5"},
        {"clock_offset": True},
        {"clock_offset": 1e12},
        {"requests_per_second": -1},
        {"requests_per_second": 1.5},
        {"requests_per_day": None},
        {"no_access": "Ticket"},
        {"no_access": ["Tickets"]},
        {"not_in_plan": [5]},
        {"fault": 5},
        {"fault": {"status": 503}},
        {"fault": {"path": "/v3.1/Instance"}},
        {"fault": {"path": 5, "status": 503}},
        {"fault": {"path": "/v3.1/Instance", "status": 99}},
        {"fault": {"path": "/v3.1/Instance", "status": 503, "times": -1}},
        {"fault": {"path": "/v3.1/Instance", "status": 503, "retry_after": -1}},
        {"fault": {"path": "/v3.1/Instance", "status": 503, "method": "GET"}},
    ],
)
def test_invalid_settings_are_refused(still, settings):
    """Unknown keys and values of the wrong kind are 400, and nothing is set, not even what was right."""
    before = still.ask("GET", "/_sandbox").json()
    response = still.ask("PUT", "/_sandbox", json={"requests_per_day": 7, **settings})
    assert (response.status_code, list(response.json())) == (400, ["Message"])
    assert still.ask("GET", "/_sandbox").json() == before


def test_get_shows_the_settings(sandbox):
    """GET /_sandbox tells the settings and the clock, and how often a fault is still to come."""
    sandbox.configure(
        clock_offset=60, fault={"path": "/v3.1/Instance", "status": 503, "times": 2}, no_access=["Ticket"]
    )
    sandbox.api("GET", "/Instance")
    state = sandbox.ask("GET", "/_sandbox").json()
    assert state["clock"] == {
        "now": "2025-11-24T10:27:40.250000+00:00",
        "clock_offset": 60.0,
        "record_times": "cut",
    }
    assert state["settings"] == {
        "requests_per_second": 10000,
        "requests_per_day": 100000,
        "fault": {"path": "/v3.1/Instance", "status": 503, "after": 0, "times": 1, "retry_after": None},
        "shorten": None,
        "cut": None,
        "no_access": ["Ticket"],
        "not_in_plan": [],
        "webhook": None,
        "order": "id",
        "updated_after": "exclusive",
        "visibility_delay": 0.0,
        "between_pages": None,
        "seed": 0,
    }


def test_delete_goes_back_to_the_beginning(sandbox):
    """DELETE /_sandbox brings back the seeded records, ids and settings, and empties bins and counts."""
    sandbox.ask("DELETE", "/_sandbox")
    state, contacts = sandbox.ask("GET", "/_sandbox").json(), sandbox.get("/Contacts")
    sandbox.configure(clock_offset=60, requests_per_second=1000, no_access=["Ticket"])
    sandbox.post("/Contacts", FIRST_NAME="x")
    sandbox.put("/Contacts", CONTACT_ID=contacts[0]["CONTACT_ID"], FIRST_NAME="y")
    sandbox.ask("POST", "/bin/a", content=b"x")
    sandbox.ask("DELETE", "/_sandbox")
    assert sandbox.ask("GET", "/_sandbox").json() == state
    assert sandbox.get("/Contacts") == contacts


def test_any_field_can_be_written(sandbox):
    """What the API cannot create or set, the control plane can: read-only fields, times, unknown fields."""
    email = sandbox.create(
        "Emails",
        {
            "EMAIL_ID": 7,
            "SUBJECT": "Hello",
            "DATE_CREATED_UTC": "2025-01-02T03:04:05Z",
            "TAGS": [{"TAG_NAME": "VIP"}],
            "EXTRA": [1],
        },
    )
    assert sandbox.get("/Emails/7") == email
    assert (email["SUBJECT"], email["DATE_CREATED_UTC"]) == ("Hello", "2025-01-02 03:04:05")
    assert (email["EXTRA"], email["TAGS"], email["LINKS"]) == ([1], [{"TAG_NAME": "VIP"}], [])


def test_times_of_records_with_any_fields(sandbox):
    """Without an update time, a new record was updated when it was created, and a changed one just now."""
    created = sandbox.create("Users", {"DATE_CREATED_UTC": "2025-01-02T03:04:05.678Z"})
    assert created["DATE_UPDATED_UTC"] == "2025-01-02 03:04:05"
    path = f"/_sandbox/records/Users/{created['USER_ID']}"
    changed = sandbox.ask("PUT", path, json={"LAST_NAME": "x"}).json()
    assert (changed["DATE_CREATED_UTC"], changed["DATE_UPDATED_UTC"]) == (
        "2025-01-02 03:04:05",
        "2025-11-24 10:26:40",
    )
    changed = sandbox.ask("PUT", path, json={"DATE_UPDATED_UTC": "2025-05-05T00:00:00Z", "USER_ID": 5}).json()
    assert (changed["USER_ID"], changed["DATE_UPDATED_UTC"]) == (created["USER_ID"], "2025-05-05 00:00:00")


def test_the_update_time_of_a_custom_object_can_be_written(sandbox):
    """DATE_UPDATED_UTC of a custom object goes where the API has it, among the custom fields."""
    record = sandbox.create("Site__c", {"RECORD_NAME": "x", "DATE_UPDATED_UTC": "2025-05-05T00:00:00Z"})
    assert record["CUSTOMFIELDS"][-1]["FIELD_VALUE"] == "2025-05-05 00:00:00"
    assert "DATE_UPDATED_UTC" not in record


def test_derived_fields_can_be_written(sandbox):
    """A field that follows from others stays as it was written."""
    deal = sandbox.create("Opportunities", {"BID_AMOUNT": 5, "OPPORTUNITY_VALUE": 7})
    assert deal["OPPORTUNITY_VALUE"] == 7


def test_many_records_can_be_created_at_once(sandbox):
    """A list creates all of its records, in order."""
    created = sandbox.create("ForumCategories", [{"CATEGORY_NAME": name} for name in "abc"])
    assert [record["CATEGORY_NAME"] for record in created] == ["a", "b", "c"]
    assert sandbox.get("/ForumCategories")[-3:] == created


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "records/Nothing", {}, 404),
        ("POST", "records/Contacts", {"CONTACT_ID": 300000001}, 400),
        ("POST", "records/Contacts", {"CONTACT_ID": [5]}, 400),
        ("POST", "records/Contacts", {"FIRST_NAME": 5}, 400),
        ("POST", "records/Contacts", {"DATE_UPDATED_UTC": "x"}, 400),
        ("POST", "records/Contacts", [5], 400),
        ("POST", "records/Contacts", "x", 400),
        ("PUT", "records/Contacts/5", {}, 404),
        ("PUT", "records/Contacts/x", {}, 404),
        ("GET", "records/Contacts", None, 405),
        ("POST", "", {}, 405),
    ],
)
def test_what_cannot_be_written(still, method, path, body, status):
    """Unknown types and ids are 404; taken ids and values of the wrong kind are 400."""
    response = still.ask(method, f"/_sandbox/{path}".rstrip("/"), json=body)
    assert (response.status_code, list(response.json())) == (status, ["Message"])
