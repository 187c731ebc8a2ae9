"""The interface of a state store, and the head of something that is kept in several of its values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from airflow_insightly_hooks.core.errors import InvalidState
from airflow_insightly_hooks.core.state.versions import check_version

__all__ = ["KEPT", "Head", "StateStore", "count_in", "on_failure", "read_head"]

VERSION = 2
"""The version of heads whose loss is noticed."""
KEPT = "kept"
"""The last part of the key of the note that there is a head."""


class StateStore(Protocol):
    """A store of JSON values by key, such as Airflow's stores for tasks and for assets.

    A value is not ``None``. Airflow refuses values above 65,535 bytes. A call takes about 10 ms.
    """

    def get(self, key: str, default: Any = None, /) -> Any:
        """Return the value under the key, or ``default`` if there is no value."""

    def set(self, key: str, value: Any, /) -> None:
        """Store a value under the key."""

    def delete(self, key: str, /) -> None:
        """Delete the value under the key, if there is one."""


@contextmanager
def on_failure(forget: Callable[[], None]) -> Iterator[None]:
    """Call ``forget`` if the block fails, because then it is not known which of its writes were done."""
    try:
        yield
    except BaseException:
        forget()
        raise


class Head:
    """The value that lists the other values in which something is kept: its parts, under ``{key}/<number>``.

    Under ``{key}/kept`` is a note that there is a head, so that a lost head is noticed. A head without parts
    is written first, then the note, then the first part. So a crash never leaves a note without a head. A
    head of version 1 may lack the note.

    :param store: the store that holds the head.
    :param key: the head's key.
    :param empty: a head without parts; its version is 1.
    :ivar empty: that head.
    """

    def __init__(self, store: StateStore, key: str, empty: Mapping[str, Any]) -> None:
        self._store = store
        self._key = key
        self.empty = {"version": 1, **empty}
        self._version = 0  # the version of the stored head; 0: there is no head

    def read(self) -> Mapping[str, Any] | None:
        """Return the head; ``None`` if there has never been one.

        :raises InvalidState: if the head is missing although there are parts, if this version can't read it,
            or if the value is not a head.
        """
        head = read_head(self._store, self._key, (1, VERSION))
        self._version = 0 if head is None else head["version"]
        if head is None:
            for left in (f"{self._key}/{KEPT}", f"{self._key}/0"):
                if self._store.get(left) is not None:
                    raise InvalidState(
                        self._key,
                        f"it is missing, but {left!r} is there, so it is not known what was kept. Restore "
                        f"it. Or delete {left!r}, too, to begin with nothing",
                    )
        return head

    def prepare(self) -> None:
        """Make sure that a loss of the head is noticed. Call it before a new part is written."""
        if self._version == 0:
            self._store.set(self._key, self.empty)
            self._version = 1
        if self._version == 1:
            self._store.set(f"{self._key}/{KEPT}", True)

    def write(self, head: Mapping[str, Any]) -> None:
        """Store the head. Call it after ``prepare``, and after the new parts are stored."""
        self._store.set(self._key, {"version": VERSION, **head})
        self._version = VERSION


def read_head(store: StateStore, key: str, versions: Collection[int]) -> Mapping[str, Any] | None:
    """Return the head that is stored under ``key``; ``None`` if there is no value, lost or never written.

    :param versions: the versions that the caller can read.
    :raises InvalidState: if the head has another version, or the value is not a head.
    """
    head = store.get(key)
    if head is None:
        return None
    if not isinstance(head, Mapping):
        raise InvalidState(key, "it is not an object")
    version = count_in(key, head, "version")
    check_version(key, head, max(versions))
    if version not in versions:
        raise InvalidState(key, f"there is no version {version} of it")
    return head


def count_in(key: str, head: Mapping[str, Any], name: str) -> int:
    """Return the number, 0 or more, that the head has under ``name``.

    :param key: the key of the head.
    :raises InvalidState: if there is no such number.
    """
    value = head.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidState(key, f"its {name} is missing")
    return value
