"""Reading a search page by page so that no record is missed, whatever happens to records meanwhile.

The API cuts what it finds into pages by ``skip`` and ``top``, finds it anew for each, and promises no order.
Where a record that has been read is deleted, those behind it move up, and a plain loop passes over as many.
So each page begins with the last few records of the one before, and is

- *joined*: it holds a record that was read before and hasn't changed since then. In any order that stays the
  same whatever stands between two records of a page is in it; so nothing is missing between what was read and
  the end of the page, wherever it has slid to. A page that joins nothing is asked for from further back;
- *in order*: behind a record that wasn't read before, and hasn't just changed, none comes that was. Else the
  order isn't the same from page to page, and pages are read until they hold as many records as there are;
- *counted*: the last page tells how many there are in all. Where nothing moved, as many must have been read.

A record that changes during the scan may move to where it has been read already. Where there is any sign of
that, or no count that could show one, what has changed since the scan began is searched for, too.

A scan that isn't complete after many requests raises ``IncompleteScan``: none ends short in silence. What is
assumed of the API, and what follows: docs/detection.md. Sans I/O: ``request`` is what to ask for, ``feed``
takes the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.errors import IncompleteScan, InvalidTime
from airflow_insightly_hooks.core.records import CREATED, UPDATED, RecordType, field_value

__all__ = ["OVERLAP", "PageRequest", "Scan"]

Record = dict[str, Any]

OVERLAP = 5
"""Records that a page shares with the one before: 1 % of a page."""
STEPS_BACK = (50, 500)
"""How much further back a page is asked for that joins nothing; after that, the scan begins anew."""
MARGIN = timedelta(seconds=2)
"""By so much the times of records, which have whole seconds, may be behind the server's clock."""
TICK = timedelta(seconds=1)
"""What those times are counted in: the API's bound may be exclusive."""
MOST_GONE = 50
"""More records than this that are missing behind the first known one are another order, not deletions."""
MOVED = -1
"""In place of a position: the record changed during the pass, so where it stands proves nothing."""


@dataclass(frozen=True)
class PageRequest:
    """What to ask the search for.

    :param skip: how many records to pass over.
    :param top: how many to answer, at most.
    :param count_total: whether the answer is to tell how many there are in all.
    :param updated_after: the bound to ask with; ``None``: the caller's own.
    """

    skip: int
    top: int
    count_total: bool
    updated_after: datetime | None = None


@dataclass
class _Pass:
    """One way through a search, from its first record on.

    :param updated_after: the bound to search with; ``None``: the caller's own.
    :param is_ordered: whether the order is taken to stay the same from page to page.
    """

    updated_after: datetime | None = None
    is_ordered: bool = True
    began: datetime | None = None  # by the server's clock
    places: dict[int, int] = field(default_factory=dict)  # record id -> where it stands, or MOVED
    moved: dict[int, datetime] = field(default_factory=dict)  # record id -> when it was read last
    expected: list[int] = field(default_factory=list)  # what the next page begins with if nothing moves
    total: int | None = None
    pages: int = 0  # without those that have but confirmed the end
    steps_back: int = 0
    is_confirming: bool = False  # the page before was short
    is_contradicted: bool = False  # nothing followed, but the count says otherwise
    is_calm: bool = True  # nothing moved: only then does a count prove anything
    is_counted: bool = True  # each count that was asked for was told


class Scan:
    """One search, read to its end.

    :param record_type: what is searched for.
    :param page_size: how many records a page holds at most, at least 2.
    :ivar request: what to ask next; ``None`` when all has been read.
    """

    def __init__(self, record_type: RecordType, page_size: int = 500) -> None:
        if page_size < 2:
            raise ValueError(f"page_size must be at least 2, not {page_size}: pages overlap")
        self._kind = record_type
        self._top = page_size
        self._returned: set[int] = set()
        self._requests = 0
        self._counted = 0  # how many records there were at the end of the last pass through all of them
        self._largest = 0  # the most records that a page held: a server may answer fewer than asked for
        self._pass = _Pass()
        self.request: PageRequest | None = self._ask(0, count_total=True)

    @property
    def left(self) -> int:
        """How many records are still to be read, as far as is known."""
        total = self._pass.total
        return 0 if total is None or self.request is None else max(0, total - self.request.skip)

    def feed(self, page: Sequence[Record], total: int | None, date: datetime | None) -> list[Record]:
        """Take the answer to ``request``, and return the records that weren't returned before.

        :param page: the records that were answered.
        :param total: how many there are in all, where the answer tells.
        :param date: the time of the answer by the server's clock, where it is known.
        :raises IncompleteScan: if the search couldn't be read to its end so far.
        """
        asked, now = self.request, self._pass
        if asked is None:
            raise ValueError("the scan is complete")
        self._requests += 1
        self._largest = max(self._largest, len(page))
        if now.began is None:
            now.began = date
        if total is not None:
            now.is_calm = now.is_calm and now.total in (None, total)
            now.total = total
        elif asked.count_total:
            now.is_counted = False
        joins = self._take(page, date, is_first=asked.skip == 0)
        fresh = [record for record in page if record[self._kind.id_field] not in self._returned]
        self._returned.update(self._ids(fresh))
        self.request = self._next(asked, page, joins, total)
        if self.request is not None and self._requests >= self._most_requests():
            raise IncompleteScan(self._kind.name, self._requests, len(self._returned), now.total)
        return fresh

    # --- what a page tells -------------------------------------------------------------------------------

    def _take(self, page: Sequence[Record], date: datetime | None, *, is_first: bool) -> bool:
        """Note where the page's records stand; return whether nothing is missing before them."""
        now = self._pass
        known: list[int] = []
        unread: list[int] = []
        moved: list[int] = []
        is_mixed = has_stayed = False
        for record in page:
            record_id = record[self._kind.id_field]
            place = now.places.get(record_id)
            if self._is_moving(record):
                moved.append(record_id)
                if self._has_stayed(record):
                    has_stayed = True
                    is_mixed = is_mixed or bool(unread)
            elif place is None:
                unread.append(record_id)
            elif place != MOVED:
                known.append(place)
                is_mixed = is_mixed or bool(unread)
        ids = self._ids(page)
        now.is_calm = now.is_calm and not moved and ids[: len(now.expected)] == now.expected
        if now.is_ordered and not known and not has_stayed and not is_first:
            return False
        # Few of those that stood behind the first one known can have been deleted in between.
        gone = len(now.places) - min(known) - len(known) if known else 0
        in_order = known == sorted(known) and not is_mixed and gone <= MOST_GONE
        now.is_ordered = now.is_ordered and in_order
        first = len(now.places)
        now.places.update((record_id, first + i) for i, record_id in enumerate(unread))
        now.places.update(dict.fromkeys(moved, MOVED))
        if date is not None:
            now.moved.update(dict.fromkeys(moved, date))
        return True

    def _is_moving(self, record: Record) -> bool:
        """Return whether a record may have changed since the pass began, and so may stand anywhere."""
        return self._pass.began is not None and _may_have_changed(record, self._pass.began)

    def _has_stayed(self, record: Record) -> bool:
        """Return whether a record that moved during the pass was read after that, and stands there still."""
        read_at = self._pass.moved.get(record[self._kind.id_field])
        return read_at is not None and not _may_have_changed(record, read_at)

    def _ids(self, page: Sequence[Record]) -> list[int]:
        return [record[self._kind.id_field] for record in page]

    # --- what to ask next --------------------------------------------------------------------------------

    def _next(
        self, asked: PageRequest, page: Sequence[Record], joins: bool, total: int | None
    ) -> PageRequest | None:
        now = self._pass
        end = asked.skip + len(page)
        if not page and not asked.skip and not total:
            return self._finish()
        if not now.is_ordered:
            return self._until_counted(page, end, total)
        if now.is_confirming and self._ids(page) == now.expected:
            if total is None or total <= end or now.is_contradicted:
                return self._finish()
            now.is_contradicted = True  # more is to come, says the count: look right behind
            now.expected = []
            return self._ask(end, count_total=True)
        now.pages += 1
        if not joins:
            return self._step_back(asked.skip)
        now.steps_back = 0
        now.is_confirming = len(page) < self._top  # the last page, unless its answer was cut
        if now.is_confirming and total == end:
            return self._finish(total)
        overlap = _overlap(len(page))
        now.expected = self._ids(page)[len(page) - overlap :]
        will_end = now.total is None or end - overlap + self._top >= now.total
        return self._ask(end - overlap, count_total=will_end or now.is_confirming)

    def _step_back(self, skip: int) -> PageRequest:
        now = self._pass
        now.is_calm = now.is_confirming = False
        now.expected = []
        back = STEPS_BACK[now.steps_back] if now.steps_back < len(STEPS_BACK) else skip
        now.steps_back += 1
        if skip > back:
            return self._ask(skip - back, count_total=True)
        return self._begin(_Pass(now.updated_after))

    def _until_counted(self, page: Sequence[Record], end: int, total: int | None) -> PageRequest | None:
        """Read on until as many records are known as there are, while nothing moves."""
        now = self._pass
        now.expected = []
        if not now.is_calm:
            return self._begin(_Pass(now.updated_after, is_ordered=False))
        if total is not None and len(now.places) >= total:
            return None
        return self._ask(0 if len(page) < self._top else end, count_total=True)

    def _finish(self, counted: int | None = None) -> PageRequest | None:
        """End the pass; what changed since it began may have moved to where it had been read already."""
        now = self._pass
        if now.is_calm and counted is not None and len(now.places) < counted:
            return self._begin(_Pass(now.updated_after, is_ordered=False))
        if now.updated_after is None and counted is not None:
            self._counted = counted
        if now.pages <= 1 or (now.is_calm and (now.is_counted or now.began is None)):
            # Pages in no order at all may have looked as if they were in order, and something had moved.
            return None if len(self._returned) >= self._counted else self._begin(_Pass())
        return self._begin(_Pass(now.updated_after if now.began is None else now.began - MARGIN - TICK))

    def _begin(self, new: _Pass) -> PageRequest:
        self._pass = new
        return self._ask(0, count_total=True)

    def _ask(self, skip: int, *, count_total: bool) -> PageRequest:
        return PageRequest(skip, self._top, count_total, self._pass.updated_after)

    def _most_requests(self) -> int:
        """Return after how many requests to give up: a shuffled search takes some ten times its pages."""
        return 40 + 12 * (len(self._returned) // max(1, self._largest - _overlap(self._largest)))


def _overlap(length: int) -> int:
    return min(OVERLAP, length // 2)


def _may_have_changed(record: Record, since: datetime) -> bool:
    times = _time(record, UPDATED), _time(record, CREATED)
    return any(time is not None and time >= since - MARGIN for time in times)


def _time(record: Record, name: str) -> datetime | None:
    text = field_value(record, name)
    try:
        return api_time(text) if text else None
    except InvalidTime:
        return None
