"""Reads a search page by page so that no record is missed, also if records change meanwhile.

The API cuts the result of a search into pages by ``skip`` and ``top``. It searches again for each page, and
promises no order. If a record that was read is deleted, the records after it move up, and a simple loop would
miss one record. So each page begins with the last few records of the page before, and three things are
checked:

- The page *joins* the pages before: it holds a record that was read before and has not changed since. If the
  order stays the same, a page holds everything between two of its records. So nothing is missing between the
  pages before and the end of this page, wherever records have moved.
- The page is *in order*: after a record that was not read before, there is no record that was read before,
  unless it has just changed. Otherwise the order differs from page to page.
- The last page is *counted*: its answer says how many records there are. If nothing moved, as many records
  must have been read.

``_Phase`` lists the kinds of pages, and what each answer leads to. A *pass* reads the search once, from its
first record on. A scan may need several passes. For example, a record that changes during a pass may move to
a place that was read already. If anything moved, or if no count can prove that nothing moved, one more pass
searches for the records that have changed since the pass began.

A scan that is not complete after many requests raises ``IncompleteScan``. It never ends early without an
error. docs/explanation/detection.md describes the assumptions about the API and their consequences. This
module does no I/O: ``request`` is the next page to ask for, and ``feed`` takes the answer.
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
"""How many records a page shares with the page before: 1 % of a page."""
STEPS_BACK = (50, 500)
"""If a page joins nothing, how many records further back to ask for it. After that, a new pass begins."""
MARGIN = timedelta(seconds=2)
"""How far the times of records, which have whole seconds, may be behind the server's clock."""
TICK = timedelta(seconds=1)
"""The unit of records' times. A search bound is one unit earlier, because it may be exclusive."""
MOST_DELETED = 50
"""If more records than this are missing after the first known one, the order has changed."""


@dataclass(frozen=True)
class PageRequest:
    """The next page to ask for.

    :param skip: how many records to skip.
    :param top: how many records the page may have.
    :param count_total: whether the answer should say how many records there are in all.
    :param updated_after: the bound of the search; ``None``: the caller's own bound.
    """

    skip: int
    top: int
    count_total: bool
    updated_after: datetime | None = None


class _Phase(Enum):
    """The purpose of the next page of a pass.

    In the first three phases, the first rule that applies to the answer decides what comes next:

    1. The page joins, but its records are in another order than before: ``READING_UNORDERED``.
    2. In ``CONFIRMING_END``, nothing follows, and the page joins or the count is as before: the pass is
       finished. If the count shows more records, the records right after the end are asked for first, once in
       a pass.
    3. The page joins nothing: ``STEPPING_BACK``.
    4. The page is short: the pass is finished if the count agrees. Otherwise ``CONFIRMING_END``.
    5. The page is full: ``READING``.
    """

    READING = auto()
    """To read the records after the page before, which was full."""
    CONFIRMING_END = auto()
    """To check that nothing follows: the page before was short, so it was the last one, or it was cut."""
    STEPPING_BACK = auto()
    """To read a page from further back, because the page before joined nothing."""
    READING_UNORDERED = auto()
    """To read all pages again and again until all records are known, because the order differs from page to
    page. A pass stays in this phase."""


class _PageCheck(NamedTuple):
    """How the records of a page fit the records that were read before."""

    unread: list[int]  # ids of records that were not read before
    changed: list[int]  # ids of records that may have changed since the pass began
    joins: bool
    is_in_order: bool


class _ReadRecords:
    """The records that a pass has read, and their positions.

    :param id_field: the name of the field that holds a record's id.
    """

    def __init__(self, id_field: str) -> None:
        self._id_field = id_field
        self._positions: dict[int, int] = {}  # by record id
        # Records that changed during the pass may be anywhere. By id: when they were read last, if known.
        self._changed: dict[int, datetime | None] = {}

    def __len__(self) -> int:
        return len(self._positions) + len(self._changed)

    def check(self, page: Sequence[Record], began: datetime | None) -> _PageCheck:
        """Compare a page with the records that were read before.

        :param began: when the pass began by the server's clock; ``None`` if it is not known.
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
        # Of the records after the first known one, only a few can have been deleted meanwhile.
        missing = len(self) - min(positions) - len(positions) if positions else 0
        is_in_order = positions == sorted(positions) and not is_mixed and missing <= MOST_DELETED
        return _PageCheck(unread, changed, joins, is_in_order)

    def add(self, page: _PageCheck, date: datetime | None) -> None:
        """Take note of the records of a page.

        :param date: the time of the answer by the server's clock; ``None`` if it is not known.
        """
        first = len(self)
        self._positions.update((record_id, first + i) for i, record_id in enumerate(page.unread))
        for record_id in page.changed:
            self._positions.pop(record_id, None)
            self._changed[record_id] = date or self._changed.get(record_id)

    def _is_unchanged_since_read(self, record: Record) -> bool:
        """Return whether a changed record was read after its change, so that it is still at that place."""
        read_at = self._changed.get(record[self._id_field])
        return read_at is not None and not _may_have_changed(record, read_at)


@dataclass
class _Pass:
    """Reading a search once, from its first record on.

    :param records: the records that it has read.
    :param updated_after: the bound of the search; ``None``: the caller's own bound.
    :param phase: the purpose of the next page.
    """

    records: _ReadRecords
    updated_after: datetime | None
    phase: _Phase
    began: datetime | None = None  # by the server's clock
    expected_ids: list[int] = field(default_factory=list)  # the next page begins with these if nothing moves
    pages: int = 0  # without pages that only confirmed the end
    steps_back: int = 0  # in the phase STEPPING_BACK
    total: int | None = None  # how many records there are, according to the last answer
    count_changed: bool = False  # from one answer to the next, since the last step back
    has_looked_past_end: bool = False  # because nothing followed, but the count showed more records
    nothing_moved: bool = True  # a count proves something only if this is true
    all_counts_told: bool = True  # whether every requested count was in its answer


class Scan:
    """One search, read to its end.

    :param record_type: the record type to search for.
    :param page_size: how many records a page holds at most; at least 2.
    :ivar page_size: as the argument.
    :ivar request: the next page to ask for; ``None`` when everything has been read.
    """

    def __init__(self, record_type: RecordType, page_size: int = 500) -> None:
        if page_size < 2:
            raise ValueError(f"page_size must be at least 2, not {page_size}, because pages overlap")
        self._record_type = record_type
        self.page_size = page_size
        self._returned: set[int] = set()
        self._requests = 0
        self._total_at_end = 0  # the count at the end of the last pass with the caller's own bound
        self._largest_page = 0  # a server may answer with fewer records than asked for
        self._pass: _Pass
        self.request: PageRequest | None = self._begin_pass()

    @property
    def left(self) -> int:
        """How many records are still to be read, as far as is known."""
        total = self._pass.total
        return 0 if total is None or self.request is None else max(0, total - self.request.skip)

    def feed(self, page: Sequence[Record], total: int | None, date: datetime | None) -> list[Record]:
        """Take the answer to ``request``, and return the records that weren't returned before.

        :param page: the records of the answer.
        :param total: how many records there are in all; ``None`` if the answer doesn't say.
        :param date: the time of the answer by the server's clock; ``None`` if it is not known.
        :raises IncompleteScan: if too many requests were made, and the search is not read to its end.
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
        """Take note of the page's records. Return whether certainly nothing is missing before them."""
        current = self._pass
        checked = current.records.check(page, current.began)
        begins_as_expected = self._ids(page)[: len(current.expected_ids)] == current.expected_ids
        if checked.changed or not begins_as_expected:
            current.nothing_moved = False
        if current.phase is not _Phase.READING_UNORDERED:
            if asked.skip > 0 and not checked.joins:
                return False  # the page counts as not read, and is asked for again from further back
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
        """Return the request after a page that was noted; ``None`` if the scan is complete."""
        current = self._pass
        end = asked.skip + len(page)
        if end == 0 and not total:
            return self._finish_pass()  # the search finds nothing
        if current.phase is _Phase.READING_UNORDERED:
            return self._read_unordered(page, end, total)
        is_as_expected = current.phase is _Phase.CONFIRMING_END and self._ids(page) == current.expected_ids
        # If the count changed, a record that has just changed may have moved to this place.
        if is_as_expected and (joins or not page or not current.count_changed):
            return self._confirm_end(end, total)
        current.pages += 1
        if not joins:
            return self._step_back(asked.skip)
        return self._read_on(page, end, total)

    def _read_on(self, page: Sequence[Record], end: int, total: int | None) -> PageRequest | None:
        """Ask for the records after a page that joined."""
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
        """Finish the pass, because nothing follows. If there should be more, look past the end once."""
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
        """Read on until all records are known. If anything moves, start again."""
        current = self._pass
        current.expected_ids = []
        if not current.nothing_moved:
            return self._begin_pass(current.updated_after, _Phase.READING_UNORDERED)
        if total is not None and len(current.records) >= total:
            return None
        is_short = len(page) < self.page_size
        return self._ask(0 if is_short else end, count_total=True)

    def _finish_pass(self, total: int | None = None) -> PageRequest | None:
        """Return the request after a pass that has reached its end; ``None`` if the scan is complete.

        :param total: how many records there are, if the count has confirmed the end.
        """
        current = self._pass
        if total is not None and current.nothing_moved and len(current.records) < total:
            return self._begin_pass(current.updated_after, _Phase.READING_UNORDERED)
        if total is not None and current.updated_after is None:
            self._total_at_end = total
        began = current.began
        is_proven = current.nothing_moved and (current.all_counts_told or began is None)
        # Even if the end of a first page was confirmed, the page may be incomplete: the server may have cut
        # the answer, and then the rest was deleted or moved before it. In that case the count changes.
        is_one_answer = current.pages <= 1 and not current.count_changed
        if not is_one_answer and not is_proven:
            # Records that changed since the pass began may have moved to a place that was read already.
            return self._begin_pass(current.updated_after if began is None else began - MARGIN - TICK)
        if len(self._returned) < self._total_at_end:
            # Pages without any order looked as if they were in order, while something moved.
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
        """Return after how many requests to give up. In random order, a search takes ten times its pages."""
        new_records = self._largest_page - _overlap(self._largest_page)  # in each page
        return 40 + 12 * (len(self._returned) // max(1, new_records))


def _overlap(length: int) -> int:
    return min(OVERLAP, length // 2)


def _may_have_changed(record: Record, since: datetime) -> bool:
    return any(time is not None and time >= since - MARGIN for time in readable_times(record))
