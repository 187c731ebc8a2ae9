"""Changes shortly before or after a window, which a scan of the window keeps for runs over nearby windows.

Insightly's search has a start and no end. So a scan of a past window also shows all later changes. The
nearest changes are kept here, sorted by time and cut into slices, so that runs over other windows need not
scan again. A record is kept under each of its times: if it was created in one window and updated in another,
it counts in both.
"""

from __future__ import annotations

import base64
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from heapq import heappop, heappush
from operator import itemgetter
from typing import Any, NamedTuple

from airflow_insightly_hooks.core import exact_json
from airflow_insightly_hooks.core.dates import EPOCH, api_time
from airflow_insightly_hooks.core.detection.changes import ChangeWindow, Event, RecordChange, changes_in
from airflow_insightly_hooks.core.detection.record_times import record_times
from airflow_insightly_hooks.core.errors import InvalidTime
from airflow_insightly_hooks.core.records import RecordType

__all__ = ["Chunk", "NearbyChanges", "Slice", "WindowRead", "read_window"]

SLICE_CHANGES = 500
SLICE_BYTES = 1_000_000
MOST_BYTES = 64_000_000
"""How many characters of JSON text are kept at most, for any number of changes."""


class WindowRead(NamedTuple):
    """The result of reading a window."""

    changes: list[RecordChange]
    updated_again: int
    """How many records that existed at the window's end were updated after it. The API can't show any more
    how they changed in the window."""


class Slice(NamedTuple):
    """Changes that adjoin in time."""

    start: datetime
    updated_again: int
    """The same as in ``WindowRead``, for a window that ends at ``start``."""
    text: str
    """The records: compressed JSON, in ASCII."""


class NearbyChanges:
    """Collects the changes that a scan shows beside its window: the nearest ones, up to a limit.

    :param window: the window that is being read.
    :param span: the span whose changes are kept. It starts at the window's end, or ends at the window's
        start.
    :param limit: how many changes to keep at most. ``MOST_BYTES`` limits the memory, too.
    :ivar updated_again: how many of the records seen so far existed at the window's end and were updated
        after it.
    :ivar start, end: the span of which all changes seen so far are kept.
    """

    def __init__(self, window: ChangeWindow, span: ChangeWindow | None = None, limit: int = 0) -> None:
        self.window = window
        self.start, self.end = (span.start, span.end) if span else (window.end, window.end)
        self.updated_again = 0
        self._is_before = self.start < window.start
        self._updated_again_at_start = 0  # the same count for the window's start
        self._limit = limit
        self._seen = 0
        self._bytes = 0
        self._farthest_first: list[tuple[float, int, datetime, str]] = []

    @property
    def search_from(self) -> datetime:
        """The ``updated_after_utc`` of the search."""
        return ChangeWindow(min(self.start, self.window.start), self.window.end).search_from

    def see(self, record: Mapping[str, Any]) -> None:
        """Take note of any record of the scan.

        If its time can't be read, or it nests too deep, no changes are kept any more: a run that needs this
        record must read it itself.
        """
        try:
            created, updated = record_times(record)
        except InvalidTime:
            self.start = self.end
            return
        self.updated_again += _is_updated_again(created, updated, self.window.end)
        self._updated_again_at_start += _is_updated_again(created, updated, self.window.start)
        self._seen += 1
        times = {time for time in (created, updated) if time and self.start <= time < self.end}
        if times:
            try:
                text = exact_json.dumps(record)
            except RecursionError:
                self.start = self.end
                return
            for time in times:
                self._keep(time, text)

    def _keep(self, time: datetime, text: str) -> None:
        seconds = (time - EPOCH).total_seconds()
        heappush(self._farthest_first, (seconds if self._is_before else -seconds, self._seen, time, text))
        self._bytes += len(text)
        while len(self._farthest_first) > self._limit or self._bytes > MOST_BYTES:
            *_, farthest, dropped = heappop(self._farthest_first)
            self._bytes -= len(dropped)
            if self._is_before:
                self.start = max(self.start, farthest + datetime.resolution)
            else:
                self.end = min(self.end, farthest)

    def slices(self) -> Iterator[Slice]:
        """Yield the kept changes once the scan has ended: adjoining slices from ``start`` to ``end``.

        Changes of one instant are in one slice. There is at least one slice.
        """
        kept = sorted(
            (time, position, text)
            for _, position, time, text in self._farthest_first
            if self.start <= time < self.end
        )
        start, updated_again = self.start, self.updated_again
        if self._is_before:
            all_texts = {position: text for _, position, text in kept}
            updated_again = self._updated_again_at_start - _growth(all_texts, start, self.end)
        texts: dict[int, str] = {}
        changes = size = 0
        for index, (time, position, text) in enumerate(kept):
            is_full = changes >= SLICE_CHANGES or size >= SLICE_BYTES
            if is_full and time != kept[index - 1][0]:
                yield Slice(start, updated_again, _packed(texts))
                updated_again += _growth(texts, start, time)
                start, texts, changes, size = time, {}, 0, 0
            texts[position] = text
            changes += 1
            size += len(text)
        yield Slice(start, updated_again, _packed(texts))


@dataclass(frozen=True)
class Chunk:
    """An index of slices, without the records: which run read them, when, and where each slice starts.

    :param start: the slices hold all changes from this time on. All times here are the API's, in ISO 8601.
    :param end: the end of the slices, exclusive.
    :param run_id: the run that has read the slices and keeps them.
    :param reader: the values that another run must have in common with that run to use the slices.
    :param read_at: when the slices were read.
    :param slices: for each slice, its start and its ``updated_again``.
    """

    start: str
    end: str
    run_id: str
    reader: list[Any]
    read_at: str
    slices: list[list[Any]]

    @classmethod
    def of(cls, value: Any) -> Chunk:
        """Return the chunk that ``as_dict`` wrote.

        :raises TypeError: if the value is not a chunk.
        :raises ValueError: if one of its entries has another form, or a time can't be read.
        """
        chunk = cls(**value)
        for time in (chunk.start, chunk.end, chunk.read_at, *(start for start, _ in chunk.slices)):
            api_time(time, "chunk")
        return chunk

    def as_dict(self) -> dict[str, Any]:
        """Return the chunk as a JSON object; ``of`` reads it."""
        return asdict(self)

    def covers(self, window: ChangeWindow) -> bool:
        """Return whether every change of the window is in the slices."""
        return api_time(self.start) <= window.start and window.end <= api_time(self.end)

    def slices_of(self, window: ChangeWindow) -> range:
        """Return the numbers of the slices with the changes of a window. The chunk must cover the window."""
        starts = [api_time(start) for start, _ in self.slices]
        return range(bisect_right(starts, window.start) - 1, bisect_left(starts, window.end))

    def slice(self, number: int, text: str) -> Slice:
        """Return a slice whose text has been fetched."""
        start, updated_again = self.slices[number]
        return Slice(api_time(start), updated_again, text)


def read_window(
    window: ChangeWindow, record_type: RecordType, slices: Sequence[Slice], events: Collection[Event]
) -> WindowRead:
    """Return what a scan of the window would have found, in the scan's order.

    :param slices: all slices with changes of the window, in order, at least one.
    :raises ValueError: if a slice can't be read.
    """
    records: dict[int, dict[str, Any]] = {}
    last: dict[int, dict[str, Any]] = {}
    for last in map(_unpacked, (part.text for part in slices)):
        records |= last
    in_order = (record for _, record in sorted(records.items(), key=itemgetter(0)))
    changes = list(changes_in(window, record_type, in_order, events))
    start, updated_again, _ = slices[-1]
    return WindowRead(changes, updated_again + _growth_by(last.values(), start, window.end))


def _growth(texts: Mapping[int, str], start: datetime, end: datetime) -> int:
    return _growth_by(map(exact_json.loads, texts.values()), start, end)


def _growth_by(records: Iterable[Mapping[str, Any]], start: datetime, end: datetime) -> int:
    """Return by how much ``updated_again`` grows from ``start`` to ``end``.

    :param records: all records that were created or updated in between; others make no difference.
    """
    return sum(
        _is_updated_again(created, updated, end) - _is_updated_again(created, updated, start)
        for created, updated in map(record_times, records)
    )


def _is_updated_again(created: datetime | None, updated: datetime | None, instant: datetime) -> bool:
    """Return whether a record existed before ``instant`` and was updated then or later."""
    return updated is not None and updated >= instant and (created is None or created < instant)


def _packed(texts: Mapping[int, str]) -> str:
    text = ",".join(f'"{position}":{texts[position]}' for position in texts)
    return base64.b64encode(zlib.compress(f"{{{text}}}".encode("ascii"))).decode("ascii")


def _unpacked(text: str) -> dict[int, dict[str, Any]]:
    try:
        found = exact_json.loads(zlib.decompress(base64.b64decode(text, validate=True)))
    except (ValueError, zlib.error):  # their texts may quote a record
        raise ValueError("a slice of changes can't be read") from None
    return {int(position): record for position, record in found.items()}
