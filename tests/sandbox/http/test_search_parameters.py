"""Searching: parameters, pages, order."""

from __future__ import annotations

import pytest

MANY = [{"FIRST_NAME": "Ada", "LAST_NAME": str(number)} for number in range(600)]


def test_a_page_has_100_records_unless_asked_otherwise(sandbox):
    """Without top, a page has 100 records; top counts as 500 at most."""
    sandbox.create("Contacts", MANY)
    assert len(sandbox.get("/Contacts/Search")) == 100
    assert len(sandbox.get("/Contacts/Search", top=7)) == 7
    assert len(sandbox.get("/Contacts/Search", top=0)) == 0
    assert len(sandbox.get("/Contacts/Search", top=5000)) == 500
    assert len(sandbox.get("/Contacts", top=5000)) == 500


def test_pages_adjoin_and_the_last_is_short(sandbox):
    """skip and top walk over all records once, in the order of their ids."""
    sandbox.create("Contacts", MANY)
    pages = [sandbox.get("/Contacts/Search", top=250, skip=skip) for skip in (0, 250, 500, 750)]
    ids = [record["CONTACT_ID"] for page in pages for record in page]
    assert [len(page) for page in pages] == [250, 250, 160, 0]
    assert ids == sorted(set(ids))


def test_order_is_that_of_ids_whatever_the_update_times(sandbox):
    """A record with a low id that is updated last still comes first, also if it came in late."""
    first = sandbox.get("/Contacts", top=1)[0]["CONTACT_ID"]
    sandbox.create("Contacts", {"CONTACT_ID": 17, "FIRST_NAME": "Late"})
    sandbox.put("/Contacts", CONTACT_ID=first, TITLE="Owner")
    assert [record["CONTACT_ID"] for record in sandbox.get("/Contacts/Search", top=2)] == [17, first]


@pytest.mark.parametrize("parameter", ["skip", "top"])
@pytest.mark.parametrize("value", ["-1", "x", "", "1.5", "٣", "9" * 5000])
def test_invalid_counts_are_refused(still, parameter, value):
    """skip and top are whole numbers from 0; the answer names the parameter."""
    response = still.api("GET", "/Contacts/Search", params={parameter: value})
    assert (response.status_code, parameter in response.json()["Message"]) == (400, True)


@pytest.mark.parametrize("bound", ["2024-04-09T16:58:14Z", "2024-04-09 16:58:14", "2024-04-09T16:58:14.000Z"])
def test_updated_after_is_exclusive(sandbox, bound):
    """A record updated at the very bound is not found; one second later it is."""
    for second in (13, 14, 15):
        sandbox.create("Contacts", {"FIRST_NAME": "Ada", "DATE_UPDATED_UTC": f"2024-04-09 16:58:{second}"})
    found = sandbox.get(
        "/Contacts/Search", updated_after_utc=bound, field_name="FIRST_NAME", field_value="Ada"
    )
    assert [record["DATE_UPDATED_UTC"] for record in found] == ["2024-04-09 16:58:15"]


def test_updated_after_is_cut_to_a_whole_second(still):
    """As the records' times are: what was updated in that very second is not found."""
    found = still.get("/Tasks/Search", updated_after_utc="2017-03-10T03:34:09.787Z")
    assert 99922875 in [record["TASK_ID"] for record in found]
    found = still.get("/Tasks/Search", updated_after_utc="2017-03-10 03:34:10.787")
    assert 99922875 not in [record["TASK_ID"] for record in found]


@pytest.mark.parametrize("bound", ["yesterday", "2024-13-01T00:00:00Z", "", "2024-02-30", "1712681894"])
def test_an_invalid_updated_after_is_refused(still, bound):
    """A text that is not a time is answered with 400, and the answer does not repeat it."""
    response = still.api("GET", "/Contacts/Search", params={"updated_after_utc": bound})
    assert response.status_code == 400
    assert response.json()["Message"].startswith("updated_after_utc is not a time such as")


@pytest.mark.parametrize("record_type", ["Emails", "DocumentTemplates"])
def test_creation_counts_where_there_is_no_update_time(sandbox, record_type):
    """Types that don't tell when a record was updated are searched by creation time."""
    id_field = {"Emails": "EMAIL_ID", "DocumentTemplates": "TEMPLATE_ID"}[record_type]
    new = sandbox.create(record_type, {})
    found = sandbox.get(f"/{record_type}/Search", updated_after_utc="2025-11-24T10:26:39Z")
    assert [record[id_field] for record in found] == [new[id_field]]
    assert "DATE_UPDATED_UTC" not in new


def test_custom_objects_are_searched_by_their_update_time(sandbox):
    """The update time of a custom object's record stands among its custom fields, and is searched by."""
    first = sandbox.get("/Invoice__c", top=1)[0]["RECORD_ID"]
    changed = sandbox.put("/Invoice__c", RECORD_ID=first, RECORD_NAME="Changed")
    assert changed["CUSTOMFIELDS"][-1] == {
        "FIELD_NAME": "DATE_UPDATED_UTC",
        "FIELD_VALUE": "2025-11-24 10:26:40",
        "CUSTOM_FIELD_ID": "DATE_UPDATED_UTC",
    }
    assert "DATE_UPDATED_UTC" not in changed
    assert sandbox.get("/Invoice__c/Search", updated_after_utc="2025-11-24 10:26:39") == [changed]


@pytest.mark.parametrize(
    ("record_type", "name", "value"),
    [
        ("Contacts", "FIRST_NAME", "Zoë"),
        ("Contacts", "Region__c", "Europe"),
        ("Contacts", "Newsletter__c", "true"),
        ("Contacts", "Interests__c", "Music;Travel"),
        ("Contacts", "ORGANISATION_ID", "424242"),
        ("Contacts", "EMAIL_OPTED_OUT", "True"),
        ("Contacts", "DATE_OF_BIRTH", "1999-04-05T00:00:00Z"),
        ("Contacts", "Customer_since__c", "2020-02-02 00:00:00"),
    ],
)
def test_a_field_is_matched_exactly(sandbox, record_type, name, value):
    """field_name and field_value find the records that hold exactly that, custom fields included."""
    for contact in sandbox.get("/Contacts"):
        sandbox.api("DELETE", f"/Contacts/{contact['CONTACT_ID']}")
    matching = sandbox.post(
        "/Contacts",
        FIRST_NAME="Zoë",
        ORGANISATION_ID=424242,
        EMAIL_OPTED_OUT=True,
        DATE_OF_BIRTH="1999-04-05",
        CUSTOMFIELDS=[
            {"FIELD_NAME": "Region__c", "FIELD_VALUE": "Europe"},
            {"FIELD_NAME": "Newsletter__c", "FIELD_VALUE": True},
            {"FIELD_NAME": "Interests__c", "FIELD_VALUE": "Music;Travel"},
            {"FIELD_NAME": "Customer_since__c", "FIELD_VALUE": "2020-02-02T00:00:00Z"},
        ],
    )
    sandbox.post("/Contacts", FIRST_NAME="Zoë2")
    assert sandbox.get(f"/{record_type}/Search", field_name=name, field_value=value) == [matching]
    assert sandbox.get(f"/{record_type}/Search", field_name=name, field_value=f"{value}x") == []


def test_an_empty_value_matches_blank_fields(sandbox):
    """field_value= finds the records whose field is blank."""
    sandbox.create("Site__c", {"RECORD_NAME": "", "VISIBLE_TO": "EVERYONE"})
    found = sandbox.get("/Site__c/Search", field_name="VISIBLE_TO", field_value="")
    assert len(found) == len(sandbox.get("/Site__c")) - 1


@pytest.mark.parametrize("parameters", [{"field_name": "FIRST_NAME"}, {"field_value": "Zoë"}])
def test_half_a_pair_is_refused(still, parameters):
    """field_name without field_value, and the other way round, is answered 400."""
    response = still.api("GET", "/Contacts/Search", params=parameters)
    assert (response.status_code, response.json()) == (
        400,
        {"Message": "field_name and field_value go together."},
    )


@pytest.mark.parametrize("name", ["NO_SUCH", "Budget__c", "TAGS", "CUSTOMFIELDS"])
def test_fields_that_cannot_be_searched_are_refused(still, name):
    """Unknown fields, another type's custom fields and lists are answered 400."""
    response = still.api("GET", "/Contacts/Search", params={"field_name": name, "field_value": "x"})
    assert response.status_code == 400
    assert response.json()["Message"] == "field_name is not a field of Contacts that can be searched."


def test_brief_leaves_out_lists(still):
    """brief=true leaves out custom fields, tags, links, dates and e-mail domains."""
    lists = {"CUSTOMFIELDS", "TAGS", "LINKS", "DATES", "EMAILDOMAINS"}
    for path in ("/Organisations/Search", "/Organisations"):
        whole, brief = (still.get(path, top=1, brief=text)[0] for text in ("false", "true"))
        assert whole.keys() >= lists
        assert set(brief) == set(whole) - lists
    assert still.api("GET", "/Organisations", params={"brief": "perhaps"}).status_code == 400


def test_count_total_tells_how_many_there_are(sandbox):
    """X-Total-Count counts what was found, not the page; it is there only when asked for."""
    found = {"updated_after_utc": "1999-01-01T00:00:00Z", "top": "2"}
    counted = sandbox.api("GET", "/Ticket/Search", params={**found, "count_total": "true"})
    assert (counted.headers["X-Total-Count"], len(counted.json())) == ("25", 2)
    assert "X-Total-Count" not in sandbox.api("GET", "/Ticket/Search", params=found).headers


def test_search_by_tag(sandbox):
    """SearchByTag finds the records that bear the tag; it needs one, and types without tags lack it."""
    sandbox.create("Leads", {"LAST_NAME": "Tagged", "TAGS": [{"TAG_NAME": "Zeppelin"}]})
    assert [lead["LAST_NAME"] for lead in sandbox.get("/Leads/SearchByTag", tagName="Zeppelin")] == ["Tagged"]
    assert sandbox.get("/Leads/SearchByTag", tagName="zeppel") == []
    assert sandbox.api("GET", "/Leads/SearchByTag").status_code == 400
    assert sandbox.api("GET", "/Tasks/SearchByTag?tagName=x").status_code == 404


def test_a_list_does_not_search(still):
    """GET /{Type} takes no search parameters: it lists all."""
    assert len(still.get("/Ticket", updated_after_utc="2100-01-01T00:00:00Z")) == 25
