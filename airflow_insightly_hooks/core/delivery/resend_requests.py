"""Requests to send a deliver task's messages again, which are stored in the task's state.

To make a request, ``database.resend`` writes it beside the ledger and clears the task. Each try reads the
requests, and its ledger notes which ones it has begun. So a request is carried out once, also if there are
retries, kills and further requests. The task only reads the requests, and ``database.resend`` only writes
them.

The list of requests is stored under ``resend``, and the messages of each request under ``resend/<id>/0`` and
so on. A task that delivers to several receivers has a ledger for each receiver. Its requests are for all of
them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.errors import InvalidState
from airflow_insightly_hooks.core.state.state_store import StateStore, count_in, read_head

__all__ = ["MOST_REQUESTS", "REQUESTS", "LedgerRequest", "ResendRequest", "add_request", "read_requests"]

REQUESTS = "resend"
VERSION = 1
MOST_REQUESTS = 50
"""How many requests of a task are kept. New requests replace requests that were begun."""
BLOCK_SIZE = 350
"""How many messages are stored under one key. With at most 160 characters each, they stay below 60 kB."""


class ResendRequest(NamedTuple):
    """A request to send messages again with new attempts, also acknowledged ones.

    :param id: the request's id, unique in the task: letters and digits.
    :param by: the user who made the request.
    :param at: when it was made (ISO 8601, UTC).
    :param clears: whether the task was cleared for the request. Then the task sends nothing else in this
        round, to any receiver.
    :param messages: by the prefix of a ledger's keys and by message id, the change that the message reports,
        as ``delivery_record.about_of`` writes it.
    """

    id: str
    by: str
    at: str
    clears: bool
    messages: Mapping[str, Mapping[str, str]]

    def of_ledger(self, prefix: str) -> LedgerRequest:
        """Return the part of the request that is for one of the task's ledgers."""
        return LedgerRequest(self.id, self.clears, self.messages.get(prefix, {}))


class LedgerRequest(NamedTuple):
    """The part of a request that is for one ledger. Without messages, it may still forbid to send others."""

    id: str
    clears: bool
    messages: Mapping[str, str]


def read_requests(store: StateStore) -> list[ResendRequest]:
    """Return the requests of a task, in the order in which they were made.

    :raises InvalidState: if they can't be read.
    """
    head = read_head(store, REQUESTS, (VERSION,))
    found = []
    for item in _items(head):
        key = f"{REQUESTS}/{item['id']}"
        messages: dict[str, dict[str, str]] = {}
        for block in range(count_in(REQUESTS, item, "blocks")):
            part = store.get(f"{key}/{block}")
            if not isinstance(part, Mapping) or not isinstance(part.get("messages"), Mapping):
                raise InvalidState(f"{key}/{block}", "it is missing, so it is not known what to send again")
            messages.setdefault(str(part.get("ledger", "")), {}).update(part["messages"])
        details = str(item.get("by")), str(item.get("at")), item["clears"] is True
        found.append(ResendRequest(item["id"], *details, messages))
    return found


def add_request(store: StateStore, request: ResendRequest, begun: Collection[str]) -> bool:
    """Add a request. Return ``False`` if there are too many already.

    It must not run twice at once.

    :param begun: the ids of the requests that the task has begun. The oldest of these are removed if there
        are too many requests.
    :raises InvalidState: if the stored requests can't be read.
    """
    items = _items(read_head(store, REQUESTS, (VERSION,)))
    removed = []
    if len(items) >= MOST_REQUESTS:
        removed = [item for item in items if item["id"] in begun][: len(items) + 1 - MOST_REQUESTS]
        if not removed:
            return False
    # These are listed before anything is stored, because a damaged list raises an error here.
    obsolete = [
        f"{REQUESTS}/{item['id']}/{number}"
        for item in removed
        for number in range(count_in(REQUESTS, item, "blocks"))
    ]
    blocks = [
        {"ledger": prefix, "messages": dict(listed[start : start + BLOCK_SIZE])}
        for prefix, messages in request.messages.items()
        for listed in [list(messages.items())]
        for start in range(0, len(listed), BLOCK_SIZE)
    ]
    for number, block in enumerate(blocks):
        store.set(f"{REQUESTS}/{request.id}/{number}", block)
    count = sum(map(len, request.messages.values()))
    item = {**request._asdict(), "messages": count, "blocks": len(blocks)}
    store.set(REQUESTS, {"version": VERSION, "requests": [i for i in items if i not in removed] + [item]})
    for key in obsolete:
        store.delete(key)
    return True


def _items(head: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    items = [] if head is None else head.get("requests")
    if not isinstance(items, list) or not all(
        isinstance(item, dict) and isinstance(item.get("id"), str) and "clears" in item for item in items
    ):
        raise InvalidState(REQUESTS, "its requests are missing")
    return items
