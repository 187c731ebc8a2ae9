"""Records under other records' paths."""

from __future__ import annotations

import pytest

from airflow_insightly_hooks.core.records import RECORD_TYPES

BODIES = {
    "CommunityComments": {"BODY": "x"},
    "CommunityPosts": {"POST_NAME": "x"},
    "Milestones": {"COMPLETED": False, "DUE_DATE": "2026-01-01T00:00:00Z"},
    "Notes": {"TITLE": "x"},
    "OpportunityLineItem": {"PRICEBOOK_ENTRY_ID": 1000001, "UNIT_PRICE": 2.5, "QUANTITY": 4, "DISCOUNT": 10},
    "PricebookEntry": {"PRICEBOOK_ID": 1000001, "PRODUCT_ID": 1000001, "PRICE": 9.5},
    "QuotationLineItem": {"PRICEBOOK_ENTRY_ID": 1000001, "UNIT_PRICE": 2.5, "QUANTITY": 4},
}
RELATIONS = [(parent, name) for name in BODIES for parent in RECORD_TYPES[name].parents]


def _one(sandbox, parent, name):
    """Return the path of the children of a parent, and a new child."""
    parent_id = sandbox.get(f"/{parent}", top=1)[0][RECORD_TYPES[parent].id_field]
    path = f"/{parent}/{parent_id}/{name}"
    answer = sandbox.post(path, **BODIES[name])
    return path, parent_id, answer if name == "Notes" else answer[0]


def test_every_child_type_is_tried():
    assert {name for name, record_type in RECORD_TYPES.items() if record_type.parents} == set(BODIES)


@pytest.mark.parametrize(("parent", "name"), RELATIONS)
def test_a_child_belongs_to_its_parent(sandbox, parent, name):
    """A child made under a parent holds the parent's id or a link to it, and is a record like any other."""
    path, parent_id, child = _one(sandbox, parent, name)
    record_type = RECORD_TYPES[name]
    if name == "Notes":
        assert [link["LINK_OBJECT_ID"] for link in child["LINKS"]] == [parent_id]
        assert child["LINKS"][0]["LINK_OBJECT_NAME"] == RECORD_TYPES[parent].title
    else:
        assert child[RECORD_TYPES[parent].id_field] == parent_id
    required = [field.name for field in record_type.fields.values() if field.required]
    assert [field for field in required if child[field] is None] == []
    assert sandbox.get(f"/{name}/{child[record_type.id_field]}") == child
    listed = sandbox.api("GET", path)
    assert listed.status_code == (200 if name == "Notes" else 201)  # as the API's description has it
    assert child in listed.json()


@pytest.mark.parametrize(("parent", "name"), RELATIONS)
def test_a_child_is_changed_under_its_parent_only(sandbox, parent, name):
    """PUT under the parent changes the child; under another parent there is no such child."""
    path, parent_id, child = _one(sandbox, parent, name)
    id_field = RECORD_TYPES[name].id_field
    field, value = {
        "CommunityComments": ("BODY", "y"),
        "CommunityPosts": ("POST_NAME", "y"),
        "Milestones": ("TITLE", "y"),
        "Notes": ("BODY", "y"),
        "PricebookEntry": ("PRICE", 3.5),
    }.get(name, ("DESCRIPTION", "y"))
    sandbox.clock.tick(5)
    response = sandbox.api("PUT", path, {id_field: child[id_field], field: value})
    changed = response.json() if name == "Notes" else response.json()[0]
    assert response.status_code == (201 if name == "Notes" else 200)
    assert changed == child | {field: value, "DATE_UPDATED_UTC": "2025-11-24 10:26:45"}
    other = path.replace(str(parent_id), str(parent_id + 1))
    assert sandbox.api("PUT", other, {id_field: child[id_field], field: value}).status_code == 404


@pytest.mark.parametrize(("parent", "name"), [relation for relation in RELATIONS if relation[1] != "Notes"])
def test_a_child_is_deleted_under_its_parent_only(sandbox, parent, name):
    """DELETE under the parent answers 202; under another parent 404."""
    path, parent_id, child = _one(sandbox, parent, name)
    child_id = child[RECORD_TYPES[name].id_field]
    other = path.replace(str(parent_id), str(parent_id + 1))
    assert sandbox.api("DELETE", f"{other}/{child_id}").status_code == 404
    assert sandbox.api("DELETE", f"{path}/{child_id}").status_code == 202
    assert sandbox.api("DELETE", f"{path}/{child_id}").status_code == 404


def test_line_items_add_up(sandbox):
    """The totals of a line follow from its price, quantity and discount."""
    _, _, line = _one(sandbox, "Opportunities", "OpportunityLineItem")
    assert (line["SUBTOTAL"], line["TOTAL_PRICE"], line["LIST_PRICE"]) == (10.0, 9.0, 2.5)


def test_a_line_needs_what_it_is_about(sandbox):
    """A line without its price book entry is refused, since it could never be set later."""
    response = sandbox.api(
        "POST", "/Opportunities/40000001/OpportunityLineItem", {"UNIT_PRICE": 1, "QUANTITY": 1}
    )
    assert (response.status_code, response.json()) == (400, {"Message": "PRICEBOOK_ENTRY_ID is required."})


def test_notes_under_a_parent_are_searched_like_records(sandbox):
    """The notes of a contact can be paged and asked for by update time."""
    path, _, note = _one(sandbox, "Contacts", "Notes")
    assert sandbox.get(path, updated_after_utc="2025-11-24 10:26:39") == [note]
    assert "LINKS" not in sandbox.get(path, top=1, brief="true")[0]
    assert sandbox.api("DELETE", f"{path}/{note['NOTE_ID']}").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/Contacts/300000001/Milestones", 404),
        ("POST", "/Projects/1/Milestones", 404),
        ("POST", "/Projects/9000001/Nothing", 404),
        ("DELETE", "/Projects/9000001/Milestones", 405),
        ("GET", "/Projects/9000001/Milestones/1000001", 405),
        ("POST", "/Milestones", 405),
        ("POST", "/Notes", 405),
    ],
)
def test_invalid_paths(still, method, path, status):
    """Parents and children that don't go together are 404, methods that aren't there 405."""
    assert still.api(method, path, {} if method == "POST" else None).status_code == status
