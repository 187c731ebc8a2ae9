"""A model of a CRM's search: its order, its bound, its pages, and what happens between two pages."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from airflow_insightly_hooks.core.dates import format_api_time
from airflow_insightly_hooks.core.detection.scan import PageRequest, Scan
from airflow_insightly_hooks.core.records import RECORD_TYPES

EPOCH = datetime(2026, 3, 29, tzinfo=timezone.utc)
CONTACTS = RECORD_TYPES["Contacts"]
ORDERS = ("id", "updated", "updated, latest first", "stable", "none")
"""What results are ordered by. ``stable``: by an arbitrary key, new with each change of a record."""
TIES_SHUFFLED = "updated, ties shuffled"


@dataclass
class Stored:
    """A record: instants in seconds since EPOCH; ``moved`` says when it was last written, in order."""

    record_id: int
    created: float
    updated: float
    moved: int

    def shown(self) -> dict:
        """Return it as the API shows it: whole seconds."""
        return {
            "CONTACT_ID": self.record_id,
            "DATE_CREATED_UTC": api_text(self.created),
            "DATE_UPDATED_UTC": api_text(self.updated),
        }


def api_text(instant: float) -> str:
    return format_api_time(EPOCH + timedelta(seconds=int(instant)))


@dataclass
class Crm:
    """The account.

    :param order: one of ORDERS, or TIES_SHUFFLED.
    :param inclusive: whether the bound of a search is.
    :param totals: whether answers tell how many records there are; ``"wrong"``: all, whatever the bound.
    :param most: how many records an answer holds at most, whatever was asked for.
    """

    order: str = "id"
    inclusive: bool = False
    totals: bool | str = True
    most: int = 500
    seed: int = 0
    now: float = 0.0
    records: dict[int, Stored] = field(default_factory=dict)
    requests: list[PageRequest] = field(default_factory=list)
    between: Callable[[Crm, int], None] = lambda _crm, _number: None

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.writes = self.deletions = 0
        self.next_id = 1
        self._last: tuple[object, list[Stored]] = ((), [])

    def create(self) -> int:
        record_id, self.next_id = self.next_id, self.next_id + 1
        self.writes += 1
        self.records[record_id] = Stored(record_id, self.now, self.now, self.writes)
        return record_id

    def update(self, record_id: int) -> None:
        self.writes += 1
        record = self.records[record_id]
        self.records[record_id] = Stored(record_id, record.created, self.now, self.writes)

    def create_many(self, number: int) -> None:
        for _ in range(number):
            self.create()

    def delete(self, record_id: int) -> None:
        del self.records[record_id]
        self.deletions += 1

    def found(self, after: float | None) -> list[Stored]:
        """Return the records that a search finds, in its order."""
        if self.order in ("none", TIES_SHUFFLED):
            return self._found(after)
        state = (self.writes, self.deletions, after)
        if self._last[0] != state:  # otherwise each page would sort everything again
            self._last = state, self._found(after)
        return self._last[1]

    def _found(self, after: float | None) -> list[Stored]:
        found = [
            record
            for record in self.records.values()
            if after is None
            or int(record.updated) > after
            or (self.inclusive and int(record.updated) == after)
        ]
        if self.order == "none":
            self.random.shuffle(found)
            return found
        keys: dict[str, Callable[[Stored], object]] = {
            "id": lambda r: r.record_id,
            "updated": lambda r: r.moved,
            "updated, latest first": lambda r: -r.moved,
            "stable": lambda r: hash((r.moved, self.seed)) % 1_000_003,
            TIES_SHUFFLED: lambda r: (int(r.updated), self.random.random()),
        }
        return sorted(found, key=keys[self.order])

    def answer(self, request: PageRequest, after: float | None) -> tuple[list[dict], int | None, datetime]:
        """Answer a request, after what happens between it and the one before."""
        if self.requests:
            self.between(self, len(self.requests))
        self.requests.append(request)
        if request.updated_after is not None:
            after = (request.updated_after - EPOCH).total_seconds()
        found = self.found(after)
        page = found[request.skip : request.skip + min(request.top, self.most)]
        total = len(self.records) if self.totals == "wrong" else len(found)
        date = EPOCH + timedelta(seconds=int(self.now))
        return [r.shown() for r in page], total if self.totals and request.count_total else None, date


def read(crm: Crm, after: float | None = None, page_size: int = 500) -> list[dict]:
    """Read a search to its end as the hook does, and return each record once."""
    scan = Scan(CONTACTS, page_size)
    records = []
    crm.requests.clear()
    while scan.request is not None:
        records += scan.feed(*crm.answer(scan.request, after))
    return records
