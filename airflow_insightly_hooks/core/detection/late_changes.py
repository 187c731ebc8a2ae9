"""What a run tells: the changes of its window, and those from before it that have become visible late.

For each record, everything up to its last seen change has been told (or has passed by). So a known record is
looked at from there on, and an unknown one as if its window began with the lookback's zone, the span before
the window that is read again. What was created there and never seen was added; if it was updated meanwhile,
too, that is one change, as within a window.

Of a part of the zone that nobody has watched, such as where a cursor was set forward by hand, and of all of
it in a first run, what stands there is only remembered. What lies in the window is told in any case: a cursor
that was set back repeats.
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
"""Seconds that a run reads back by default: imports become visible over minutes."""


def check_lookback(seconds: float) -> float:
    """Return a lookback in seconds; 0 is none.

    :raises ValueError: if it is not a number from 0 to a day.
    """
    check_seconds("lookback", seconds, at_most=LONGEST_LOOKBACK)
    return seconds


def watched_since(settled_until: datetime, lookback: timedelta) -> datetime:
    """Return from when on changes may yet become visible, if those up to ``settled_until`` have settled."""
    start = utc_time(settled_until).replace(microsecond=0)
    return start - min(lookback, start - EARLIEST)


def zone_before(window: ChangeWindow, lookback: timedelta, since: datetime | None) -> ChangeWindow:
    """Return the span before a window that is read again, up to the window's start.

    :param since: from when on is remembered what was seen; ``None`` if nothing is.
    """
    start = window.start - min(lookback, window.start - EARLIEST)
    if since is not None:
        start = min(max(start, since), window.start)
    return ChangeWindow(start, window.start)


class LateChanges:
    """Finds a window's changes and the late ones before it, each once.

    :param window: the run's window.
    :param record_type: of what.
    :param events: the events to tell; the others are remembered, too.
    :param lookback: how far back to read.
    :param before: what the runs before have seen; ``None``: what stands before the window is only remembered.
    :param settled_until: up to when the changes have settled that are visible now. What is a lookback older
        than that is not waited for: with a window long past, nothing is.
    :ivar zone: the span before the window that is read again.
    :ivar after: what has been seen once all records have passed.
    :ivar told: what was told that another run could tell, too; with ``plain`` it tells the same again.
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
        if before is None:  # more of it would not even be remembered
            self.zone = ChangeWindow(min(max(self.zone.start, since), window.start), window.start)
        self._record_type, self._events = record_type, events
        self._before = before
        watched_until = self.zone.start if before is None else min(before.until, window.start)
        # Empty, if there is nothing to tell of before the window.
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
        """The ``updated_after_utc`` to ask for."""
        return ChangeWindow(self.zone.start, self.window.end).search_from

    @property
    def basis(self) -> str:
        """What it depends on besides the records, as a digest."""
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
        """Whether more was seen than can be remembered; ``after.since`` tells from when on it is."""
        return self.after.since > self._remembered_since

    @property
    def plain(self) -> ChangeWindow:
        """The span whose changes a repetition needs no memory for: it tells all of them."""
        start = self.window.start
        if self.told.since > self.zone.start:  # not all late ones could be kept
            return ChangeWindow(self.zone.start, max(self._since, self.told.since))
        return ChangeWindow(start, self._since)

    def changes(self, records: Iterable[dict[str, Any]]) -> Iterator[RecordChange]:
        """Yield the changes to tell, in the records' order; a record has one at most.

        :param records: as the API delivers them, a part of them perhaps.
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
                if "undeliverable" in change and not _are_readable(record):  # any window might hold it: once
                    self.after.see(record_id, [self.window.end - MICROSECOND])
                self._told_ids.add(record_id)
                self._note(record_id, times, change)
                yield change
        # They can't be remembered, so they count in the window alone.
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
    """Finds what an earlier try of a run has told, and nothing that other runs have told or will tell.

    :param record_type: of what.
    :param events: the events to tell.
    :param plain: the span of which all is told; of ``LateChanges``. A run without a lookback tells its
        window so.
    :param told: by record, what else was told; of ``LateChanges``.
    :ivar late: how many of the changes were from before the window.
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
        """The ``updated_after_utc`` to ask for."""
        start = self._plain.start if not self._told else min(self._plain.start, self._told.since)
        return ChangeWindow(start, max(start, self._plain.end)).search_from

    @property
    def basis(self) -> str | None:
        """What it depends on besides the records; ``None`` if it repeats what an earlier try has told."""
        return None if self._is_repetition else f"{self._plain} {sorted(self._events)}"

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to read."""
        return self._plain.is_empty and not self._told

    def changes(self, records: Iterable[dict[str, Any]]) -> Iterator[RecordChange]:
        """Yield the changes to tell, as ``LateChanges`` does."""
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
