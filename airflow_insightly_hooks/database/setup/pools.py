"""Airflow's pools, and the tasks of this package that use them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.models.pool import Pool
from sqlalchemy import select

from airflow_insightly_hooks.core.templates import is_template
from airflow_insightly_hooks.database.stored_workflows import (
    WORKFLOW_OPERATOR,
    dag_contents,
    latest_dags,
    stored_workflows,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["DEFAULT_POOL", "PooledTask", "pool_slots", "pooled_tasks"]

OURS = "airflow_insightly_hooks."
"""The beginning of the module names of this package's operators and sensors."""
DEFAULT_POOL = Pool.DEFAULT_POOL_NAME


class PooledTask(NamedTuple):
    """A task of this package, in the latest version of its DAG."""

    dag_id: str
    task_id: str
    pool: str
    conn_ids: frozenset[str] = frozenset()
    """The connections of the receivers that it sends to, if the DAG names them."""


def pool_slots(session: Session) -> dict[str, int]:
    """Return how many slots each pool has; -1 means no limit."""
    return {str(name): slots for name, slots in session.execute(select(Pool.pool, Pool.slots))}


def pooled_tasks(session: Session) -> list[PooledTask]:
    """Return the tasks of DAGs that use this package's operators; DAGs whose files are gone are left out."""
    latest = latest_dags(session, None)
    contents = dag_contents(session, [serialized_id for serialized_id, _ in latest.values()])
    receivers = {
        (workflow.dag_id, workflow.task_id): frozenset(
            webhook.conn_id
            for webhook in workflow.definition.webhooks
            if webhook.conn_id is not None and not webhook.is_timed  # the pending DAG sends timed ones
        )
        for workflow in stored_workflows(session, None)
        if workflow.definition is not None
    }
    return [
        task
        for dag_id, (serialized_id, _) in sorted(latest.items())
        for task in _tasks(dag_id, contents.get(serialized_id, {}), receivers)
    ]


def _tasks(
    dag_id: str, data: Mapping[str, Any], receivers: Mapping[tuple[str, str], frozenset[str]]
) -> Iterator[PooledTask]:
    for task in (serialized["__var"] for serialized in data.get("dag", {}).get("tasks", ())):
        if not task.get("_task_module", "").startswith(OURS):
            continue
        arguments = {**task, **(task.get("partial_kwargs") or {})}
        if task["task_type"] == WORKFLOW_OPERATOR:
            conn_ids = receivers.get((dag_id, task["task_id"]), frozenset())
        else:
            conn_id = None if arguments.get("uri") else arguments.get("webhook_conn_id")
            is_known = isinstance(conn_id, str) and not is_template(conn_id)
            conn_ids = frozenset([str(conn_id)] if is_known else [])
        yield PooledTask(dag_id, task["task_id"], arguments.get("pool") or DEFAULT_POOL, conn_ids)
