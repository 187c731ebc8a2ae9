"""A state store as the core sees it, and the head under which something is kept in several of its values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from airflow_insightly_hooks.core.errors import InvalidState

__all__ = ["StateStore", "count_in", "on_failure", "read_head"]


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


def read_head(store: StateStore, key: str, version: int) -> Mapping[str, Any] | None:
    """Return the head that was stored under ``key``; ``None`` where there is none.

    :raises InvalidState: if it is of another version than ``version``, or no head at all.
    """
    head = store.get(key)
    if head is None:
        return None
    if not isinstance(head, Mapping):
        raise InvalidState(key, "it is not an object")
    if count_in(key, head, "version") != version:
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
