"""Remember the names of the kept webhooks that a task has read.

The names for the next runs are kept beside the cursor. The names for retries are kept in the run's state.

There are two memories beside the cursor: one for its present position, and one for its next position. A run
writes the second one, and then writes the cursor, which commits the run. The memories have the same keys as a
sensor's memory (``core.detection.seen_store``), so that code that deletes an old cursor deletes them, too.
Each memory names the last runs that have moved the cursor. There, a run that was killed finds out whether it
had moved the cursor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.dates import api_time, iso_time
from airflow_insightly_hooks.core.detection.changes import ChangeWindow
from airflow_insightly_hooks.core.detection.seen_changes import MOST_BLOCKS
from airflow_insightly_hooks.core.detection.seen_store import read_blocks, seen_keys, write_blocks
from airflow_insightly_hooks.core.errors import InvalidState, NewerState
from airflow_insightly_hooks.core.incoming.kept_entity import KeptName
from airflow_insightly_hooks.core.incoming.seen_names import BLOCK_NAMES, SeenNames
from airflow_insightly_hooks.core.state.state_store import StateStore, count_in, read_head
from airflow_insightly_hooks.core.state.versions import read_value

__all__ = ["MOST_NAMES", "NamesMemory", "Remembered", "ToldNames"]

VERSION = 1
KIND = "names"
RUNS = 64
"""How many runs a memory names."""
MOST_NAMES = MOST_BLOCKS * BLOCK_NAMES
"""The most names that are remembered beside a cursor."""
TOLD = "told"
"""The first part of the keys of the run's state."""


class Remembered(NamedTuple):
    """The names, received from ``since`` on, that had been read when the cursor was at ``until``."""

    since: datetime
    until: datetime
    names: SeenNames


class NamesMemory:
    """The two memories beside a cursor.

    :param store: the state store that holds the cursor.
    :param cursor_key: the cursor's key.
    """

    def __init__(self, store: StateStore, cursor_key: str) -> None:
        self._store, self._cursor_key = store, cursor_key
        keys = list(seen_keys(cursor_key))
        self._slots = [keys[: len(keys) // 2], keys[len(keys) // 2 :]]

    def of(self, cursor: datetime) -> Remembered | None:
        """Return the names that had been read when the cursor came to its position; ``None`` if not known.

        :param cursor: the cursor's position.
        :raises InvalidState: if a part of the memory is missing.
        """
        for keys in self._slots:
            if (head := self._head_at(keys, cursor)) is not None:
                since = api_time(head.get("since"), "since")
                return Remembered(since, cursor, _read(self._store, keys, head))
        return None

    def has_moved(self, until: datetime, run: str) -> bool | None:
        """Return whether a run has moved the cursor to ``until``; ``None`` if it is not known any more."""
        heads = [head for keys in self._slots if (head := self._head(keys)) is not None]
        text = read_value(self._store, self._cursor_key)
        if text is None:
            return False if heads else None
        # A memory that is ahead of the cursor was written by a run that then didn't move the cursor.
        cursor = api_time(text, self._cursor_key)
        moves = [move for head in heads for move in head["runs"] if api_time(head["until"]) <= cursor]
        if [iso_time(until), run] in moves:
            return True
        return False if moves and api_time(min(moves)[0]) < until else None

    def keep(
        self,
        names: Sequence[KeptName],
        since: datetime,
        until: datetime,
        cursor: datetime | None,
        run: str,
    ) -> bool:
        """Remember names, before the cursor is moved to ``until``.

        :param names: all names that were read from ``since`` on, in their order.
        :param since: the time from which the names are complete.
        :param until: the cursor's next position.
        :param cursor: the cursor's present position, whose memory stays; ``None`` if there is no cursor yet.
        :param run: the run's name.
        :returns: whether all names fit. If not, the earliest ones are dropped.
        """
        fits = len(names) <= MOST_NAMES
        if not fits:
            # Names with the same time are dropped together.
            since = names[-MOST_NAMES - 1].received_at + timedelta(microseconds=1)
            names = [name for name in names if name.received_at >= since]
        before = [head["runs"] for keys in self._slots if (head := self._head_at(keys, cursor)) is not None]
        runs = before[0] if before else [[iso_time(since if cursor is None else cursor), ""]]
        entries = {
            "kind": KIND,
            "since": iso_time(since),
            "until": iso_time(until),
            "runs": [*runs, [iso_time(until), run]][-RUNS:],
        }
        slot, *others = self._slots_besides(cursor)
        for keys in others:  # the cursor was set by hand, so the memory of another position is of no use
            self._store.delete(keys[0])
        _write(self._store, slot, names, entries)
        return fits

    def _slots_besides(self, cursor: datetime | None) -> list[list[str]]:
        """Return the keys of the memories that may be overwritten: all but that of the present position."""
        return [keys for keys in self._slots if cursor is None or self._head_at(keys, cursor) is None]

    def _head_at(self, keys: Sequence[str], cursor: datetime | None) -> Mapping[str, Any] | None:
        """Return the memory's head if it is for the cursor's position, else ``None``."""
        head = self._head(keys)
        is_at = head is not None and cursor is not None and head["until"] == iso_time(cursor)
        return head if is_at else None

    def _head(self, keys: Sequence[str]) -> Mapping[str, Any] | None:
        try:
            head = read_head(self._store, keys[0], (VERSION,))
        except NewerState:  # without this memory, webhooks would be read twice
            raise
        except InvalidState:
            return None
        return head if head is not None and head.get("kind") == KIND else None


class ToldNames:
    """The names that a run has read, in its task's state.

    :param store: the task's state. Its values must last as long as the run.
    """

    def __init__(self, store: StateStore) -> None:
        self._store = store

    def of(self, window: ChangeWindow) -> Remembered | None:
        """Return the names that an earlier try has read for a window; ``None`` if no such try is known.

        :raises InvalidState: if a part of the names is missing.
        """
        head = read_head(self._store, TOLD, (VERSION,))
        if head is None or head.get("window") != window.as_dict():
            return None
        keys = list(islice(_told_keys(), count_in(TOLD, head, "blocks")))
        names = _read(self._store, keys or [TOLD], head)
        return Remembered(api_time(head.get("since"), "since"), window.end, names)

    def keep(self, window: ChangeWindow, names: Sequence[KeptName]) -> None:
        """Keep the names that this try has read."""
        count = -(-len(names) // BLOCK_NAMES)
        since = names[0].received_at if names else window.end
        entries = {"window": window.as_dict(), "since": iso_time(since)}
        _write(self._store, list(islice(_told_keys(), max(count, 1))), names, entries)


def _told_keys() -> Iterator[str]:
    yield TOLD
    number = 0
    while True:
        number += 1
        yield f"{TOLD}/{number}"


def _write(
    store: StateStore, keys: Sequence[str], names: Iterable[KeptName], entries: Mapping[str, Any]
) -> None:
    """Keep names under keys."""
    write_blocks(store, keys, list(SeenNames(names).blocks()), {"version": VERSION, **entries})


def _read(store: StateStore, keys: Sequence[str], head: Mapping[str, Any]) -> SeenNames:
    blocks = read_blocks(store, keys, head)
    try:
        return SeenNames.of(blocks)
    except ValueError as error:
        raise InvalidState(keys[0], str(error)) from None
