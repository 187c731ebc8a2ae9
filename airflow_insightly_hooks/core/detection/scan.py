"""Reading a search page by page so that no record is missed, whatever happens to records meanwhile.

The API cuts what it finds into pages by ``skip`` and ``top``. It searches anew for each page, and promises no
order. If a record that was read is deleted, the records behind it move up, and a plain loop would miss as
many. So each page begins with the last few records of the page before, and three things are checked:

- The page *joins* what was read: it holds a record that was read before and has not changed since. In any
  order that stays the same, a page holds everything between two of its records. So nothing is missing between
  what was read and the end of this page, wherever the records have moved to.
- The page is *in order*: behind a record that was not read before stands none that was, unless it has just
  changed. Otherwise the order differs from page to page.
- The last page is *counted*: its answer tells how many records there are. If nothing moved, as many must have
  been read.

``_Phase`` lists what a page can be asked for, and what follows from its answer. To read a search once, from
its first record on, is a *pass*; a scan may need several. For instance, a record that changes during a pass
may move to a place that was read already. If anything moved, or if no count could show it, one more pass
searches for what has changed since the pass began.

A scan that is not complete after many requests raises ``IncompleteScan``. It never ends early in silence.
docs/explanation/detection.md says what is assumed of the API. This module does no I/O: ``request`` is what
to ask for, ``feed`` takes the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.detection.record_times import readable_times
from airflow_insightly_hooks.core.errors import IncompleteScan
from airflow_insightly_hooks.core.records import RecordType

__all__ = ["OVERLAP", "PageRequest", "Scan"]

Record = dict[str, Any]

OVERLAP = 5
"""Records that a page shares with the one before: 1 % of a page."""
STEPS_BACK = (50, 500)
"""How many records further back a page is asked for that joins nothing. After that, a new pass begins."""
MARGIN = timedelta(seconds=2)
"""How far the times of records, which have whole seconds, may be behind the server's clock."""
TICK = timedelta(seconds=1)
"""The unit of the times of records. A search bound is earlier by one, since it may be exclusive."""
MOST_DELETED = 50
"""If more records than this are missing behind the first known one, the order has changed."""


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


class _Phase(Enum):
    """What the next page of a pass is asked for.

    In the first three phases, the first rule that applies to the answer says what comes next:

    1. The page joins, but its records come in another order than before: ``READING_UNORDERED``.
    2. In ``CONFIRMING_END``, nothing follows, and the page joins or the count is as before: the pass is
       finished. If the count tells of more records, what stands right behind the end is asked for first,
       once in a pass.
    3. The page joins nothing: ``STEPPING_BACK``.
    4. The page is short: the pass is finished if the count agrees. Otherwise ``CONFIRMING_END``.
    5. The page is full: ``READING``.
    """

    READING = auto()
    """The records that follow the page before, which was full."""
    CONFIRMING_END = auto()
    """The page before was short: it was the last one, or its answer was cut. So nothing may follow."""
    STEPPING_BACK = auto()
    """The page before joined nothing, so one from further back is asked for."""
    READING_UNORDERED = auto()
    """The order differs from page to page. All pages are read again and again, until as many records are
    known as there are. A pass stays in this phase."""


class _PageCheck(NamedTuple):
    """How the records of a page fit what was read before it."""

    unread: list[int]  # ids of records that were not read before
    changed: list[int]  # ids of records that may have changed since the pass began
    joins: bool
    is_in_order: bool


class _ReadRecords:
    """The records that a pass has read, and where they stood.

    :param id_field: the name of the field that holds a record's id.
    """

    def __init__(self, id_field: str) -> None:
        self._id_field = id_field
        self._positions: dict[int, int] = {}  # by record id
        # Records that changed during the pass may stand anywhere. By id: when they were read last, if known.
        self._changed: dict[int, datetime | None] = {}

    def __len__(self) -> int:
        return len(self._positions) + len(self._changed)

    def check(self, page: Sequence[Record], began: datetime | None) -> _PageCheck:
        """Compare a page with what was read before.

        :param began: when the pass began by the server's clock, where that is known.
        """
        unread: list[int] = []
        changed: list[int] = []
        positions: list[int] = []
        joins = is_mixed = False
        for record in page:
            record_id = record[self._id_field]
            if began is not None and _may_have_changed(record, began):
                changed.append(record_id)
                was_read = self._is_unchanged_since_read(record)
            else:
                was_read = record_id in self._positions
                if was_read:
                    positions.append(self._positions[record_id])
                elif record_id not in self._changed:
                    unread.append(record_id)
            joins = joins or was_read
            is_mixed = is_mixed or (was_read and bool(unread))
        # Of the records that stood behind the first known one, only a few can have been deleted meanwhile.
        missing = len(self) - min(positions) - len(positions) if positions else 0
        is_in_order = positions == sorted(positions) and not is_mixed and missing <= MOST_DELETED
        return _PageCheck(unread, changed, joins, is_in_order)

    def add(self, page: _PageCheck, date: datetime | None) -> None:
        """Take note of the records of a page.

        :param date: when it was answered by the server's clock, where that is known.
        """
        first = len(self)
        self._positions.update((record_id, first + i) for i, record_id in enumerate(page.unread))
        for record_id in page.changed:
            self._positions.pop(record_id, None)
            self._changed[record_id] = date or self._changed.get(record_id)

    def _is_unchanged_since_read(self, record: Record) -> bool:
        """Return whether a record that changed was read after that, so that it stands there still."""
        read_at = self._changed.get(record[self._id_field])
        return read_at is not None and not _may_have_changed(record, read_at)


@dataclass
class _Pass:
    """Reading a search once, from its first record on.

    :param records: what it has read.
    :param updated_after: the bound to search with; ``None``: the caller's own.
    :param phase: what the next page is asked for.
    """

    records: _ReadRecords
    updated_after: datetime | None
    phase: _Phase
    began: datetime | None = None  # by the server's clock
    expected_ids: list[int] = field(default_factory=list)  # what the next page begins with if nothing moves
    pages: int = 0  # without those that only confirmed the end
    steps_back: int = 0  # in the phase of that name
    total: int | None = None  # how many records there are, as told last
    count_changed: bool = False  # from one answer to the next, since the last step back
    has_looked_past_end: bool = False  # nothing followed, but the count told of more
    nothing_moved: bool = True  # only then does a count prove anything
    all_counts_told: bool = True  # each count that was asked for


class Scan:
    """One search, read to its end.

    :param record_type: what is searched for.
    :param page_size: how many records a page holds at most, at least 2.
    :ivar page_size: as given.
    :ivar request: what to ask next; ``None`` when all has been read.
    """

    def __init__(self, record_type: RecordType, page_size: int = 500) -> None:
        if page_size < 2:
            raise ValueError(f"page_size must be at least 2, not {page_size}: pages overlap")
        self._record_type = record_type
        self.page_size = page_size
        self._returned: set[int] = set()
        self._requests = 0
        self._total_at_end = 0  # what the last pass with the caller's own bound ended with
        self._largest_page = 0  # a server may answer fewer records than asked for
        self._pass: _Pass
        self.request: PageRequest | None = self._begin_pass()

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
        asked, current = self.request, self._pass
        if asked is None:
            raise ValueError("the scan is complete")
        self._requests += 1
        self._largest_page = max(self._largest_page, len(page))
        if current.began is None:
            current.began = date
        self._note_total(asked, total)
        joins = self._note_page(asked, page, date)
        fresh = [record for record in page if record[self._record_type.id_field] not in self._returned]
        self._returned.update(self._ids(fresh))
        self.request = self._next(asked, page, total, joins)
        if self.request is not None and self._requests >= self._most_requests():
            raise IncompleteScan(self._record_type.name, self._requests, len(self._returned), current.total)
        return fresh

    # --- what an answer tells ----------------------------------------------------------------------------

    def _note_total(self, asked: PageRequest, total: int | None) -> None:
        current = self._pass
        if total is not None:
            if current.total not in (None, total):
                current.count_changed = True
                current.nothing_moved = False
            current.total = total
        elif asked.count_total:
            current.all_counts_told = False

    def _note_page(self, asked: PageRequest, page: Sequence[Record], date: datetime | None) -> bool:
        """Take note of the page's records; return whether nothing is missing before them."""
        current = self._pass
        checked = current.records.check(page, current.began)
        begins_as_expected = self._ids(page)[: len(current.expected_ids)] == current.expected_ids
        if checked.changed or not begins_as_expected:
            current.nothing_moved = False
        if current.phase is not _Phase.READING_UNORDERED:
            if asked.skip > 0 and not checked.joins:
                return False  # it counts as not read: it is asked for again from further back
            if not checked.is_in_order:
                current.phase = _Phase.READING_UNORDERED
        current.records.add(checked, date)
        return True

    def _ids(self, page: Sequence[Record]) -> list[int]:
        return [record[self._record_type.id_field] for record in page]

    # --- what to ask next --------------------------------------------------------------------------------

    def _next(
        self, asked: PageRequest, page: Sequence[Record], total: int | None, joins: bool
    ) -> PageRequest | None:
        """Return what to ask after a page that was noted; ``None`` if the scan is complete."""
        current = self._pass
        end = asked.skip + len(page)
        if end == 0 and not total:
            return self._finish_pass()  # the search finds nothing
        if current.phase is _Phase.READING_UNORDERED:
            return self._read_unordered(page, end, total)
        is_as_expected = current.phase is _Phase.CONFIRMING_END and self._ids(page) == current.expected_ids
        # If the count changed, a record that has just changed doesn't stand where it was: it has moved there.
        if is_as_expected and (joins or not page or not current.count_changed):
            return self._confirm_end(end, total)
        current.pages += 1
        if not joins:
            return self._step_back(asked.skip)
        return self._read_on(page, end, total)

    def _read_on(self, page: Sequence[Record], end: int, total: int | None) -> PageRequest | None:
        """Ask for what follows a page that joined."""
        current = self._pass
        is_short = len(page) < self.page_size
        current.phase = _Phase.CONFIRMING_END if is_short else _Phase.READING
        if is_short and total == end:
            return self._finish_pass(total)
        overlap = _overlap(len(page))
        current.expected_ids = self._ids(page)[len(page) - overlap :]
        skip = end - overlap
        is_last = current.total is None or skip + self.page_size >= current.total
        return self._ask(skip, count_total=is_last or is_short)

    def _confirm_end(self, end: int, total: int | None) -> PageRequest | None:
        """Finish the pass, since nothing follows. If the count tells of more, look past the end once."""
        current = self._pass
        if total is None or total <= end or current.has_looked_past_end:
            return self._finish_pass()
        current.has_looked_past_end = True
        current.expected_ids = []
        return self._ask(end, count_total=True)

    def _step_back(self, skip: int) -> PageRequest:
        """Ask for a page from further back than ``skip``, or for the first one in a new pass."""
        current = self._pass
        if current.phase is not _Phase.STEPPING_BACK:
            current.phase, current.steps_back = _Phase.STEPPING_BACK, 0
        current.nothing_moved = current.count_changed = False
        current.expected_ids = []
        step = STEPS_BACK[current.steps_back] if current.steps_back < len(STEPS_BACK) else skip
        current.steps_back += 1
        if step < skip:
            return self._ask(skip - step, count_total=True)
        return self._begin_pass(current.updated_after)

    def _read_unordered(self, page: Sequence[Record], end: int, total: int | None) -> PageRequest | None:
        """Read on until as many records are known as there are. Anything that moves makes that worthless."""
        current = self._pass
        current.expected_ids = []
        if not current.nothing_moved:
            return self._begin_pass(current.updated_after, _Phase.READING_UNORDERED)
        if total is not None and len(current.records) >= total:
            return None
        is_short = len(page) < self.page_size
        return self._ask(0 if is_short else end, count_total=True)

    def _finish_pass(self, total: int | None = None) -> PageRequest | None:
        """Return what to ask after a pass that has come to its end; ``None`` if the scan is complete.

        :param total: how many records there are, where the count has confirmed the end.
        """
        current = self._pass
        if total is not None and current.nothing_moved and len(current.records) < total:
            return self._begin_pass(current.updated_after, _Phase.READING_UNORDERED)
        if total is not None and current.updated_after is None:
            self._total_at_end = total
        began = current.began
        is_proven = current.nothing_moved and (current.all_counts_told or began is None)
        # A first page whose end was confirmed may still be a part of what there was: the server may have cut
        # the answer, and meanwhile the rest was deleted or moved before it. That changes the count.
        is_one_answer = current.pages <= 1 and not current.count_changed
        if not is_one_answer and not is_proven:
            # What changed since the pass began may have moved to where it had been read already.
            return self._begin_pass(current.updated_after if began is None else began - MARGIN - TICK)
        if len(self._returned) < self._total_at_end:
            # Pages in no order at all looked as if they were in order, while something moved.
            return self._begin_pass()
        return None

    def _begin_pass(
        self, updated_after: datetime | None = None, phase: _Phase = _Phase.READING
    ) -> PageRequest:
        self._pass = _Pass(_ReadRecords(self._record_type.id_field), updated_after, phase)
        return self._ask(0, count_total=True)

    def _ask(self, skip: int, *, count_total: bool) -> PageRequest:
        return PageRequest(skip, self.page_size, count_total, self._pass.updated_after)

    def _most_requests(self) -> int:
        """Return after how many requests to give up: a shuffled search takes some ten times its pages."""
        new_records = self._largest_page - _overlap(self._largest_page)  # of a page
        return 40 + 12 * (len(self._returned) // max(1, new_records))


def _overlap(length: int) -> int:
    return min(OVERLAP, length // 2)


def _may_have_changed(record: Record, since: datetime) -> bool:
    return any(time is not None and time >= since - MARGIN for time in readable_times(record))
