"""Refuse a run that started in the workflow's other mode, so that the changes it read aren't silently lost.

Airflow continues an active run with the DAG's new tasks, and removes tasks that the DAG no longer has, even
if they are not finished. The changes that the run has read are behind the cursor: no other run reads them.
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
    """A run started in the workflow's other mode and has read changes that no task delivers now.

    Cause: Raised when a workflow's ``mode`` was changed while a run was active. Airflow has removed the run's
    old tasks.

    Remedy: To send what is missing, give the workflow its old mode again, clear all tasks of the run, and
    change the mode when no run is active. If nothing is missing, clear the task that failed: it then
    continues from the cursor.

    :param mode: the mode in which the run started.
    :param task_id: the id of the removed task, which has read changes.
    """

    def __init__(self, mode: str, task_id: str) -> None:
        super().__init__(mode, task_id)
        self.mode = mode
        self.task_id = task_id

    def __str__(self) -> str:
        return (
            f"this run started while the workflow had the mode {self.mode!r}: its task {self.task_id!r} has "
            f"read changes, and Airflow has removed that task. Changes that it had not delivered are not "
            f"sent. To send them, give the workflow the mode {self.mode!r} again, clear all tasks of this "
            f"run, and change the mode when no run is active. If nothing is missing, clear this task: it "
            f"then continues from the cursor"
        )


def check_mode(context: Context) -> None:
    """Refuse a run that started in the other mode. After the task is cleared, the run may continue.

    This is the ``pre_execute`` of the task that reads changes. A retry checks again, since an earlier try may
    have ended before its check.

    :raises OtherModeError: if the other mode's task has read changes in this run.
    """
    ti: Any = context["ti"]
    is_cleared = ti.max_tries > (ti.task.retries or 0)  # Airflow raises max_tries when a task is cleared
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
