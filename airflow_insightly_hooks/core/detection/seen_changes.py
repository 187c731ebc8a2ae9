"""Which changes were seen already, so that those that become visible late can be told from them.

A change may show up long after its own time: an import's records, for instance, over minutes. So what lies
before a window is read again, and what was seen there is remembered: for each record, up to when its changes
were seen. That is little, since only the last minutes count, and exact: no two records are taken for one.

What is remembered is bounded. If there is more, the earliest changes are given up, and ``since`` tells from
when on all are known: what shows up late from before then can't be told from what was seen.
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
"""Texts of ``BLOCK_CHARACTERS`` in which what is remembered must fit: about 1 MB."""
BLOCK_CHARACTERS = 45_000
BLOCK_RECORDS = 30_000
MOST_RECORDS = 400_000
"""How many records are remembered at most. 100,000 fit whatever their ids are."""

MICROSECOND = timedelta(microseconds=1)
SECOND = 1_000_000  # microseconds


class SeenChanges:
    """Up to when each record's changes were seen, of those in the span ``[since, until)``.

    :param since: from when on changes are remembered; aware.
    :param until: up to when, exclusive.
    :ivar since: from when on all that was seen is known. Later than given, if not all could be kept.
    :ivar until: as given.
    """

    def __init__(self, since: datetime, until: datetime) -> None:
        self.since, self.until = utc_time(since), utc_time(until)
        # Microseconds since EPOCH: a hundred thousand of them take a third of what as many datetimes do.
        self._seen: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def seen_up_to(self, record_id: object) -> datetime | None:
        """Return the time of a record's last change that was seen; ``None`` if none was."""
        seen = self._seen.get(record_id) if isinstance(record_id, int) else None
        return None if seen is None else _time(seen)

    def see(self, record_id: Any, times: Iterable[datetime | None]) -> None:
        """Remember a record as it is shown.

        :param record_id: what is no record's id is not remembered.
        :param times: when it was created and updated; what is not in the span doesn't count.
        """
        last = max((time for time in times if time and self.since <= time < self.until), default=None)
        if last is None or not is_record_id(record_id):
            return
        seen = _microseconds(last)
        self._seen[record_id] = max(seen, self._seen.get(record_id, seen))
        if len(self._seen) > 2 * MOST_RECORDS:
            self._give_up(MOST_RECORDS)

    def is_unseen(self, record_id: object, times: Iterable[datetime | None]) -> bool:
        """Return whether a record shows a change in the span that was not seen."""
        seen = self.seen_up_to(record_id)
        return any(
            time is not None and self.since <= time < self.until and (seen is None or time > seen)
            for time in times
        )

    def within(self, since: datetime, until: datetime) -> SeenChanges:
        """Return what is remembered of another span; of what this one doesn't cover, that is nothing."""
        part = SeenChanges(since, until)
        first, end = _microseconds(part.since), _microseconds(part.until)
        part._seen = {record_id: seen for record_id, seen in self._seen.items() if first <= seen < end}
        return part

    def blocks(self) -> list[str]:
        """Return it as texts below 60 kB, ``MOST_BLOCKS`` at most; ``of`` reads them again.

        The earliest changes are given up until it fits.
        """
        if len(self._seen) > MOST_RECORDS:
            self._give_up(MOST_RECORDS)
        while len(blocks := _blocks(sorted(self._seen.items()))) > MOST_BLOCKS:
            self._give_up(len(self._seen) * MOST_BLOCKS // len(blocks))
        return blocks

    @classmethod
    def of(cls, since: datetime, until: datetime, blocks: Iterable[object]) -> SeenChanges:
        """Return what ``blocks`` gave.

        :raises ValueError: if one of the blocks can't be read.
        """
        seen = cls(since, until)
        for block in blocks:
            seen._seen |= _unpacked(block)
        return seen

    def _give_up(self, most: int) -> None:
        """Forget the earliest changes, all of an instant together, until ``most`` records are left."""
        latest_first = sorted(self._seen.values(), reverse=True)
        given_up = latest_first[most]
        self._seen = {record_id: seen for record_id, seen in self._seen.items() if seen > given_up}
        self.since = _time(given_up) + MICROSECOND


def _microseconds(time: datetime) -> int:
    return (time - EPOCH) // MICROSECOND


def _time(microseconds: int) -> datetime:
    return EPOCH + microseconds * MICROSECOND


def _blocks(entries: Sequence[tuple[int, int]]) -> list[str]:
    """Return entries, by record id, as the fewest texts of one length that are small enough."""
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
    """Return the differences between ids, then the seconds, then the microseconds within them: mostly 0."""
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
