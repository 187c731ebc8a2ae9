"""Records: reading, creating, changing, deleting, and what is refused."""

from __future__ import annotations

import pytest

from airflow_insightly_hooks.core.records import RECORD_TYPES

TASK = {"TITLE": "Call", "COMPLETED": False}


def test_a_new_record_has_every_field_in_the_apis_order(sandbox):
    """POST answers 201 with all fields: blank ones null, lists empty, id and times set by the API."""
    record = sandbox.post("/Contacts", FIRST_NAME="Zoë")
    assert list(record) == list(RECORD_TYPES["Contacts"].fields)
    told = {name: value for name, value in record.items() if value not in (None, [], False)}
    assert told == {
        "CONTACT_ID": 300000061,
        "FIRST_NAME": "Zoë",
        "OWNER_USER_ID": 999308,
        "DATE_CREATED_UTC": "2025-11-24 10:26:40",
        "DATE_UPDATED_UTC": "2025-11-24 10:26:40",
        "CREATED_USER_ID": 999308,
    }
    assert sandbox.get("/Contacts/300000061") == record


def test_what_the_api_sets_cannot_be_sent(sandbox):
    """Read-only fields, times of creation and update, and unknown fields in a body are ignored."""
    event = sandbox.post(
        "/Events",
        EVENT_ID=5,
        START_DATE_UTC="2025-12-01T09:00:00Z",
        END_DATE_UTC="2025-12-01 10:00:00.500",
        DATE_CREATED_UTC="2001-01-01 00:00:00",
        DATE_UPDATED_UTC="2001-01-01 00:00:00",
        NO_SUCH=1,
    )
    assert event["EVENT_ID"] != 5
    assert event["DATE_CREATED_UTC"] == event["DATE_UPDATED_UTC"] == "2025-11-24 10:26:40"
    assert event["START_DATE_UTC"] == "2025-12-01 09:00:00"
    assert event["END_DATE_UTC"] == "2025-12-01 10:00:00"
    assert "NO_SUCH" not in event


def test_put_is_partial_and_null_clears(sandbox):
    """PUT sets what it is given, empties what is null, and takes the update time from the clock."""
    task = sandbox.post("/Tasks", **TASK, DETAILS="long", PRIORITY=1, OWNER_VISIBLE=True)
    sandbox.clock.tick(61)
    changed = sandbox.put(
        "/Tasks", TASK_ID=task["TASK_ID"], DETAILS=None, OWNER_VISIBLE=None, STATUS="WAITING"
    )
    assert changed == task | {
        "DETAILS": None,
        "OWNER_VISIBLE": False,
        "STATUS": "WAITING",
        "DATE_UPDATED_UTC": "2025-11-24 10:27:41",
    }
    assert sandbox.get(f"/Tasks/{task['TASK_ID']}") == changed


def test_the_update_time_may_go_back_with_the_clock(sandbox):
    """The update time is the clock's, strictly: a clock that is set back shows."""
    task = sandbox.post("/Tasks", **TASK)
    sandbox.configure(clock_offset=-3600)
    assert sandbox.put("/Tasks", TASK_ID=task["TASK_ID"])["DATE_UPDATED_UTC"] == "2025-11-24 09:26:40"


def test_the_help_pages_task_keeps_its_own_fields(sandbox):
    """The task of Insightly's help page has its own fields and order, also when it is changed."""
    task = sandbox.get("/Tasks/99922875")
    changed = sandbox.put("/Tasks", TASK_ID=99922875, PRIORITY=3)
    assert list(changed) == list(task)
    assert (changed["PRIORITY"], changed["TASKLINKS"], changed["PUBLICLY_VISIBLE"]) == (3, [], True)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/Contacts", {"FIRST_NAME": 5}, "FIRST_NAME"),
        ("/Contacts", {"FIRST_NAME": "secret" * 50}, "FIRST_NAME"),
        ("/Contacts", {"FIRST_NAME": "x", "ORGANISATION_ID": "secret"}, "ORGANISATION_ID"),
        ("/Contacts", {"FIRST_NAME": "x", "ORGANISATION_ID": True}, "ORGANISATION_ID"),
        ("/Contacts", {"FIRST_NAME": "x", "ORGANISATION_ID": 1.0}, "ORGANISATION_ID"),
        ("/Contacts", {"FIRST_NAME": "x", "ORGANISATION_ID": 2**63}, "ORGANISATION_ID"),
        ("/Contacts", {"FIRST_NAME": "x", "OWNER_USER_ID": 2**31}, "OWNER_USER_ID"),
        ("/Contacts", {"FIRST_NAME": "x", "EMAIL_OPTED_OUT": "true"}, "EMAIL_OPTED_OUT"),
        ("/Contacts", {"FIRST_NAME": "x", "DATE_OF_BIRTH": "secret"}, "DATE_OF_BIRTH"),
        ("/Contacts", {"FIRST_NAME": "x", "DATE_OF_BIRTH": 5}, "DATE_OF_BIRTH"),
        ("/Contacts", {"FIRST_NAME": "x", "TAGS": "secret"}, "TAGS"),
        ("/Contacts", {"FIRST_NAME": "x", "TAGS": ["secret"]}, "TAGS"),
        ("/Contacts", {"FIRST_NAME": "x", "TAGS": [{}]}, "TAGS.TAG_NAME"),
        ("/Contacts", {"FIRST_NAME": "x", "LINKS": [{"LINK_OBJECT_NAME": "Lead"}]}, "LINKS.LINK_OBJECT_ID"),
        ("/Contacts", {"FIRST_NAME": "x", "CUSTOMFIELDS": {}}, "CUSTOMFIELDS"),
        ("/Contacts", {"FIRST_NAME": "x", "CUSTOMFIELDS": [{"FIELD_VALUE": "secret"}]}, "CUSTOMFIELDS"),
        ("/Opportunities", {"OPPORTUNITY_NAME": "x", "BID_AMOUNT": "secret"}, "BID_AMOUNT"),
        ("/Opportunities", {"OPPORTUNITY_NAME": "x", "BID_AMOUNT": 1e300}, "BID_AMOUNT"),
        ("/Contacts", {}, "FIRST_NAME"),
        ("/Contacts", {"FIRST_NAME": ""}, "FIRST_NAME"),
        ("/Contacts", {"FIRST_NAME": None}, "FIRST_NAME"),
        ("/Tasks", {"COMPLETED": False}, "TITLE"),
        ("/Tasks", {"TITLE": "secret"}, "COMPLETED"),
        ("/Events", {"START_DATE_UTC": "2025-12-01 09:00:00"}, "END_DATE_UTC"),
        ("/Ticket", {"SUBJECT": "secret", "TICKET_STATUS": "OPEN"}, "CONTACT_ID"),
        ("/Projects", {"PROJECT_NAME": "x", "STATUS": "secret" * 4}, "STATUS"),
    ],
)
def test_a_bad_field_is_named_and_not_shown(still, path, body, field):
    """Wrong kinds, texts over their length and missing required fields: 400 naming the field only."""
    response = still.api("POST", path, body)
    assert response.status_code == 400
    assert list(response.json()) == ["Message"]
    assert field in response.json()["Message"]
    assert "secret" not in response.json()["Message"]


def test_a_required_field_cannot_be_emptied(sandbox):
    """PUT of null or "" to a required field is refused, and nothing is changed."""
    contact = sandbox.post("/Contacts", FIRST_NAME="Zoë")
    for empty in (None, ""):
        body = {"CONTACT_ID": contact["CONTACT_ID"], "FIRST_NAME": empty, "TITLE": "Owner"}
        assert sandbox.api("PUT", "/Contacts", body).status_code == 400
    assert sandbox.get(f"/Contacts/{contact['CONTACT_ID']}") == contact


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"[]", b'"x"', b'{"A": NaN}', b"[" * 100_000, b'{"FIRST_NAME": "\\ud800"}'],
)
def test_a_body_that_is_no_json_object_is_refused(still, content):
    """What is not a JSON object in UTF-8 is answered 400."""
    response = still.ask("POST", "/v3.1/Contacts", content=content)
    assert response.status_code == 400
    assert response.json()["Message"].startswith("The body is not")


@pytest.mark.parametrize(("task_id", "status"), [(1, 404), (None, 400), ("1", 400), (True, 400)])
def test_put_needs_an_id_that_exists(still, task_id, status):
    """PUT of an unknown id is 404; without an id that is a number, 400."""
    response = still.api("PUT", "/Tasks", {"TASK_ID": task_id, "TITLE": "x"})
    assert response.status_code == status


def test_delete(sandbox):
    """DELETE answers 202 with no body; the record is gone, and its id is not given again."""
    task = sandbox.post("/Tasks", **TASK)
    path = f"/Tasks/{task['TASK_ID']}"
    response = sandbox.api("DELETE", path)
    assert (response.status_code, response.content) == (202, b"")
    assert sandbox.api("GET", path).status_code == 404
    assert sandbox.api("DELETE", path).status_code == 404
    assert sandbox.post("/Tasks", **TASK)["TASK_ID"] == task["TASK_ID"] + 1


@pytest.mark.parametrize("name", [*RECORD_TYPES, "Invoice__c"])
def test_methods_that_the_api_lacks_are_refused(still, name):
    """A method that the API does not offer for a record type is answered 405, and changes nothing."""
    record_type = RECORD_TYPES[name]
    record = still.get(f"/{name}", top=1)[0]
    record_id = record[record_type.id_field]
    for method, path in (("POST", f"/{name}"), ("PUT", f"/{name}"), ("DELETE", f"/{name}/{record_id}")):
        if method not in record_type.methods:
            assert still.api(method, path, record).status_code == 405
    for method, path in (
        ("DELETE", f"/{name}"),
        ("POST", f"/{name}/{record_id}"),
        ("PUT", f"/{name}/{record_id}"),
        ("POST", f"/{name}/Search"),
        ("PATCH", f"/{name}"),
        ("HEAD", f"/{name}"),
        ("OPTIONS", f"/{name}/Search"),
    ):
        assert still.api(method, path).status_code == 405, (method, path)
    assert still.get(f"/{name}/{record_id}") == record


def test_derived_fields(sandbox):
    """An opportunity's value follows from its bid; a task's completion time from its completion."""
    deal = sandbox.post("/Opportunities", OPPORTUNITY_NAME="x", BID_AMOUNT=2500, BID_DURATION=12)
    assert deal["OPPORTUNITY_VALUE"] == 30000
    cleared = sandbox.put("/Opportunities", OPPORTUNITY_ID=deal["OPPORTUNITY_ID"], BID_AMOUNT=None)
    assert cleared["OPPORTUNITY_VALUE"] is None
    task = sandbox.post("/Tasks", TITLE="x", COMPLETED=True)
    assert task["COMPLETED_DATE_UTC"] == "2025-11-24 10:26:40"
    sandbox.clock.tick(60)
    assert sandbox.put("/Tasks", TASK_ID=task["TASK_ID"], TITLE="y")["COMPLETED_DATE_UTC"].endswith(
        "10:26:40"
    )
    assert sandbox.put("/Tasks", TASK_ID=task["TASK_ID"], COMPLETED=False)["COMPLETED_DATE_UTC"] is None
    assert sandbox.post("/Ticket", SUBJECT="x", TICKET_STATUS="OPEN", CONTACT_ID=1)["TICKET_NUMBER"].isdigit()


def test_tags(sandbox):
    """POST adds a tag, PUT leaves it alone in its place, DELETE takes it away; each is an update."""
    lead = sandbox.post("/Leads", LAST_NAME="x", LEAD_SOURCE_ID=1, LEAD_STATUS_ID=1)
    path = f"/Leads/{lead['LEAD_ID']}/Tags"

    def tags():
        response = sandbox.api("GET", path)
        assert response.status_code == 201  # as the API's description has it
        return [tag["TAG_NAME"] for tag in response.json()]

    sandbox.clock.tick(5)
    for name in ("VIP", "Partner", "VIP"):
        assert sandbox.api("POST", path, {"TAG_NAME": name}).json() == {"TAG_NAME": name}
    assert tags() == ["Partner", "VIP"]
    assert sandbox.get(f"/Leads/{lead['LEAD_ID']}")["DATE_UPDATED_UTC"] == "2025-11-24 10:26:45"
    assert sandbox.api("DELETE", path, {"TAG_NAME": "VIP"}).status_code == 202
    assert sandbox.api("DELETE", path, {"TAG_NAME": "VIP"}).status_code == 404
    assert tags() == ["Partner"]
    assert sandbox.api("PUT", path, {"TAG_NAME": "New"}).json() == [{"TAG_NAME": "New"}]
    assert tags() == ["New"]
    assert sandbox.api("POST", path, {"TAG_NAME": "x" * 256}).status_code == 400
    assert sandbox.api("POST", path, {}).status_code == 400
    assert sandbox.api("GET", "/Tasks/99922875/Tags").status_code == 404


def test_links_say_where_they_belong(sandbox):
    """A link gets an id and the names of both ends, singular; it keeps its id when it is sent again."""
    contact = sandbox.post(
        "/Contacts", FIRST_NAME="x", LINKS=[{"LINK_OBJECT_NAME": "Lead", "LINK_OBJECT_ID": 80000001}]
    )
    (link,) = contact["LINKS"]
    assert (link["OBJECT_NAME"], link["OBJECT_ID"]) == ("Contact", contact["CONTACT_ID"])
    again = sandbox.put("/Contacts", CONTACT_ID=contact["CONTACT_ID"], LINKS=[link, {**link, "LINK_ID": 1}])
    assert again["LINKS"][0] == link
    assert again["LINKS"][1]["LINK_ID"] not in (1, link["LINK_ID"])
