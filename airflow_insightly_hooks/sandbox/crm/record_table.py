"""The records of one type, both the current ones and those that searches show, with an index for searches."""

from __future__ import annotations

import heapq
import zlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, overload

from airflow_insightly_hooks.core.records import CREATED, UPDATED, field_value

__all__ = ["Record", "RecordTable", "UpdatedAfterFilter", "updated_at"]

Record = dict[str, Any]
_Entry = tuple[str, int]
"""A record's update time and its id."""

BULK_SORT_SIZE = 50
"""From this many new records on, the index is sorted as a whole. Fewer are inserted one by one."""


def updated_at(record: Record) -> str:
    """Return a record's update time, or else its creation time, or else ``""``."""
    return field_value(record, UPDATED) or field_value(record, CREATED) or ""


@dataclass(frozen=True)
class UpdatedAfterFilter:
    """Finds the records that were updated after a time.

    :param after: the time in the API's notation; ``None`` finds all records.
    :param inclusive: whether records that were updated at exactly this time are found, too.
    """

    after: str | None = None
    inclusive: bool = False

    def start_index(self, by_update: Sequence[_Entry]) -> int:
        """Return the index of the first match in a list that is sorted by update time."""
        if self.after is None:
            return 0
        find = bisect_left if self.inclusive else bisect_right
        return find(by_update, self.after, key=lambda entry: entry[0])

    def matches(self, updated: str) -> bool:
        """Whether a record with this update time is found."""
        return self.after is None or updated > self.after or (self.inclusive and updated == self.after)


class RecordTable:
    """The records of one type by their ids. A record is never changed in place, but replaced.

    :ivar records: the current records.
    :ivar shown: the records that searches show. They lack the changes that aren't visible yet.
    """

    def __init__(self) -> None:
        self.records: dict[int, Record] = {}
        self.shown: dict[int, Record] = {}
        self._by_update: list[_Entry] = []
        self._added: list[_Entry] = []
        self._last_sorted: _SortedIds | None = None
        self._serial = count(1)
        self._shown_serial: dict[int, int] = {}
        self._pending_changes: list[tuple[float, int, int, Record | None]] = []

    def put(self, record_id: int, record: Record | None, shown_at: float | None = None) -> None:
        """Store a record; ``None`` deletes it.

        :param shown_at: when :meth:`show_due_changes` makes the change visible, in seconds since 1970;
            ``None`` makes it visible at once.
        """
        if record is None:
            self.records.pop(record_id, None)
        else:
            self.records[record_id] = record
        serial = next(self._serial)
        if shown_at is None:
            self._show(record_id, record, serial)
        else:
            heapq.heappush(self._pending_changes, (shown_at, serial, record_id, record))

    def show_due_changes(self, now: float) -> None:
        """Make the changes visible whose ``shown_at`` is not later than ``now``, in seconds since 1970."""
        while self._pending_changes and self._pending_changes[0][0] <= now:
            _, serial, record_id, record = heapq.heappop(self._pending_changes)
            # A later change of the same record may be visible already. It must not be undone.
            if serial > self._shown_serial.get(record_id, 0):
                self._show(record_id, record, serial)

    def all(self) -> list[Record]:
        """Return the current records in the order of their ids."""
        return [self.records[record_id] for record_id in sorted(self.records)]

    def ids_by_update_time(self, updated_after: UpdatedAfterFilter) -> Sequence[int]:
        """Return the ids of the records found, by update time, then by id. Valid until the next change."""
        self._sort_added()
        return _IdSequence(self._by_update, updated_after.start_index(self._by_update))

    def ids_by_id(self, updated_after: UpdatedAfterFilter) -> Sequence[int]:
        """Return the ids of the records found, in ascending order. Valid until the next change."""
        return self._sorted_ids(updated_after, None)

    def ids_in_stable_order(self, updated_after: UpdatedAfterFilter, seed: int) -> Sequence[int]:
        """Return the ids of the records found, in an arbitrary order that only depends on ``seed``."""
        return self._sorted_ids(updated_after, seed)

    def _sorted_ids(self, updated_after: UpdatedAfterFilter, seed: int | None) -> Sequence[int]:
        """Return sorted ids. The last result is kept and updated for the next page of the same search."""
        self._sort_added()
        last = self._last_sorted
        if last is None or (last.updated_after, last.seed) != (updated_after, seed):
            last = _SortedIds(updated_after, seed, self.ids_by_update_time(updated_after)[:])
            self._last_sorted = last
        return last.ids

    def _show(self, record_id: int, record: Record | None, serial: int) -> None:
        self._shown_serial[record_id] = serial
        before = self.shown.pop(record_id, None)
        if before is not None:
            self._sort_added()
            entry = (updated_at(before), record_id)
            del self._by_update[bisect_left(self._by_update, entry)]
            if self._last_sorted:
                self._last_sorted.discard(*entry)
        if record is not None:
            self.shown[record_id] = record
            self._added.append((updated_at(record), record_id))

    def _sort_added(self) -> None:
        """Add the new records to the index."""
        if len(self._added) < BULK_SORT_SIZE:
            for entry in self._added:
                insort(self._by_update, entry)
                if self._last_sorted:
                    self._last_sorted.add(*entry)
        else:
            self._by_update.extend(self._added)
            self._by_update.sort()
            self._last_sorted = None
        self._added.clear()


class _IdSequence(Sequence[int]):
    """The ids in a list that is sorted by update time, from one index to the end."""

    def __init__(self, entries: list[_Entry], first: int) -> None:
        self._entries = entries
        self._indexes = range(first, len(entries))

    def __len__(self) -> int:
        return len(self._indexes)

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> list[int]: ...

    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, int):
            return self._entries[self._indexes[index]][1]
        indexes = self._indexes[index]
        return [record_id for _, record_id in self._entries[indexes.start : indexes.stop]]


class _SortedIds:
    """The ids that one search finds. They stay sorted while records are added and removed."""

    def __init__(self, updated_after: UpdatedAfterFilter, seed: int | None, ids: Sequence[int]) -> None:
        self.updated_after = updated_after
        self.seed = seed
        self._key: Callable[[int], Any] | None = None if seed is None else partial(_hashed, seed)
        self.ids = sorted(ids, key=self._key)

    def add(self, updated: str, record_id: int) -> None:
        if self.updated_after.matches(updated):
            insort(self.ids, record_id, key=self._key)

    def discard(self, updated: str, record_id: int) -> None:
        if self.updated_after.matches(updated):
            key = self._key
            index = (
                bisect_left(self.ids, key(record_id), key=key) if key else bisect_left(self.ids, record_id)
            )
            del self.ids[index]


def _hashed(seed: int, record_id: int) -> tuple[int, int]:
    return zlib.crc32(b"%d %d" % (seed, record_id)), record_id
