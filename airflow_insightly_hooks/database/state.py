"""State stores in Airflow's database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow._shared.timezones import timezone
from airflow.models.task_state_store import TaskStateStoreModel as State
from sqlalchemy import select

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from airflow_insightly_hooks.database.deliveries import TaskKey

__all__ = ["DatabaseStateStore", "StoredValues"]


class DatabaseStateStore:
    """The part of a task's state whose keys begin with a prefix. Values that are set last as long as the run.

    :param session: reads and writes belong to this session's transaction.
    :param key: the task, and the prefix.
    """

    def __init__(self, session: Session, key: TaskKey) -> None:
        self._session, self._key = session, key

    def _row(self, name: str) -> State | None:
        key = self._key
        return self._session.scalar(
            select(State).where(
                State.dag_run_id == key.dag_run_id,
                State.task_id == key.task_id,
                State.map_index == key.map_index,
                State.key == key.prefix + name,
            )
        )

    def get(self, key: str, default: Any = None, /) -> Any:
        """Return the value under the key."""
        row = self._row(key)
        return default if row is None else json.loads(row.value)

    def set(self, key: str, value: Any, /) -> None:
        """Store a value under the key."""
        row = self._row(key)
        if row is None:
            row = State(**{name: getattr(self._key, name) for name in _SCOPE}, key=self._key.prefix + key)
            self._session.add(row)
        row.value, row.updated_at, row.expires_at = json.dumps(value), timezone.utcnow(), None
        self._session.flush()

    def delete(self, key: str, /) -> None:
        """Delete the key and its value."""
        if (row := self._row(key)) is not None:
            self._session.delete(row)
            self._session.flush()


class StoredValues:
    """A read-only state store of values that were already read.

    :param values: the values by key.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def get(self, key: str, default: Any = None, /) -> Any:
        """Return the value under the key."""
        return self._values.get(key, default)

    def set(self, key: str, value: Any, /) -> None:
        """Raise ``NotImplementedError``: the store is read-only."""
        raise NotImplementedError(key)

    def delete(self, key: str, /) -> None:
        """Raise ``NotImplementedError``: the store is read-only."""
        raise NotImplementedError(key)


_SCOPE = ("dag_run_id", "dag_id", "run_id", "task_id", "map_index")
