"""A run that was begun in a workflow's other mode: what it has read must not be forgotten in silence.

Airflow has an active run go on with the DAG's new tasks, and removes those that the DAG no longer has,
whatever they have left to do. What was read in that run is behind the cursor, so no other run reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from airflow_insightly_hooks.core.errors import InsightlyHooksError
from airflow_insightly_hooks.core.workflow.definition import ONE_TASK, Mode
from airflow_insightly_hooks.core.workflow.task_ids import DETECT, DETECT_AND_DELIVER
from airflow_insightly_hooks.runs.windows import WINDOW

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["OtherModeError", "check_mode"]

READING_TASK: Mapping[Mode, str] = {"tasks": DETECT, ONE_TASK: DETECT_AND_DELIVER}
"""The task that reads changes, by mode."""


class OtherModeError(InsightlyHooksError, AirflowFailException):
    """Fails a run that was begun in the other ``mode``, in which ``task_id`` has read changes."""

    def __init__(self, mode: str, task_id: str) -> None:
        super().__init__(mode, task_id)
        self.mode = mode
        self.task_id = task_id

    def __str__(self) -> str:
        return (
            f"this run was begun while the workflow had the mode {self.mode!r}: its task {self.task_id!r} "
            f"has read changes, Airflow has removed it, and what was not delivered by then is not sent. To "
            f"send it, give the workflow the mode {self.mode!r} again, clear all tasks of this run, and "
            f"change the mode once no run is active. If nothing is missing, clear this task: it then reads "
            f"on from the cursor"
        )


def check_mode(context: Context) -> None:
    """Refuse a run that was begun in the other mode; once the task is cleared, let it go on.

    It is the ``pre_execute`` of the task that reads changes. A retry asks again, since an earlier try may
    have ended before it could.

    :raises OtherModeError: if the other mode's task has read changes in this run.
    """
    ti: Any = context["ti"]
    is_cleared = ti.max_tries > (ti.task.retries or 0)  # Airflow raises it when a task is cleared
    if ti.try_number > 1 and is_cleared:
        return
    group, dot, own = ti.task_id.rpartition(".")
    for mode, task_id in READING_TASK.items():
        other = f"{group}{dot}{task_id}"
        if task_id == own:
            continue
        map_index = -1 if ti.map_index is None else ti.map_index
        if isinstance(ti.xcom_pull(task_ids=other, key=WINDOW, map_indexes=map_index), Mapping):
            raise OtherModeError(mode, other)
