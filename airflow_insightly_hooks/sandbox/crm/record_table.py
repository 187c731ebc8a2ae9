"""The records of one type: as they are, and as searches show them, found without looking at each."""

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
"""From how many new records on they are sorted in together instead of one by one."""


def updated_at(record: Record) -> str:
    """Return when the record was last updated, or created where it doesn't tell; ``""`` if neither."""
    return field_value(record, UPDATED) or field_value(record, CREATED) or ""


@dataclass(frozen=True)
class UpdatedAfterFilter:
    """Which update times are found.

    :param after: a time in the API's notation; ``None`` finds all.
    :param inclusive: whether that very time is found, too.
    """

    after: str | None = None
    inclusive: bool = False

    def start_index(self, by_update: Sequence[_Entry]) -> int:
        """Return where in a list ordered by update time those that are found begin."""
        if self.after is None:
            return 0
        find = bisect_left if self.inclusive else bisect_right
        return find(by_update, self.after, key=lambda entry: entry[0])

    def matches(self, updated: str) -> bool:
        """Whether this update time is found."""
        return self.after is None or updated > self.after or (self.inclusive and updated == self.after)


class RecordTable:
    """Records by their ids; a record is never changed in place, only put anew.

    :ivar records: the records as they are.
    :ivar shown: the records as searches show them: the same, but for changes that aren't visible yet.
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
        """Keep a record as it is from now on; ``None`` takes it away.

        :param shown_at: the seconds at which :meth:`show_due_changes` makes it visible; ``None`` for at once.
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
        """Make visible what is due by ``now``, in seconds."""
        while self._pending_changes and self._pending_changes[0][0] <= now:
            _, serial, record_id, record = heapq.heappop(self._pending_changes)
            # A later change of the same record may have become visible first: it stands.
            if serial > self._shown_serial.get(record_id, 0):
                self._show(record_id, record, serial)

    def all(self) -> list[Record]:
        """Return the records as they are, in the order of their ids."""
        return [self.records[record_id] for record_id in sorted(self.records)]

    def ids_by_update_time(self, updated_after: UpdatedAfterFilter) -> Sequence[int]:
        """Return the ids of what searches find, by update time, then by id; valid until the next change."""
        self._sort_added()
        return _IdSequence(self._by_update, updated_after.start_index(self._by_update))

    def ids_by_id(self, updated_after: UpdatedAfterFilter) -> Sequence[int]:
        """Return the ids of what searches find, in their order; valid until the next change."""
        return self._sorted_ids(updated_after, None)

    def ids_in_stable_order(self, updated_after: UpdatedAfterFilter, seed: int) -> Sequence[int]:
        """Return the same in an order that only ``seed`` decides."""
        return self._sorted_ids(updated_after, seed)

    def _sorted_ids(self, updated_after: UpdatedAfterFilter, seed: int | None) -> Sequence[int]:
        """Return ids in order; the last listing is kept up to date, since pages of the same search follow."""
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
        """Put in order what was added since."""
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
    """The ids in a list ordered by update time, from an index on."""

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
    """Ids that one search finds, kept in order while records come and go."""

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
