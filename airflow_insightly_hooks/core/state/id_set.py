"""A set of record ids in a state store: the records for which a workflow has ever triggered.

The set has a directory, under its key. The directory lists leaves. Each leaf holds the ids of a range, under
a key of its own:

- The directory is ``{"version": 2, "leaves": [[first, number], …], "next": number}``. The leaf ``number`` has
  the ids from ``first`` to the next leaf's ``first``, which is excluded. The first leaf's range starts at 1.
  ``next`` is higher than all numbers that were ever used. Version 1 is the same, but has no note that there
  is a directory (``state_store.Head``).
- A leaf is a text. It holds the ids in ascending order, each as the difference from the id before (the first
  one from 0), packed (``packed_integers``).

A leaf that is too large is split in half, as often as needed. Its parts are written under new numbers, then
the directory that lists them, and then the old leaf is deleted. Whatever stops this, the directory lists
complete leaves: either the old ones or the new ones. At worst, a leaf stays that the directory doesn't list.

A million ids of random 63 bits, which compress worst, make 256 leaves and a directory of 7 kB; it would
reach 60 kB at about eight million. A million ids in a row make 16 leaves, of 11 kB in all
(benchmarks/memory.py).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from airflow_insightly_hooks.core.errors import InvalidState
from airflow_insightly_hooks.core.records import is_record_id
from airflow_insightly_hooks.core.state.packed_integers import packed, unpacked
from airflow_insightly_hooks.core.state.state_store import Head, StateStore, count_in, on_failure

__all__ = ["IdSet"]

LEAF_IDS = 65_536
LEAF_CHARACTERS = 45_000
"""A leaf with more ids or characters is split, to stay well below the 65,535 bytes that Airflow stores."""
END = 2**63
"""All ids are below this number."""


class _Leaf(NamedTuple):
    first: int  # its range starts here; this id need not be in the set
    end: int  # its range ends before this id
    number: int | None  # None while nothing of the range is stored


class IdSet:
    """A set of record ids, positive and below 2⁶³, that is kept in a state store.

    An instance keeps what it has read. So it is for one task, and nothing else may write to the set
    meanwhile. Added ids are stored at once. If this fails half-way, the set still has all earlier ids and
    some of the new ones. Adding them again completes it.

    :param store: the store that holds the set. If there is no value under the key, the set is empty, unless
        there are other parts of a set. If everything was lost, only the caller can notice that.
    :param key: the directory's key. The leaves' keys are this key, ``/`` and a number.

    Each method raises ``InvalidState`` if the stored set can't be read, and ``ValueError`` if a value is not
    an id.
    """

    def __init__(self, store: StateStore, key: str) -> None:
        self._store = store
        self._key = key
        self._head = Head(store, key, {"leaves": [], "next": 0})
        self._leaves: list[_Leaf] = []  # empty until the directory is read
        self._next = 0
        self._ids: dict[int, Sequence[int]] = {}  # of the leaves that were read, by number

    def known(self, ids: Iterable[int]) -> set[int]:
        """Return those of the ids that the set has. It reads the directory and the leaves of their ranges."""
        return {
            record_id
            for leaf, group in self._by_leaf(ids)
            for record_id in group
            if _is_in(self._ids_of(leaf), record_id)
        }

    def add(self, ids: Iterable[int]) -> None:
        """Add the ids. It writes the leaves that change, and the directory if there are new leaves."""
        with on_failure(self._forget):
            # All leaves are read before one is written: if one can't be read, nothing changes.
            touched = [(leaf, self._ids_of(leaf), group) for leaf, group in self._by_leaf(ids)]
            replaced: dict[_Leaf, list[tuple[Sequence[int], str]]] = {}
            for leaf, before, group in touched:
                after = set(before).union(group)
                if len(after) == len(before):
                    continue
                parts = list(_parts(array("q", sorted(after))))
                if leaf.number is None or len(parts) > 1:
                    replaced[leaf] = parts
                else:
                    self._write(leaf.number, *parts[0])
            if replaced:
                self._replace(replaced)

    def _replace(self, replaced: Mapping[_Leaf, Sequence[tuple[Sequence[int], str]]]) -> None:
        """Replace each of these leaves by new ones."""
        self._head.prepare()
        leaves: list[_Leaf] = []
        number = self._next
        for leaf in self._leaves:
            if leaf not in replaced:
                leaves.append(leaf)
                continue
            bounds = [leaf.first, *(ids[0] for ids, _ in replaced[leaf][1:]), leaf.end]
            for (first, end), (ids, text) in zip(pairwise(bounds), replaced[leaf], strict=True):
                self._write(number, ids, text)
                leaves.append(_Leaf(first, end, number))
                number += 1
        self._head.write({"leaves": [[leaf.first, leaf.number] for leaf in leaves], "next": number})
        self._leaves, self._next = leaves, number
        # This comes last: until now, a crash would have left the old directory, which lists these leaves.
        for leaf in replaced:
            if leaf.number is not None:
                self._store.delete(self._leaf_key(leaf.number))
                del self._ids[leaf.number]

    def _forget(self) -> None:
        """Make the next call read everything again."""
        self._leaves, self._next, self._ids = [], 0, {}

    def _by_leaf(self, ids: Iterable[int]) -> Iterator[tuple[_Leaf, Sequence[int]]]:
        """Yield the leaves in whose ranges the ids are, each with its ids in order."""
        ordered = sorted({_checked(record_id) for record_id in ids})
        if not ordered:
            return
        leaves = self._directory()
        start = 0
        while start < len(ordered):
            leaf = leaves[bisect_right(leaves, ordered[start], key=lambda leaf: leaf.first) - 1]
            end = bisect_left(ordered, leaf.end, start)
            yield leaf, ordered[start:end]
            start = end

    def _leaf_key(self, number: int) -> str:
        return f"{self._key}/{number}"

    def _write(self, number: int, ids: Sequence[int], text: str) -> None:
        self._store.set(self._leaf_key(number), text)
        self._ids[number] = ids

    def _ids_of(self, leaf: _Leaf) -> Sequence[int]:
        if leaf.number is None:
            return ()
        if leaf.number not in self._ids:
            key = self._leaf_key(leaf.number)
            text = self._store.get(key)
            if text is None:
                raise InvalidState(key, "a part of the ids is missing, so it is not known what has triggered")
            ids = _decoded(text)
            if ids is None or (ids and not leaf.first <= ids[0] <= ids[-1] < leaf.end):
                raise InvalidState(key, "its ids can't be read")
            self._ids[leaf.number] = array("q", ids)
        return self._ids[leaf.number]

    def _directory(self) -> list[_Leaf]:
        """Return the leaves in the order of their ranges, which together cover all ids."""
        if not self._leaves:
            head = self._head.read()
            if head is None or head == self._head.empty:
                self._leaves = [_Leaf(1, END, None)]
            else:
                following = count_in(self._key, head, "next")
                self._leaves, self._next = self._leaves_of(head.get("leaves"), following), following
        return self._leaves

    def _leaves_of(self, pairs: object, following: int) -> list[_Leaf]:
        if not isinstance(pairs, list) or not all(map(_is_pair, pairs)):
            raise InvalidState(self._key, "its leaves can't be read")
        bounds = [*(first for first, _ in pairs), END]
        numbers = [number for _, number in pairs]
        if (
            bounds[0] != 1
            or any(first >= end for first, end in pairwise(bounds))
            or len(set(numbers)) != len(numbers)
            or not all(0 <= number < following for number in numbers)
        ):
            raise InvalidState(self._key, "its leaves contradict one another")
        return [
            _Leaf(first, end, number) for (first, end), number in zip(pairwise(bounds), numbers, strict=True)
        ]


def _parts(ids: Sequence[int]) -> Iterator[tuple[Sequence[int], str]]:
    """Yield the ids and the text of each leaf that these ids need."""
    if len(ids) <= LEAF_IDS:
        text = _encoded(ids)
        if len(text) <= LEAF_CHARACTERS or len(ids) < 2:
            yield ids, text
            return
    middle = len(ids) // 2
    yield from _parts(ids[:middle])
    yield from _parts(ids[middle:])


def _encoded(ids: Sequence[int]) -> str:
    return packed([end - start for start, end in pairwise((0, *ids))])


def _decoded(text: object) -> list[int] | None:
    """Return the ids that were encoded; ``None`` if the text doesn't hold ascending ids."""
    differences = unpacked(text, LEAF_IDS)
    return None if differences is None or 0 in differences else list(accumulate(differences))


def _is_in(ids: Sequence[int], record_id: int) -> bool:
    place = bisect_left(ids, record_id)
    return place < len(ids) and ids[place] == record_id


def _is_pair(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(n, int) and not isinstance(n, bool) for n in value)
    )


def _checked(record_id: int) -> int:
    if not is_record_id(record_id):
        raise ValueError(f"a record's id must be a positive whole number below 2^63, not {record_id!r}")
    return record_id
