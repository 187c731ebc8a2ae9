"""The versions of stored values: older ones are read, and those of a newer release are refused.

Each kind of stored value has versions of its own. What a value is in its versions, its own module says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from airflow_insightly_hooks.core.errors import NewerState

__all__ = ["check_version", "is_newer", "read_value"]


class _Readable(Protocol):
    def get(self, key: str, default: Any = None, /) -> Any: ...


def read_value(store: _Readable, key: str, default: Any = None, *, latest: int = 1) -> Any:
    """Return the value that is stored under ``key``, ``default`` where there is none.

    :param latest: the latest version of the value that the caller can read.
    :raises NewerState: if it is of a later version.
    """
    value = store.get(key, default)
    check_version(key, value, latest)
    return value


def is_newer(value: object, latest: int = 1) -> bool:
    """Return whether a newer release has written a value, for readers that can do without it."""
    version = _version_in(value)
    return version is not None and version > latest


def check_version(key: str, value: object, latest: int = 1) -> None:
    """Refuse a value that a newer release has written.

    A value of version 2 or later is an object with its ``version``. One without is of version 1, also a text
    or a list.

    :param key: what the value is stored under.
    :param latest: the latest version that the caller can read.
    :raises NewerState: if it is of a later version.
    """
    version = _version_in(value)
    if version is not None and version > latest:
        raise NewerState(key, version, latest)


def _version_in(value: object) -> int | None:
    version = value.get("version") if isinstance(value, Mapping) else None
    return version if isinstance(version, int) and not isinstance(version, bool) else None
