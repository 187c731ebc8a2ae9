"""A state store as the core sees it, and the head under which something is kept in several of its values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from airflow_insightly_hooks.core.errors import InvalidState

__all__ = ["KEPT", "Head", "StateStore", "count_in", "on_failure", "read_head"]

VERSION = 2
"""Of heads whose loss is noticed."""
KEPT = "kept"
"""The last part of the key of the note that there is a head."""


class StateStore(Protocol):
    """A store of JSON values by key, such as Airflow's for tasks and for assets.

    A value is not ``None``, and Airflow takes none above 65,535 bytes. A call costs about 10 ms.
    """

    def get(self, key: str, default: Any = None, /) -> Any:
        """Return the value under the key, ``default`` where there is none."""

    def set(self, key: str, value: Any, /) -> None:
        """Keep a value under the key."""

    def delete(self, key: str, /) -> None:
        """Forget the key, if there is one."""


@contextmanager
def on_failure(forget: Callable[[], None]) -> Iterator[None]:
    """Call ``forget`` if the block fails: which of its writes were done is not known then."""
    try:
        yield
    except BaseException:
        forget()
        raise


class Head:
    """The value that says which other values something is kept in: its parts, under ``{key}/<number>``.

    Under ``{key}/kept`` is a note that there is a head, so that a lost head is noticed. The note is
    written before the first part, and before it a head without parts: a crash leaves no note without a head.
    A head of version 1 may lack the note.

    :param store: where it is kept.
    :param key: the head's key.
    :param empty: a head without parts; its version is 1.
    :ivar empty: that head.
    """

    def __init__(self, store: StateStore, key: str, empty: Mapping[str, Any]) -> None:
        self._store = store
        self._key = key
        self.empty = {"version": 1, **empty}
        self._version = 0  # of what is stored; 0 is none

    def read(self) -> Mapping[str, Any] | None:
        """Return the head; ``None`` where there has never been one.

        :raises InvalidState: if it is missing although parts are there, if it was written by a version that
            this one can't read, or if it is no head at all.
        """
        head = read_head(self._store, self._key, (1, VERSION))
        self._version = 0 if head is None else head["version"]
        if head is None:
            for left in (f"{self._key}/{KEPT}", f"{self._key}/0"):
                if self._store.get(left) is not None:
                    raise InvalidState(
                        self._key,
                        f"it is missing, yet {left!r} is there: it can't be told what was kept. Put it back, "
                        f"or delete {left!r}, too, to begin with nothing (docs/reference/workflow-files.md)",
                    )
        return head

    def prepare(self) -> None:
        """Make sure that the loss of the head is noticed; to be called before a new part is written."""
        if self._version == 0:
            self._store.set(self._key, self.empty)
            self._version = 1
        if self._version == 1:
            self._store.set(f"{self._key}/{KEPT}", True)

    def write(self, head: Mapping[str, Any]) -> None:
        """Store the head, after ``prepare`` and the parts that are new in it."""
        self._store.set(self._key, {"version": VERSION, **head})
        self._version = VERSION


def read_head(store: StateStore, key: str, versions: Collection[int]) -> Mapping[str, Any] | None:
    """Return the head that is stored under ``key``; ``None`` where there is no value, lost or never written.

    :param versions: those that the caller can read.
    :raises InvalidState: if it is of another version, or no head at all.
    """
    head = store.get(key)
    if head is None:
        return None
    if not isinstance(head, Mapping):
        raise InvalidState(key, "it is not an object")
    if count_in(key, head, "version") not in versions:
        raise InvalidState(key, "it was written by another version of airflow-insightly-hooks")
    return head


def count_in(key: str, head: Mapping[str, Any], name: str) -> int:
    """Return the number, 0 or more, that the head has under ``name``.

    :param key: what the head is stored under.
    :raises InvalidState: if there is no such number.
    """
    value = head.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidState(key, f"its {name} is missing")
    return value
