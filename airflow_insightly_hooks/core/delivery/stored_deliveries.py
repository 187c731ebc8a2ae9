"""Reads a stored ledger without claiming it, for searches while the task runs or later."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.delivery.delivery_record import About, PostOutcome, TextTable, read_details
from airflow_insightly_hooks.core.delivery.ledger import ACKNOWLEDGED, FAILED, GONE, IN_DOUBT, read_entry
from airflow_insightly_hooks.core.delivery.ledger_store import (
    HEAD,
    block_keys,
    done_keys,
    key_of,
    text_keys,
    tokens_of,
)
from airflow_insightly_hooks.core.errors import InvalidState, InvalidTime

__all__ = [
    "DELIVERED",
    "DRY_RUN",
    "LEFT",
    "STATES",
    "UNSENT",
    "StoredLedger",
    "StoredMessage",
    "time_or_none",
]

DELIVERED = "delivered"
UNSENT = "unsent"
LEFT = "left"
DRY_RUN = "dry run"
STATES = (DELIVERED, FAILED, GONE, IN_DOUBT, UNSENT, LEFT, DRY_RUN)
"""The states of a message. ``left``: it waits in its workflow's retry DAG, where it has an entry of its own.
``dry run``: it was not to be sent."""

NOT_DELIVERED = (FAILED, GONE, IN_DOUBT)

Get = Callable[[str], Any]
"""Returns the value under a key of the state store, or ``None`` if there is no value."""


class StoredMessage(NamedTuple):
    """A message in the delivery record."""

    message_id: str
    about: About | None
    """The change; ``None`` if an earlier version of this package did not keep it."""
    state: str
    """One of ``STATES``."""
    attempts: int
    """How many POSTs there were in this round."""
    outcomes: tuple[PostOutcome, ...]
    """The outcomes of the last POSTs, the oldest first."""


class StoredLedger:
    """A stored ledger: its head, and its messages, which are read on demand.

    :param token: the token of the ledger's try.
    :param head: the ledger's head.
    :ivar about: facts about the task: ``conn_id``, ``receiver``, ``webhook``, ``left_to``.
    :ivar counts: how many messages are in each state of the ledger.
    """

    def __init__(self, token: str, head: Mapping[str, Any]) -> None:
        self.token, self.head = token, head
        about, counts = head.get("about"), head.get("counts")
        self.about: Mapping[str, Any] = about if isinstance(about, Mapping) else {}
        self.counts: Mapping[str, int] = counts if isinstance(counts, Mapping) else {}

    @classmethod
    def find(cls, get: Get) -> StoredLedger | None:
        """Return the ledger that counts, or ``None`` if the task has written no ledger yet.

        :raises InvalidState: if it can't be read.
        """
        found = get(HEAD)
        if found is None:
            return None
        if not isinstance(found, Mapping):
            raise InvalidState(HEAD, "it is not an object")
        for token in tokens_of(found, lambda token: get(key_of(token, "head")) is not None):
            head = get(key_of(token, "head"))
            if isinstance(head, Mapping):
                return cls(token, head)
        return None

    @property
    def delivered(self) -> int | None:
        """How many of its messages are delivered; ``None`` if an earlier version did not count them."""
        archived = self.head.get("archived", None if "archive" in self.head else 0)
        is_known = self._has_counts and isinstance(archived, int)
        return self.counts.get(ACKNOWLEDGED, 0) + archived if is_known else None

    @property
    def undelivered(self) -> int | None:
        """How many messages are neither delivered, nor left to a retry DAG, nor part of a dry run.

        ``None`` if an earlier version did not count them.
        """
        if not self._has_counts:
            return None
        if self.about.get("left_to") or self.about.get("dry_run"):
            return 0
        return sum(self.counts.get(state, 0) for state in NOT_DELIVERED)

    @property
    def acknowledged_at(self) -> object:
        """When a message was acknowledged last, as stored (see ``time_or_none``); ``None`` if never."""
        return self.head.get("acknowledged_at")

    @property
    def _has_counts(self) -> bool:
        counts = self.head.get("counts")
        return isinstance(counts, Mapping) and all(isinstance(count, int) for count in counts.values())

    @property
    def begun_requests(self) -> Collection[str]:
        """The ids of the requests to send again that the task has begun."""
        resends = self.head.get("resends")
        return resends.keys() if isinstance(resends, Mapping) else ()

    @property
    def may_be_undelivered(self) -> bool:
        """Whether some of its messages may be undelivered; ``True`` if it doesn't count them."""
        return not self.counts or any(self.counts.get(state) for state in NOT_DELIVERED)

    @property
    def has_delivered(self) -> bool:
        """Whether some of its messages are delivered."""
        return bool(self.counts.get(ACKNOWLEDGED) or self.head.get("done") or self.head.get("earlier"))

    @property
    def block_keys(self) -> list[str]:
        """The keys of the blocks with its messages, the earliest first."""
        return [*done_keys(self.token, self.head), *block_keys(self.token, self.head)]

    def messages(self, get: Get) -> Iterator[StoredMessage]:
        """Yield its messages, each once.

        If the task is running, its latest writes may be missing.

        :raises InvalidState: if an entry can't be read.
        """
        texts = TextTable.load(map(get, text_keys(self.token, get)))
        entries: dict[str, str] = {}
        for key in self.block_keys:
            block = get(key)
            if isinstance(block, Mapping):
                entries |= block
        waits = LEFT if self.about.get("left_to") else DRY_RUN if self.about.get("dry_run") else None
        for message, text in entries.items():
            entry, details = read_entry(message, text)
            about, outcomes = read_details(details, texts)
            if entry.state == ACKNOWLEDGED:
                state = DELIVERED
            elif waits is not None:
                state = waits
            else:
                state = UNSENT if entry.state == FAILED and entry.attempts == 0 else entry.state
            yield StoredMessage(message, about, state, entry.attempts, tuple(outcomes))


def time_or_none(text: object) -> datetime | None:
    """Return a stored time, in UTC; ``None`` if it is missing or can't be read."""
    try:
        return api_time(text)
    except InvalidTime:
        return None
