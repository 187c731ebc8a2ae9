"""The API's lists beside the records."""

from __future__ import annotations

import pytest

PATHS = {
    "ActivitySets": "ACTIVITYSET_ID",
    "Countries": None,
    "Currencies": None,
    "LeadSources": None,
    "LeadStatuses": None,
    "OpportunityCategories": "CATEGORY_ID",
    "OpportunityStateReasons": None,
    "Pipelines": "PIPELINE_ID",
    "PipelineStages": "STAGE_ID",
    "ProjectCategories": "CATEGORY_ID",
    "Relationships": None,
    "TaskCategories": "CATEGORY_ID",
    "TeamMembers": "PERMISSION_ID",
    "Teams": "TEAM_ID",
}
REFERENCES = [
    ("Leads", "LEAD_SOURCE_ID", "LeadSources", "LEAD_SOURCE_ID"),
    ("Leads", "LEAD_STATUS_ID", "LeadStatuses", "LEAD_STATUS_ID"),
    ("Opportunities", "CATEGORY_ID", "OpportunityCategories", "CATEGORY_ID"),
    ("Opportunities", "PIPELINE_ID", "Pipelines", "PIPELINE_ID"),
    ("Opportunities", "STAGE_ID", "PipelineStages", "STAGE_ID"),
    ("Projects", "CATEGORY_ID", "ProjectCategories", "CATEGORY_ID"),
    ("Projects", "PIPELINE_ID", "Pipelines", "PIPELINE_ID"),
    ("Projects", "STAGE_ID", "PipelineStages", "STAGE_ID"),
    ("Tasks", "CATEGORY_ID", "TaskCategories", "CATEGORY_ID"),
    ("PipelineStages", "PIPELINE_ID", "Pipelines", "PIPELINE_ID"),
    ("PipelineStages", "ACTIVITYSET_ID", "ActivitySets", "ACTIVITYSET_ID"),
    ("TeamMembers", "TEAM_ID", "Teams", "TEAM_ID"),
    ("TeamMembers", "MEMBER_USER_ID", "Users", "USER_ID"),
    ("ActivitySets", "OWNER_USER_ID", "Users", "USER_ID"),
    ("Contacts", "ADDRESS_MAIL_COUNTRY", "Countries", "COUNTRY_NAME"),
    ("Opportunities", "BID_CURRENCY", "Currencies", "CURRENCY_CODE"),
]


@pytest.mark.parametrize(("name", "field", "of", "id_field"), REFERENCES)
def test_what_records_refer_to_is_there(still, name, field, of, id_field):
    """Every id and name in a seeded record that a list has is in that list."""
    referred = {record[field] for record in still.get(f"/{name}", top=500)} - {None}
    assert referred
    assert referred <= {item[id_field] for item in still.get(f"/{of}", top=500)}


@pytest.mark.parametrize(("name", "id_field"), PATHS.items())
def test_one_item(still, name, id_field):
    """Where the API offers it, an item can be asked for by its id; no other id is there."""
    items = still.get(f"/{name}")
    if id_field is None:
        assert still.api("GET", f"/{name}/1").status_code == 404
        return
    assert [still.get(f"/{name}/{item[id_field]}") for item in items] == items
    for other in ("1", "x", "-1"):
        assert still.api("GET", f"/{name}/{other}").status_code == 404


@pytest.mark.parametrize("name", PATHS)
def test_lists_come_in_pages(still, name):
    """By skip, top and count_total, as records do; countries and currencies come as a whole."""
    items = still.get(f"/{name}")
    response = still.api("GET", f"/{name}", params={"skip": 1, "top": 1, "count_total": "true"})
    if name in ("Countries", "Currencies"):
        assert response.json() == items
        return
    assert response.json() == items[1:2]
    assert response.headers["X-Total-Count"] == str(len(items))
    assert still.get(f"/{name}", skip=100) == []
    assert still.api("GET", f"/{name}", params={"top": "x"}).status_code == 400


@pytest.mark.parametrize("name", [*PATHS, "Tags"])
def test_lists_are_read_only_and_need_the_key(still, name):
    """A change is answered with 405, a wrong key with 401; further parameters are ignored."""
    assert still.api("POST", f"/{name}", {"NAME": "x"}).status_code == 405
    assert still.api("GET", f"/{name}", auth=("wrong", "")).status_code == 401
    params = {"updated_after_utc": "", "record_type": "contact"}
    assert still.api("GET", f"/{name}", params=params).status_code == 200


def test_converted_leads_are_left_out(still):
    """Unless they are asked for."""
    statuses = still.get("/LeadStatuses")
    everything = still.get("/LeadStatuses", include_converted="true")
    assert statuses == everything[:-1]
    assert everything[-1]["LEAD_STATUS"] == "Converted"
    assert still.api("GET", "/LeadStatuses", params={"include_converted": "x"}).status_code == 400


@pytest.mark.parametrize(("name", "field"), [("ActivitySets", "ACTIVITIES"), ("Teams", "TEAMMEMBERS")])
def test_brief(still, name, field):
    """Leaves out what holds a list."""
    assert all(item[field] for item in still.get(f"/{name}"))
    assert all(field not in item for item in still.get(f"/{name}", brief="true"))


def test_tags_are_those_of_the_records(sandbox):
    """Of the type that is asked for, whatever its case; a tag is there once it is on a record."""
    before = [tag["TAG_NAME"] for tag in sandbox.get("/Tags", record_type="Contacts")]
    assert "VIP" in before
    sandbox.post("/Contacts", FIRST_NAME="x", TAGS=[{"TAG_NAME": "Zebra"}])
    assert [tag["TAG_NAME"] for tag in sandbox.get("/Tags", record_type="contacts")] == [*before, "Zebra"]
    assert {"TAG_NAME": "Zebra"} not in sandbox.get("/Tags", record_type="Leads")


@pytest.mark.parametrize("name", [None, "", "Nothing", "Tasks"])
def test_tags_of_no_type_are_refused(still, name):
    """The type is required; tasks have no tags."""
    response = still.api("GET", "/Tags", params={} if name is None else {"record_type": name})
    assert response.status_code == 400
    assert "record_type" in response.json()["Message"]


def test_a_list_can_be_cut_short(sandbox):
    """The settings of paths hold for these, too."""
    sandbox.configure(shorten={"path": "/v3.1/LeadSources", "to": 1})
    assert len(sandbox.get("/LeadSources")) == 1
