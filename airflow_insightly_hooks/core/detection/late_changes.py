"""Which changes a run reports: those in its window, and those from before it that became visible late.

The lookback's zone is the span before the window, which is read again. For each record that was seen before,
all changes up to its last seen change were reported, or were skipped. So such a record is examined only after
that change. A record that was not seen before is examined as if the window began with the zone. If it was
created in the zone, it was added. If it was also updated since, this is one change, as within a window.

A part of the zone may not have been watched, for example because a cursor was set forward by hand. Changes in
such a part are only remembered, and not reported. The same is true of the whole zone in a first run. Changes
in the window are always reported. So after a cursor was set back, changes are reported again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from airflow_insightly_hooks.core.bounds import LONGEST_LOOKBACK, check_seconds
from airflow_insightly_hooks.core.dates import utc_time
from airflow_insightly_hooks.core.detection.changes import (
    EARLIEST,
    ChangeWindow,
    Event,
    RecordChange,
    changes_in,
)
from airflow_insightly_hooks.core.detection.record_times import RecordTimes, readable_times, record_times
from airflow_insightly_hooks.core.detection.seen_changes import MICROSECOND, SeenChanges
from airflow_insightly_hooks.core.digest import digest_of
from airflow_insightly_hooks.core.errors import InvalidTime
from airflow_insightly_hooks.core.records import RecordType, is_record_id

__all__ = [
    "LOOKBACK",
    "LateChanges",
    "SameChanges",
    "check_lookback",
    "watched_since",
    "zone_before",
]

LOOKBACK = 900.0
"""How many seconds a run reads back by default: imports become visible over minutes."""


def check_lookback(seconds: float) -> float:
    """Return a lookback in seconds; 0 means no lookback.

    :raises ValueError: if it is not a number from 0 to a day.
    """
    check_seconds("lookback", seconds, at_most=LONGEST_LOOKBACK)
    return seconds


def watched_since(settled_until: datetime, lookback: timedelta) -> datetime:
    """Return the start of the time in which changes may still become visible.

    :param settled_until: changes up to this time have settled.
    """
    start = utc_time(settled_until).replace(microsecond=0)
    return start - min(lookback, start - EARLIEST)


def zone_before(window: ChangeWindow, lookback: timedelta, since: datetime | None) -> ChangeWindow:
    """Return the span before a window that is read again; it ends at the window's start.

    :param since: the time from which seen changes are remembered; ``None`` if nothing is remembered.
    """
    start = window.start - min(lookback, window.start - EARLIEST)
    if since is not None:
        start = min(max(start, since), window.start)
    return ChangeWindow(start, window.start)


class LateChanges:
    """Finds a window's changes and the late changes from before it, each once.

    :param window: the run's window.
    :param record_type: the type of the records.
    :param events: the events to report; other events are remembered, too.
    :param lookback: how far back to read.
    :param before: the changes that earlier runs have seen; ``None``: changes from before the window are only
        remembered.
    :param settled_until: changes that are visible now have settled up to this time. Changes that are older
        than this by more than the lookback are not waited for. So if the window is long past, no changes are.
    :ivar zone: the span before the window that is read again.
    :ivar after: the changes that have been seen once all records were passed to ``changes``.
    :ivar told: the reported changes that another run could report, too. With ``plain``, a repetition reports
        the same again.
    :ivar late: how many of the changes were from before the window.
    """

    def __init__(
        self,
        window: ChangeWindow,
        record_type: RecordType,
        events: Collection[Event],
        lookback: timedelta,
        before: SeenChanges | None,
        settled_until: datetime,
    ) -> None:
        self.window = window
        since = watched_since(settled_until, lookback)
        self.zone = zone_before(window, lookback, before.since if before is not None else None)
        if before is None:  # changes before this would not even be remembered
            self.zone = ChangeWindow(min(max(self.zone.start, since), window.start), window.start)
        self._record_type, self._events = record_type, events
        self._before = before
        watched_until = self.zone.start if before is None else min(before.until, window.start)
        # This is empty if there is nothing to report from before the window.
        self._watched = ChangeWindow(self.zone.start, max(watched_until, self.zone.start))
        since = min(max(since, self.zone.start), window.end)
        self._since = max(since, window.start)
        self.after = (before or SeenChanges(since, since)).within(since, window.end)
        self._remembered_since = since
        self.told = SeenChanges(self.zone.start, window.end)
        self._told_ids: set[int] = set()
        self.late = 0

    @property
    def search_from(self) -> datetime:
        """The ``updated_after_utc`` of the search."""
        return ChangeWindow(self.zone.start, self.window.end).search_from

    @property
    def basis(self) -> str:
        """A digest of everything besides the records on which the result depends."""
        before = self._before
        seen = [] if before is None else [str(before.since), str(before.until), *before.blocks()]
        spans = [self.window, self.zone, self._watched, self._since, self._remembered_since]
        return digest_of("\n".join([*map(str, spans), *sorted(self._events), *seen]))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to read."""
        return self.zone.start == self.window.end

    @property
    def has_given_up(self) -> bool:
        """Whether more was seen than can be remembered. It is remembered from ``after.since`` on."""
        return self.after.since > self._remembered_since

    @property
    def plain(self) -> ChangeWindow:
        """The span of which a repetition reports all changes, so that it needs no memory for them."""
        start = self.window.start
        if self.told.since > self.zone.start:  # not all late changes could be kept
            return ChangeWindow(self.zone.start, max(self._since, self.told.since))
        return ChangeWindow(start, self._since)

    def changes(self, records: Iterable[dict[str, Any]]) -> Iterator[RecordChange]:
        """Yield the changes to report, in the records' order. A record has at most one change.

        :param records: records as the API delivers them. It may be a part of them.
        :raises InvalidTime: as ``changes_in`` does.
        """
        without_id: list[dict[str, Any]] = []
        for record in records:
            record_id: Any = record.get(self._record_type.id_field)
            if not is_record_id(record_id):
                without_id.append(record)
                continue
            times = readable_times(record)
            change = self._change(record_id, times, record) if record_id not in self._told_ids else None
            self.after.see(record_id, times)
            if change is not None:
                if "undeliverable" in change and not _are_readable(
                    record
                ):  # in any window, so report it once
                    self.after.see(record_id, [self.window.end - MICROSECOND])
                self._told_ids.add(record_id)
                self._note(record_id, times, change)
                yield change
        # Records without an id can't be remembered, so only those in the window count.
        yield from changes_in(self.window, self._record_type, without_id, self._events)

    def _change(self, record_id: int, times: RecordTimes, record: dict[str, Any]) -> RecordChange | None:
        last = max((time for time in times if time), default=None)
        seen = self._before.seen_up_to(record_id) if self._before is not None else None
        if seen is not None and seen >= self.window.start:  # the cursor was set back
            seen = self.window.start - MICROSECOND
        if seen is not None and (last is None or last <= seen):
            return None
        first = min((time for time in times if time), default=self.window.start)
        for span in (self._watched, self.window):
            begin = span.start if seen is None else max(span.start, seen + MICROSECOND)
            if max(begin, first) >= span.end:
                continue
            of_record = ChangeWindow(begin, span.end) if begin != span.start else span
            for change in changes_in(of_record, self._record_type, [record], self._events):
                return change
        return None

    def _note(self, record_id: int, times: RecordTimes, change: RecordChange) -> None:
        at = times.created if change["event"] == "added" else times.updated
        if at is None:
            at = self.window.end - MICROSECOND
        self.late += at < self.window.start
        if at < self.window.start or at >= self._since:
            self.told.see(record_id, [at])


def _are_readable(record: dict[str, Any]) -> bool:
    try:
        record_times(record)
    except InvalidTime:
        return False
    return True


class SameChanges:
    """Finds the changes that an earlier try of a run has reported, and no changes that other runs report.

    :param record_type: the type of the records.
    :param events: the events to report.
    :param plain: the span of which all changes are reported (``LateChanges.plain``). For a run without a
        lookback, it is the run's window.
    :param told: the other changes that were reported, by record (``LateChanges.told``).
    """

    def __init__(
        self,
        record_type: RecordType,
        events: Collection[Event],
        plain: ChangeWindow,
        told: SeenChanges | None = None,
    ) -> None:
        self._record_type, self._events = record_type, events
        self._plain = plain
        self._is_repetition = told is not None
        self._told = told or SeenChanges(plain.start, plain.start)
        self._told_ids: set[int] = set()

    @property
    def search_from(self) -> datetime:
        """The ``updated_after_utc`` of the search."""
        start = self._plain.start if not self._told else min(self._plain.start, self._told.since)
        return ChangeWindow(start, max(start, self._plain.end)).search_from

    @property
    def basis(self) -> str | None:
        """What the result depends on besides the records; ``None`` if it repeats an earlier try."""
        return None if self._is_repetition else f"{self._plain} {sorted(self._events)}"

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to read."""
        return self._plain.is_empty and not self._told

    def changes(self, records: Iterable[dict[str, Any]]) -> Iterator[RecordChange]:
        """Yield the changes to report, as ``LateChanges`` does."""
        if not self._told:
            yield from changes_in(self._plain, self._record_type, records, self._events)
            return
        for record in records:
            record_id = record.get(self._record_type.id_field)
            at = self._told.seen_up_to(record_id)
            span = self._plain if at is None else ChangeWindow(at, at + MICROSECOND)
            for change in changes_in(span, self._record_type, [record], self._events):
                if change["record_id"] not in self._told_ids:
                    self._told_ids.add(change["record_id"])
                    yield change
