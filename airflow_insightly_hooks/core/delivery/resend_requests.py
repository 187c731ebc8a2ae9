"""Requests to send messages of a deliver task again, as they stand in the task's state.

Whoever asks for it writes a request beside the ledger and clears the task (``database.resend``); each try
reads the requests, and its ledger notes which ones it has begun. So a request is carried out once, whatever
retries, kills and further requests there are. The task only reads here, and the requests' author only writes.

Under ``resend`` stands the list of requests; the messages of each stand under ``resend/<id>/0`` and so on. A
task that delivers to several receivers has a ledger for each; its requests are for all of them.
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
"""Requests that are kept of a task; those that were begun make room for new ones."""
BLOCK_SIZE = 350
"""Messages under one key: at 160 characters each at most they stay below 60 kB."""


class ResendRequest(NamedTuple):
    """Messages that are to be sent again, acknowledged or not, with new attempts.

    :param id: unlike any other's of the task; letters and digits.
    :param by: who asks for it.
    :param at: when, ISO 8601, UTC.
    :param clears: whether the task was cleared for it: then nothing else is sent in this round, by none of
        its ledgers.
    :param messages: the prefix of a ledger's keys -> message ids -> the change that each tells of, as
        ``delivery_record.about_of`` writes it.
    """

    id: str
    by: str
    at: str
    clears: bool
    messages: Mapping[str, Mapping[str, str]]

    def of_ledger(self, prefix: str) -> LedgerRequest:
        """Return what it asks of one of the task's ledgers."""
        return LedgerRequest(self.id, self.clears, self.messages.get(prefix, {}))


class LedgerRequest(NamedTuple):
    """What a request asks of one ledger: maybe nothing but to send nothing else."""

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
                raise InvalidState(f"{key}/{block}", "it is missing: it can't be told what to send again")
            messages.setdefault(str(part.get("ledger", "")), {}).update(part["messages"])
        told = str(item.get("by")), str(item.get("at")), item["clears"] is True
        found.append(ResendRequest(item["id"], *told, messages))
    return found


def add_request(store: StateStore, request: ResendRequest, begun: Collection[str]) -> bool:
    """Add a request; return whether there was room for it.

    Two of these must not run at once.

    :param begun: the ids of the requests that the task has begun: the oldest of these make room.
    :raises InvalidState: if the requests that are there can't be read.
    """
    items = _items(read_head(store, REQUESTS, (VERSION,)))
    removed = []
    if len(items) >= MOST_REQUESTS:
        removed = [item for item in items if item["id"] in begun][: len(items) + 1 - MOST_REQUESTS]
        if not removed:
            return False
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
    for item in removed:
        for number in range(count_in(REQUESTS, item, "blocks")):
            store.delete(f"{REQUESTS}/{item['id']}/{number}")
    return True


def _items(head: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    items = [] if head is None else head.get("requests")
    if not isinstance(items, list) or not all(
        isinstance(item, dict) and isinstance(item.get("id"), str) and "clears" in item for item in items
    ):
        raise InvalidState(REQUESTS, "its requests are missing")
    return items
