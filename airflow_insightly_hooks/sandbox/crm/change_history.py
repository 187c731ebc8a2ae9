"""The creations, updates and deletions of the sandbox's records. The API itself doesn't show them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

__all__ = ["Change", "ChangeHistory"]

MAX_CHANGES = 250_000
"""How many changes are kept. Beyond that the oldest are dropped."""


class Change(NamedTuple):
    """One creation, update or deletion.

    :param number: 1, 2, 3 … in the order in which the changes were made.
    :param what: ``created``, ``updated`` or ``deleted``.
    :param record_type: Insightly's name of the type.
    :param record_id: the record's id.
    :param at: when it was made, by the sandbox's clock, with fractions of a second.
    :param shown_at: when searches and lists begin to show it. It equals ``at`` unless there is a visibility
        delay.
    :param updated: the record's update time after the change, as the API writes it.
    """

    number: int
    what: str
    record_type: str
    record_id: int
    at: datetime
    shown_at: datetime
    updated: str

    def as_json(self) -> dict[str, Any]:
        """Return the change as ``GET /_sandbox/history`` shows it."""
        return {
            **self._asdict(),
            "at": self.at.isoformat(timespec="microseconds"),
            "shown_at": self.shown_at.isoformat(timespec="microseconds"),
        }


class ChangeHistory:
    """The latest changes of all records.

    :param max_changes: how many are kept.
    :ivar last_number: the number of the latest change; 0 if there is none.
    """

    def __init__(self, max_changes: int = MAX_CHANGES) -> None:
        self._changes: deque[Change] = deque(maxlen=max_changes)
        self.last_number = 0

    def add(
        self, what: str, record_type: str, record_id: int, at: datetime, shown_at: datetime, updated: str
    ) -> None:
        """Add a change; the parameters are the attributes of :class:`Change`."""
        self.last_number += 1
        self._changes.append(Change(self.last_number, what, record_type, record_id, at, shown_at, updated))

    def since(self, number: int = 0) -> Iterator[Change]:
        """Yield the changes after the change with this number, oldest first."""
        first = self.last_number - len(self._changes)
        return islice(self._changes, max(0, number - first), None)
