"""The rows of deliver tasks in Airflow's database, and the meaning of their states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.models.dagbag import DBDagBag
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.utils.state import TaskInstanceState
from sqlalchemy import Select, select

if TYPE_CHECKING:
    from airflow.serialization.definitions.dag import SerializedDAG
    from sqlalchemy.orm import Session

    from airflow_insightly_hooks.database.deliveries import TaskKey

__all__ = ["ENDED_STATES", "RUNNING_STATES", "dag_of", "select_task_instance"]

RUNNING_STATES = (TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING)
ENDED_STATES = (
    TaskInstanceState.SUCCESS,
    TaskInstanceState.FAILED,
    TaskInstanceState.SKIPPED,
    TaskInstanceState.UPSTREAM_FAILED,
)


def select_task_instance(key: TaskKey) -> Select[Any]:
    """Return the query for a task's row."""
    return select(TaskInstance).where(
        TaskInstance.dag_id == key.dag_id,
        TaskInstance.run_id == key.run_id,
        TaskInstance.task_id == key.task_id,
        TaskInstance.map_index == key.map_index,
    )


def dag_of(session: Session, key: TaskKey) -> SerializedDAG | None:
    """Return the DAG of a task, in the version of its run; ``None`` if the run or the DAG is gone."""
    run = session.get(DagRun, key.dag_run_id)
    return None if run is None else DBDagBag(load_op_links=False).get_dag_for_run(run, session=session)
