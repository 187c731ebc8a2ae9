"""Triggering a run from a task: at its end, or while it goes on; at once, or when something is due."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowRuntimeError, DagRunTriggerException, ErrorType

from airflow_insightly_hooks.core.dates import iso_time, rounded_up

__all__ = ["run_trigger", "start_run", "wake_up_run_id", "wake_up_time"]

WAKE_UP_STEP = timedelta(seconds=10)
"""Wake-ups are at whole multiples of it, so that what is due closely together goes together."""


def run_trigger(
    dag_id: str, run_id: str, conf: dict[str, Any], run_after: datetime | None = None
) -> DagRunTriggerException:
    """Return what ends a task by triggering a run, once for each run id (see ``TriggerDagRunOperator``)."""
    return DagRunTriggerException(
        trigger_dag_id=dag_id,
        dag_run_id=run_id,
        conf=conf,
        run_after=run_after,
        reset_dag_run=False,
        skip_when_already_exists=True,
        wait_for_completion=False,
        allowed_states=[],
        failed_states=[],
        poke_interval=60,
        deferrable=False,
    )


def start_run(dag_id: str, run_id: str, conf: dict[str, Any]) -> bool:
    """Trigger a run from within a task that goes on, once for each run id.

    :returns: whether there was no such run before.
    :raises AirflowRuntimeError: if Airflow refuses, such as for a DAG that it doesn't know.
    """
    from airflow.sdk.execution_time.comms import ErrorResponse, TriggerDagRun
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    answer = SUPERVISOR_COMMS.send(TriggerDagRun(dag_id=dag_id, run_id=run_id, conf=conf))
    if not isinstance(answer, ErrorResponse):
        return True
    if answer.error == ErrorType.DAGRUN_ALREADY_EXISTS:
        return False
    raise AirflowRuntimeError(answer)


def wake_up_time(due: datetime) -> datetime:
    """Return the moment of the run that takes what is due then."""
    return rounded_up(due, WAKE_UP_STEP)


def wake_up_run_id(due: datetime) -> str:
    """Return the id of the run that is queued for what is due then."""
    return f"due__{iso_time(wake_up_time(due))}"
