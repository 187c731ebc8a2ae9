"""Ending a task by triggering a run of another DAG."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.sdk.exceptions import DagRunTriggerException

__all__ = ["run_trigger"]


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
