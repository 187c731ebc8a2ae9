"""Remembers which changes were seen, so that changes that become visible late can be recognised.

A change may become visible long after its own time. For example, an import's records become visible over
minutes. So the time before a window is read again, and the seen changes are remembered: for each record, the
time up to which its changes were seen. This takes little space, because only the last minutes count. And it
is exact: no two records are mixed up.

The size is limited. If there is more to remember, the earliest changes are forgotten, and ``since`` is the
time from which all seen changes are known. A change from before ``since`` that becomes visible late can't be
recognised.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate, pairwise
from typing import Any

from airflow_insightly_hooks.core.dates import EPOCH, utc_time
from airflow_insightly_hooks.core.records import is_record_id
from airflow_insightly_hooks.core.state.packed_integers import packed, unpacked

__all__ = ["MOST_BLOCKS", "SeenChanges"]

MOST_BLOCKS = 24
"""How many texts of ``BLOCK_CHARACTERS`` may be used: about 1 MB."""
BLOCK_CHARACTERS = 45_000
BLOCK_RECORDS = 30_000
MOST_RECORDS = 400_000
"""How many records are remembered at most. 100,000 records fit with any ids."""

MICROSECOND = timedelta(microseconds=1)
SECOND = 1_000_000  # microseconds


class SeenChanges:
    """For each record, the time up to which its changes in the span ``[since, until)`` were seen.

    :param since: the start of the span: an aware time.
    :param until: the end of the span, exclusive.
    :ivar since: the time from which all seen changes are known. It is later than the argument if not all
        could be kept.
    :ivar until: as the argument.
    """

    def __init__(self, since: datetime, until: datetime) -> None:
        self.since, self.until = utc_time(since), utc_time(until)
        # Microseconds since EPOCH take a third of the memory of datetimes.
        self._seen: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def seen_up_to(self, record_id: object) -> datetime | None:
        """Return the time of a record's last seen change; ``None`` if no change was seen."""
        seen = self._seen.get(record_id) if isinstance(record_id, int) else None
        return None if seen is None else _time(seen)

    def see(self, record_id: Any, times: Iterable[datetime | None]) -> None:
        """Remember a record as the API shows it.

        :param record_id: the record's id. A value that can't be an id is ignored.
        :param times: when the record was created and updated. Times outside of the span are ignored.
        """
        last = max((time for time in times if time and self.since <= time < self.until), default=None)
        if last is None or not is_record_id(record_id):
            return
        seen = _microseconds(last)
        self._seen[record_id] = max(seen, self._seen.get(record_id, seen))
        if len(self._seen) > 2 * MOST_RECORDS:
            self._forget_earliest(MOST_RECORDS)

    def is_unseen(self, record_id: object, times: Iterable[datetime | None]) -> bool:
        """Return whether a record shows a change in the span that was not seen."""
        seen = self.seen_up_to(record_id)
        return any(
            time is not None and self.since <= time < self.until and (seen is None or time > seen)
            for time in times
        )

    def within(self, since: datetime, until: datetime) -> SeenChanges:
        """Return what is remembered of another span. Outside of this span, nothing is remembered."""
        part = SeenChanges(since, until)
        first, end = _microseconds(part.since), _microseconds(part.until)
        part._seen = {record_id: seen for record_id, seen in self._seen.items() if first <= seen < end}
        return part

    def blocks(self) -> list[str]:
        """Return it as at most ``MOST_BLOCKS`` texts below 60 kB; ``of`` reads them.

        The earliest changes are forgotten until it fits.
        """
        if len(self._seen) > MOST_RECORDS:
            self._forget_earliest(MOST_RECORDS)
        while len(blocks := _blocks(sorted(self._seen.items()))) > MOST_BLOCKS:
            self._forget_earliest(len(self._seen) * MOST_BLOCKS // len(blocks))
        return blocks

    @classmethod
    def of(cls, since: datetime, until: datetime, blocks: Iterable[object]) -> SeenChanges:
        """Return the seen changes that ``blocks`` returned.

        :raises ValueError: if one of the blocks can't be read.
        """
        seen = cls(since, until)
        for block in blocks:
            seen._seen |= _unpacked(block)
        return seen

    def _forget_earliest(self, most: int) -> None:
        """Forget the earliest changes, whole instants, until at most ``most`` records are left."""
        latest_first = sorted(self._seen.values(), reverse=True)
        latest_forgotten = latest_first[most]
        self._seen = {record_id: seen for record_id, seen in self._seen.items() if seen > latest_forgotten}
        self.since = _time(latest_forgotten) + MICROSECOND


def _microseconds(time: datetime) -> int:
    return (time - EPOCH) // MICROSECOND


def _time(microseconds: int) -> datetime:
    return EPOCH + microseconds * MICROSECOND


def _blocks(entries: Sequence[tuple[int, int]]) -> list[str]:
    """Return entries, sorted by record id, as the fewest texts of equal length that are small enough."""
    if not entries:
        return []
    count = -(-len(entries) // BLOCK_RECORDS)
    while True:
        ends = [number * len(entries) // count for number in range(count + 1)]
        texts = [_packed(entries[start:end]) for start, end in pairwise(ends)]
        longest = max(map(len, texts))
        if longest <= BLOCK_CHARACTERS:
            return texts
        count = max(count + 1, count * longest // BLOCK_CHARACTERS)


def _packed(entries: Sequence[tuple[int, int]]) -> str:
    """Pack the differences between ids, then the seconds, then their microseconds, which are mostly 0."""
    ids = [end - start for start, end in pairwise((0, *(record_id for record_id, _ in entries)))]
    seconds, within = [s // SECOND for _, s in entries], [s % SECOND for _, s in entries]
    return packed([*ids, *(s % 2**64 for s in seconds), *within])


def _unpacked(block: object) -> Mapping[int, int]:
    integers = unpacked(block, 3 * BLOCK_RECORDS)
    if integers is None or len(integers) % 3:
        raise ValueError("a block of seen changes can't be read")
    count = len(integers) // 3
    ids = list(accumulate(integers[:count]))
    seconds, within = integers[count : 2 * count], integers[2 * count :]
    if len(set(ids)) < count or not all(map(is_record_id, ids)) or any(part >= SECOND for part in within):
        raise ValueError("a block of seen changes can't be read")
    # Before 1970 a second is negative.
    return {
        record_id: (s - 2**64 if s >= 2**63 else s) * SECOND + part
        for record_id, s, part in zip(ids, seconds, within, strict=True)
    }
