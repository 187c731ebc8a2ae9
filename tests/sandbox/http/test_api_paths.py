"""The paths below ``/v3.1``: which are there, which are closed, and the account's own."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(("setting", "status"), [("no_access", 403), ("not_in_plan", 404)])
def test_record_types_can_be_closed(sandbox, setting, status):
    """no_access answers 403 and not_in_plan 404 on every path of a record type, and of no other."""
    sandbox.configure(**{setting: ["Milestones", "Invoice__c"]})
    paths = ("/Milestones", "/Milestones/Search", "/Milestones/1000001", "/Projects/9000001/Milestones")
    for path in (*paths, "/Invoice__c/Search"):
        answer = sandbox.api("GET", path)
        assert (answer.status_code, list(answer.json())) == (status, ["Message"]), path
    assert sandbox.api("GET", "/Projects/9000001").status_code == 200
    sandbox.configure(**{setting: []})
    assert sandbox.api("GET", "/Milestones").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/Tickets",
        "/Tickets/Search",
        "/Tickets/5",
        "/Products/Search",
        "/Quotations",
        "/Pricebooks/Search",
        "/Prospects",
        "/KnowledgeArticles/Search",
        "/OpportunityLineItems",
        "/QuotationLineItems/Search",
        "/Instances",
    ],
)
def test_plurals_of_singular_paths_are_405(still, path):
    """The API answers a plural that it does not have with 405, not 404."""
    assert still.api("GET", path).status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/Contact",
        "/Contact/Search",
        "/contacts",
        "/Contacts/",
        "/Contacts/x",
        "/Contacts/-5",
        "/a/b/c/d/e",
    ],
)
def test_unknown_paths_are_404(still, path):
    """An unknown path is 404 with a Message, and nothing is redirected."""
    answer = still.api("GET", path)
    assert (answer.status_code, list(answer.json())) == (404, ["Message"])


def test_an_endless_id_is_404(still):
    """A very long number is not an id."""
    assert still.api("GET", "/Contacts/" + "9" * 5000).status_code == 404


def test_account(still):
    """/Instance says whose account it is; /Users/Me whose key."""
    assert still.get("/Instance")["PLAN_NAME"] == "Enterprise"
    assert still.get("/Users/Me") == still.get("/Users/999308")
    assert still.get("/Users/Search", field_name="USER_ID", field_value="999308") == [still.get("/Users/Me")]
