"""Stores the seen changes beside a cursor, for two positions of the cursor, so that a kill loses nothing.

The write of the cursor commits a run. Before that, the run writes what it has seen, for the cursor's new
position. This replaces the older one of two states. The state for the present position stays. So if a run is
stopped at any moment, there is a complete state for the cursor's position.

A state, under ``{cursor's key}~a`` or ``{cursor's key}~b``:

``{"version": 1, "since": …, "until": …, "reader": …, "runs": [[…]], "blocks": 2, "digest": …, "first": …}``

It is the state for a cursor at ``until``. ``reader`` names what was searched for. ``runs`` are the last runs
that have moved the cursor, each with the position to which it moved it. The first entry may have a position
only. The first block is in ``first``, and the others are under ``{cursor's key}~a1`` and so on. The digest is
that of the blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.dates import api_time, iso_time
from airflow_insightly_hooks.core.detection.seen_changes import MOST_BLOCKS, SeenChanges
from airflow_insightly_hooks.core.digest import digest_of
from airflow_insightly_hooks.core.errors import InvalidState, NewerState
from airflow_insightly_hooks.core.state.state_store import StateStore, count_in, read_head

__all__ = ["SeenState", "SeenStore", "read_blocks", "read_seen", "seen_keys", "write_blocks", "write_seen"]

VERSION = 1
SLOTS = ("a", "b")
RUNS = 64
"""How many runs a state names."""
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class SeenState(NamedTuple):
    """What had been seen when the cursor was at ``until``."""

    since: datetime
    until: datetime
    reader: str
    runs: list[list[str]]
    """The last runs that have moved the cursor: the position (ISO 8601) and the run's name."""
    slot: str

    def has_run(self, until: datetime, run: str) -> bool | None:
        """Return whether a run has moved the cursor to ``until``; ``None`` if it is not known any more."""
        if [iso_time(until), run] in self.runs:
            return True
        return None if not self.runs or until <= api_time(self.runs[0][0]) else False


class SeenStore:
    """The two states of a cursor.

    :param store: the store that holds the cursor.
    :param cursor_key: the cursor's key.
    """

    def __init__(self, store: StateStore, cursor_key: str) -> None:
        self._store = store
        self._key = f"{cursor_key}~"
        self._blocks: dict[str, int] = {}  # by slot
        self._untils: dict[str, datetime] = {}  # by slot

    def states(self) -> list[SeenState]:
        """Return the states that can be read, the latest position last.

        :raises NewerState: if a newer release has written one.
        """
        found = []
        for slot in SLOTS:
            try:
                head = read_head(self._store, self._key + slot, (VERSION,))
                if head is not None:
                    found.append(_state(head, slot))
                    self._untils[slot] = found[-1].until
                    self._blocks[slot] = count_in(self._key + slot, head, "blocks")
            except NewerState:  # to go on without it would miss changes that become visible late
                raise
            except (InvalidState, KeyError, TypeError, ValueError):
                continue
        return sorted(found, key=lambda state: state.until)

    def read(self, state: SeenState) -> SeenChanges:
        """Return what was seen.

        :raises InvalidState: if a part is missing, or belongs to something else.
        """
        return read_seen(self._store, self._key + state.slot)

    def write(
        self, seen: SeenChanges, *, reader: str, run: str, since: datetime, base: SeenState | None
    ) -> None:
        """Store what a run has seen, before the run moves the cursor to ``seen.until``.

        :param reader: what was searched for.
        :param run: the run's name.
        :param since: the position from which the run moves the cursor.
        :param base: the state with which the run began; it stays.

        Changes that don't fit are forgotten; ``seen.since`` is then later.
        """
        # A state ahead of the cursor was never committed, or the cursor was set back. It is replaced first.
        known = [entry for entry in base.runs if api_time(entry[0]) <= since] if base is not None else []
        runs = [*(known or [[iso_time(since), ""]]), [iso_time(seen.until), run]][-RUNS:]
        ahead = [slot for slot, until in self._untils.items() if until > since]
        slot = next(slot for slot in (*ahead, *SLOTS) if slot in ahead or base is None or slot != base.slot)
        entries = {"reader": reader, "runs": runs}
        replaced = self._blocks.get(slot, 0)
        write_seen(self._store, self._key + slot, seen, seen.blocks(), entries, replaced)


def seen_keys(cursor_key: str) -> Iterator[str]:
    """Yield all keys that can be in use beside a cursor, so that they can be deleted with it."""
    for slot in SLOTS:
        yield from _keys(f"{cursor_key}~{slot}")


def write_seen(
    store: StateStore,
    key: str,
    seen: SeenChanges,
    blocks: Sequence[str],
    entries: Mapping[str, Any],
    replaced: int = 0,
) -> None:
    """Store what was seen under a key, and under further keys that begin with it. The head is written last.

    :param blocks: the blocks of what was seen.
    :param entries: further entries of the head.
    :param replaced: how many old blocks there are.
    """
    keys = list(_keys(key))
    span = {"since": iso_time(seen.since), "until": iso_time(seen.until)}
    write_blocks(store, keys, blocks, {"version": VERSION, **span, **entries})
    for block_key in keys[max(len(blocks), 1) : replaced]:
        store.delete(block_key)


def write_blocks(
    store: StateStore, keys: Sequence[str], blocks: Sequence[str], entries: Mapping[str, Any]
) -> None:
    """Store texts under keys: the first text in the head, which is written last.

    :param keys: the head's key, and at least one key for each further text.
    :param entries: further entries of the head.
    """
    for key, block in zip(keys[1:], blocks[1:], strict=False):
        store.set(key, block)
    first = blocks[0] if blocks else ""
    store.set(keys[0], {**entries, "blocks": len(blocks), "digest": _digest(blocks), "first": first})


def read_seen(store: StateStore, key: str) -> SeenChanges:
    """Return what ``write_seen`` has stored.

    :raises InvalidState: if a part is missing, or belongs to something else.
    """
    head = read_head(store, key, (VERSION,)) or {}
    blocks = read_blocks(store, list(_keys(key)), head)
    try:
        return SeenChanges.of(
            api_time(head.get("since"), "since"), api_time(head.get("until"), "until"), blocks
        )
    except ValueError as error:
        raise InvalidState(key, str(error)) from None


def read_blocks(store: StateStore, keys: Sequence[str], head: Mapping[str, Any]) -> list[Any]:
    """Return the texts that ``write_blocks`` has stored.

    :param head: the value under the first key.
    :raises InvalidState: if a text is missing, or belongs to something else.
    """
    count = count_in(keys[0], head, "blocks")
    blocks = [head.get("first"), *(store.get(key) for key in keys[1:count])] if count else []
    if head.get("digest") != _digest(blocks):
        raise InvalidState(keys[0], "its parts don't belong together")
    return blocks


def _keys(key: str) -> Iterator[str]:
    yield key
    yield from (key + digit for digit in DIGITS[1:MOST_BLOCKS])


def _digest(blocks: Sequence[Any]) -> str:
    return digest_of("\n".join(map(str, blocks)))


def _state(head: Mapping[str, Any], slot: str) -> SeenState:
    runs = [[str(until), str(run)] for until, run in head["runs"]]
    for until, _ in runs:
        api_time(until, "runs")
    return SeenState(
        api_time(head["since"], "since"), api_time(head["until"], "until"), str(head["reader"]), runs, slot
    )
