"""A task's state store: values that last as long as the run does, and a part of a store."""

from __future__ import annotations

from typing import Any

from airflow.sdk.execution_time.context import NEVER_EXPIRE

__all__ = ["PrefixedStore", "TaskState"]


class TaskState:
    """A task's state store whose values last as long as its run does, not Airflow's 30 days.

    :param store: ``context["task_state_store"]``.
    """

    def __init__(self, store: Any) -> None:
        self.get = store.get
        self.delete = store.delete
        self._set = store.set

    def set(self, key: str, value: Any) -> None:
        """Keep a JSON value under a key."""
        self._set(key, value, retention=NEVER_EXPIRE)


class PrefixedStore:
    """The keys of a state store that begin with a prefix."""

    def __init__(self, store: Any, prefix: str) -> None:
        self._store, self._prefix = store, prefix

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value under the key."""
        return self._store.get(self._prefix + key, default)

    def set(self, key: str, value: Any) -> None:
        """Keep a value under the key."""
        self._store.set(self._prefix + key, value)

    def delete(self, key: str) -> None:
        """Forget the key."""
        self._store.delete(self._prefix + key)
