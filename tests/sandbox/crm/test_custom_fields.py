"""Custom fields and custom objects."""

from __future__ import annotations

import pytest


def _custom(sandbox, **values):
    entries = [{"FIELD_NAME": name, "FIELD_VALUE": value} for name, value in values.items()]
    return sandbox.api("POST", "/Contacts", {"FIRST_NAME": "x", "CUSTOMFIELDS": entries})


def test_custom_fields_are_answered_with_their_ids(sandbox):
    """Custom fields come in their own order, each with its id; empty ones are absent."""
    record = _custom(
        sandbox,
        Customer_since__c="2020-02-02T00:00:00Z",
        Region__c="Europe",
        Nickname__c="",
        Newsletter__c=None,
    ).json()
    assert record["CUSTOMFIELDS"] == [
        {"FIELD_NAME": "Region__c", "FIELD_VALUE": "Europe", "CUSTOM_FIELD_ID": "Region__c"},
        {
            "FIELD_NAME": "Customer_since__c",
            "FIELD_VALUE": "2020-02-02 00:00:00",
            "CUSTOM_FIELD_ID": "Customer_since__c",
        },
    ]


def test_put_changes_only_the_custom_fields_that_it_names(sandbox):
    """Custom fields that a PUT does not name stay; null takes one away; a null list takes all."""
    record = _custom(sandbox, Region__c="Europe", Nickname__c="Z").json()

    def put(custom_fields):
        changed = sandbox.put("/Contacts", CONTACT_ID=record["CONTACT_ID"], CUSTOMFIELDS=custom_fields)
        return {entry["FIELD_NAME"]: entry["FIELD_VALUE"] for entry in changed["CUSTOMFIELDS"]}

    assert put([{"FIELD_NAME": "Region__c", "FIELD_VALUE": "Asia"}]) == {
        "Region__c": "Asia",
        "Nickname__c": "Z",
    }
    assert put([{"FIELD_NAME": "Nickname__c", "FIELD_VALUE": None}]) == {"Region__c": "Asia"}
    assert put([]) == {"Region__c": "Asia"}
    assert put(None) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Region__c", "secret"),
        ("Region__c", 5),
        ("Interests__c", "Music;secret"),
        ("Newsletter__c", "true"),
        ("Customer_since__c", "secret"),
        ("Customer_since__c", "2020-02-31"),
        ("Nickname__c", "secret" * 50),
        ("Nickname__c", {"a": 1}),
    ],
)
def test_custom_values_of_the_wrong_kind_are_refused(still, name, value):
    """A custom field takes what its FIELD_TYPE allows; the answer names the field only."""
    response = _custom(still, **{name: value})
    assert response.status_code == 400
    assert response.json()["Message"].startswith(f"{name} is not ")
    assert "secret" not in response.json()["Message"]


def test_numbers_are_numbers(sandbox):
    """NUMERIC and PERCENT take numbers, not texts."""
    for value, status in ((12.5, 201), ("12.5", 400), (True, 400)):
        body = {
            "OPPORTUNITY_NAME": "x",
            "CUSTOMFIELDS": [{"FIELD_NAME": "Discount__c", "FIELD_VALUE": value}],
        }
        assert sandbox.api("POST", "/Opportunities", body).status_code == status


def test_autonumbers_are_given_by_the_api(sandbox):
    """An AUTONUMBER counts on by itself, and nobody can set it."""
    sent = [{"FIELD_NAME": "Number__c", "FIELD_VALUE": "1"}]
    numbers = [
        entry["FIELD_VALUE"]
        for _ in range(2)
        for entry in sandbox.post("/Invoice__c", RECORD_NAME="x", CUSTOMFIELDS=sent)["CUSTOMFIELDS"]
        if entry["FIELD_NAME"] == "Number__c"
    ]
    assert numbers == ["00016", "00017"]


def test_metadata(still):
    """/CustomFields/{objectName} lists a type's custom fields; its Search answers one of them."""
    fields = still.get("/CustomFields/Contacts")
    assert [field["FIELD_ORDER"] for field in fields] == list(range(1, len(fields) + 1))
    region = still.get("/CustomFields/Contacts/Search", fieldName="Region__c")
    assert region == fields[0]
    assert (region["FIELD_FOR"], region["FIELD_TYPE"], region["FIELD_LABEL"]) == (
        "CONTACT",
        "DROPDOWN",
        "Region",
    )
    assert [option["OPTION_VALUE"] for option in region["CUSTOM_FIELD_OPTIONS"]] == [
        "Americas",
        "Asia",
        "Europe",
    ]
    assert still.get("/CustomFields/Users") == []
    assert still.api("GET", "/CustomFields/Contacts/Search?fieldName=Nope__c").status_code == 404
    assert still.api("GET", "/CustomFields/Contacts/Search").status_code == 400
    assert still.api("GET", "/CustomFields/Nothing").status_code == 404


def test_every_kind_of_custom_field_is_there(still):
    """The account has custom fields of every kind that is known, on several types."""
    names = (
        "Contacts",
        "Leads",
        "Opportunities",
        "Organisations",
        "Projects",
        "Tasks",
        "Ticket",
        "Invoice__c",
    )
    kinds = {field["FIELD_TYPE"] for name in names for field in still.get(f"/CustomFields/{name}")}
    assert " ".join(sorted(kinds)) == (
        "AUTONUMBER BIT DATE DATETIME DROPDOWN MULTILINETEXT MULTISELECT NUMERIC PERCENT TEXT"
    )


def test_custom_objects(sandbox):
    """/CustomObjects lists the custom objects; their records have no tags or links."""
    objects = sandbox.get("/CustomObjects")
    assert [one["OBJECT_NAME"] for one in objects] == ["Invoice__c", "Site__c"]
    assert sandbox.get("/CustomObjects/Site__c") == objects[1]
    assert sandbox.api("GET", "/CustomObjects/Nope__c").status_code == 404
    assert sandbox.api("GET", "/Nope__c/Search").status_code == 404
    record = sandbox.post("/Site__c", RECORD_NAME="Depot")
    assert list(record) == [
        "RECORD_ID",
        "RECORD_NAME",
        "OWNER_USER_ID",
        "DATE_CREATED_UTC",
        "VISIBLE_TO",
        "VISIBLE_TEAM_ID",
        "CUSTOMFIELDS",
    ]
