"""Requests to send messages again: how they are stored, how many are kept, and what can't be read."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_insightly_hooks.core.delivery.resend_requests import (
    BLOCK_SIZE,
    MOST_REQUESTS,
    LedgerRequest,
    ResendRequest,
    add_request,
    read_requests,
)
from airflow_insightly_hooks.core.errors import InvalidState
from tests.conftest import StateStore

AT = "2026-01-31T08:00:00Z"


def request(number: int, *, clears: bool = True, **messages: dict[str, str]) -> ResendRequest:
    return ResendRequest(f"r{number}", "ada", AT, clears, messages or {"": {f"m{number}": "about"}})


def test_how_a_request_is_stored() -> None:
    """A list of requests, and each one's messages by ledger: a form that later versions must read."""
    store = StateStore()
    first = request(1, billing={"a": "Contacts 1 added x", "b": ""}, crm={"c": ""})
    second = request(2, clears=False)
    assert add_request(store, first, ())
    assert add_request(store, second, ())
    of_both = {"by": "ada", "at": AT}
    assert store.get("resend") == {
        "version": 1,
        "requests": [
            {"id": "r1", **of_both, "clears": True, "messages": 3, "blocks": 2},
            {"id": "r2", **of_both, "clears": False, "messages": 1, "blocks": 1},
        ],
    }
    assert store.get("resend/r1/0") == {"ledger": "billing", "messages": first.messages["billing"]}
    assert store.get("resend/r1/1") == {"ledger": "crm", "messages": {"c": ""}}
    assert store.get("resend/r2/0") == {"ledger": "", "messages": {"m2": "about"}}
    assert read_requests(store) == [first, second]
    assert first.of_ledger("crm") == LedgerRequest("r1", True, {"c": ""})
    assert second.of_ledger("crm") == LedgerRequest("r2", False, {})


def test_a_task_without_requests() -> None:
    """Nothing is stored: there are none."""
    assert read_requests(StateStore()) == []


def test_many_messages_are_cut_into_blocks() -> None:
    """No key holds more than a store takes, and none of them is lost."""
    store = StateStore()
    many = request(1, billing={f"m{number}": "" for number in range(2 * BLOCK_SIZE + 1)})
    add_request(store, many, ())
    sizes = [len(store.get(f"resend/r1/{block}")["messages"]) for block in range(3)]
    assert sizes == [BLOCK_SIZE, BLOCK_SIZE, 1]
    assert read_requests(store) == [many]


def test_new_requests_replace_those_that_were_begun() -> None:
    """The oldest of them goes, with its messages; as long as none is begun, a new one is refused."""
    store = StateStore()
    for number in range(MOST_REQUESTS):
        assert add_request(store, request(number), ())
    before = dict(store.values)
    assert not add_request(store, request(50), ["another"])
    assert store.values == before
    assert add_request(store, request(50), ["r4", "r3", "r2"])
    assert [one.id for one in read_requests(store)] == [f"r{n}" for n in range(51) if n != 2]
    assert "resend/r2/0" not in store.values
    assert "resend/r4/0" in store.values


ITEM = {"id": "r", "by": "ada", "at": AT, "clears": True, "blocks": 1}
LISTED = {"version": 1, "requests": [ITEM]}
MISSING = "it is missing, so it is not known what to send again"


def of(item: Any) -> dict[str, Any]:
    return {"resend": {"version": 1, "requests": [ITEM, item]}, "resend/r/0": {"messages": {}}}


@pytest.mark.parametrize(
    ("values", "key", "reason"),
    [
        ({"resend": {"version": 1}}, "resend", "its requests are missing"),
        ({"resend": {"version": 1, "requests": {}}}, "resend", "its requests are missing"),
        (of("r2"), "resend", "its requests are missing"),
        (of({**ITEM, "id": 2}), "resend", "its requests are missing"),
        (of({"id": "r2", "blocks": 1}), "resend", "its requests are missing"),
        (of({**ITEM, "blocks": "1"}), "resend", "its blocks is missing"),
        ({"resend": LISTED}, "resend/r/0", MISSING),
        ({"resend": LISTED, "resend/r/0": []}, "resend/r/0", MISSING),
        ({"resend": LISTED, "resend/r/0": {"messages": ["m"]}}, "resend/r/0", MISSING),
    ],
)
def test_requests_that_cannot_be_read(values: dict[str, Any], key: str, reason: str) -> None:
    """InvalidState names the key: what was asked for is not guessed."""
    store = StateStore()
    for name, value in values.items():
        store.set(name, value)
    with pytest.raises(InvalidState) as caught:
        read_requests(store)
    assert (caught.value.key, caught.value.reason) == (key, reason)


@pytest.mark.parametrize("found", ["x", {"version": 2, "requests": []}])
def test_a_request_is_not_added_to_what_cannot_be_read(found: Any) -> None:
    """A later version's requests, or something else, stay as they are."""
    store = StateStore()
    store.set("resend", found)
    before = dict(store.values)
    with pytest.raises(InvalidState, match="resend"):
        add_request(store, request(1), ())
    assert store.values == before


def test_a_request_is_not_added_if_an_old_one_cannot_be_removed() -> None:
    """The error comes before anything is stored, so that a request is either added or refused."""
    store = StateStore()
    for number in range(MOST_REQUESTS):
        add_request(store, request(number), ())
    head = store.get("resend")
    del head["requests"][0]["blocks"]
    store.set("resend", head)
    before = dict(store.values)
    with pytest.raises(InvalidState) as caught:
        add_request(store, request(50), ["r0"])
    assert (caught.value.key, caught.value.reason) == ("resend", "its blocks is missing")
    assert store.values == before


def test_what_was_not_said() -> None:
    """Who asked and when may be missing; nothing but ``true`` means that the task was cleared."""
    store = StateStore()
    store.set("resend", {"version": 1, "requests": [{"id": "r", "clears": 1, "blocks": 1}]})
    store.set("resend/r/0", {"messages": {"m": ""}})
    assert read_requests(store) == [ResendRequest("r", "None", "None", False, {"": {"m": ""}})]
