"""Trigger a run from a task, at the task's end or while it runs; the run starts at once or at a set time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowRuntimeError, DagRunTriggerException, ErrorType

from airflow_insightly_hooks.core.dates import iso_time, rounded_up

__all__ = ["run_trigger", "start_run", "wake_up_run_id", "wake_up_time"]

WAKE_UP_STEP = timedelta(seconds=10)
"""Wake-up runs start at whole multiples of it, so that one run sends webhooks that are due close together."""


def run_trigger(
    dag_id: str, run_id: str, conf: dict[str, Any], run_after: datetime | None = None
) -> DagRunTriggerException:
    """Return the exception that ends a task by triggering a run, once for each run id.

    It is the exception that ``TriggerDagRunOperator`` raises.

    :param run_after: when the run may start; ``None`` starts it at once.
    """
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
    """Trigger a run from a task that continues, once for each run id.

    :returns: ``True`` if the run is new, ``False`` if it exists already.
    :raises AirflowRuntimeError: if Airflow refuses, for example because it doesn't know the DAG.
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
    """Return the time of the run that sends the webhooks that are due at ``due``."""
    return rounded_up(due, WAKE_UP_STEP)


def wake_up_run_id(due: datetime) -> str:
    """Return the id of the run that sends the webhooks that are due at ``due``."""
    return f"due__{iso_time(wake_up_time(due))}"
