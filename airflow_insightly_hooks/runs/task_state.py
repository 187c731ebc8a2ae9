"""State of a task that must not expire while its run exists."""

from __future__ import annotations

from typing import Any

from airflow.sdk.execution_time.context import NEVER_EXPIRE

__all__ = ["TaskState"]


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
