"""Details of a delivery: the state of its task, and the requests to send it again."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from airflow.models import DagModel
from airflow.models.task_state_store import TaskStateStoreModel as State
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select

from airflow_insightly_hooks.core.delivery.ledger_store import HEAD
from airflow_insightly_hooks.core.delivery.resend_requests import ResendRequest, read_requests
from airflow_insightly_hooks.core.errors import InvalidState
from airflow_insightly_hooks.database.deliveries import (
    Delivery,
    DeliveryFilter,
    TaskKey,
    WantedTasks,
    search_deliveries,
)
from airflow_insightly_hooks.database.state import DatabaseStateStore
from airflow_insightly_hooks.database.task_instances import dag_of, select_task_instance

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy.orm import Session

__all__ = [
    "TaskAround",
    "delivering_dags",
    "find_delivery",
    "requests_for",
    "task_around",
]

DAGS_A_QUERY = 1_000


def delivering_dags(session: Session, dag_ids: Collection[str]) -> list[str]:
    """Return the DAGs that have delivered a message, or have tried to; sorted."""
    has_ledger = (
        select(State.id).where(State.dag_id == DagModel.dag_id, State.key.like(f"%{HEAD}/%/head")).exists()
    )
    ids = sorted(dag_ids)
    found: list[str] = []
    for start in range(0, len(ids), DAGS_A_QUERY):
        part = ids[start : start + DAGS_A_QUERY]
        found += session.scalars(select(DagModel.dag_id).where(DagModel.dag_id.in_(part), has_ledger))
    return sorted(found)


def find_delivery(session: Session, tasks: WantedTasks, prefix: str, message_id: str) -> Delivery | None:
    """Return the delivery of a message by one task, from one of its ledgers; ``None`` if there is none.

    :param prefix: the prefix of the ledger's keys, as in ``TaskKey``.
    """
    found = search_deliveries(session, DeliveryFilter(tasks=tasks, message_ids=[message_id]), limit=1_000)
    return next((row for row in found.rows if row.key.prefix == prefix), None)


class TaskAround(NamedTuple):
    """The current state of a deliver task in Airflow."""

    state: str | None
    next_try_at: datetime | None
    """When its next try is due, if the task waits for one."""
    insightly_assets: tuple[str, ...]
    """The names of the assets of Insightly's records that the task, or another task of its DAG, reads."""
    keeps_payloads: bool
    """Whether the task gets its payloads from another task. If not, it reads its records itself, and its
    payloads are not stored."""


def task_around(session: Session, key: TaskKey) -> TaskAround:
    """Return the current state of a deliver task."""
    ti: TaskInstance | None = session.scalar(select_task_instance(key))
    dag = dag_of(session, key)
    task = dag.get_task(key.task_id) if dag is not None and dag.has_task(key.task_id) else None
    at = None
    if ti is not None and ti.state == TaskInstanceState.UP_FOR_RETRY and task is not None:
        ti.task = task
        at = ti.next_retry_datetime()
    names = {
        str(name)
        for one in ([task] if task is not None else []) + (list(dag.tasks) if dag is not None else [])
        for asset in one.inlets
        if (name := getattr(asset, "name", "")) and str(getattr(asset, "uri", "")).startswith("insightly:")
    }
    keeps = task is None or bool(task.upstream_task_ids)
    return TaskAround(ti.state if ti is not None else None, at, tuple(sorted(names)), keeps)


def requests_for(session: Session, delivery: Delivery) -> list[ResendRequest]:
    """Return the requests to send a message again that its task's state holds, the oldest first."""
    try:
        requests = read_requests(DatabaseStateStore(session, delivery.key._replace(prefix="")))
    except InvalidState:
        return []
    message = delivery.message.message_id
    return [one for one in requests if message in one.messages.get(delivery.key.prefix, {})]
