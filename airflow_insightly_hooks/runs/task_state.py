"""State stores for tasks: with values that last as long as a run, with a key prefix, or without writing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.execution_time.context import NEVER_EXPIRE

from airflow_insightly_hooks.runs.airflow_runs import is_test

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

    from airflow_insightly_hooks.core.state.state_store import StateStore

__all__ = ["PrefixedStore", "TaskState", "UnwrittenStore", "memory_of"]


def memory_of(context: Context, asset: Asset, *, is_dry_run: bool = False) -> tuple[StateStore, StateStore]:
    """Return the asset's state and the task's state. A test or a dry run doesn't write to them."""
    stores = context["asset_state_store"][asset], TaskState(context["task_state_store"])
    if is_test(context) or is_dry_run:
        return UnwrittenStore(stores[0]), UnwrittenStore(stores[1])
    return stores


class TaskState:
    """A task's state store whose values last as long as the run, not only Airflow's 30 days.

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
    """A part of a state store: it puts a prefix before each key."""

    def __init__(self, store: Any, prefix: str) -> None:
        self._store, self._prefix = store, prefix

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value under the key."""
        return self._store.get(self._prefix + key, default)

    def set(self, key: str, value: Any) -> None:
        """Keep a value under the key."""
        self._store.set(self._prefix + key, value)

    def delete(self, key: str) -> None:
        """Delete the key."""
        self._store.delete(self._prefix + key)


class UnwrittenStore:
    """A state store that doesn't write. It keeps new values in this object, and reads others from a store."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._written: dict[str, Any] = {}  # None stands for a deleted value

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value under the key."""
        value = self._written[key] if key in self._written else self._store.get(key)
        return default if value is None else value

    def set(self, key: str, value: Any, **_retention: Any) -> None:
        """Keep a value under the key, in this object."""
        self._written[key] = value

    def delete(self, key: str) -> None:
        """Delete the key, in this object."""
        self._written[key] = None
