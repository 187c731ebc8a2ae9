"""What stands around a delivery: its task's state, its payload, the requests to send it again."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.models import DagModel
from airflow.models.dagbag import DBDagBag
from airflow.models.dagrun import DagRun
from airflow.models.task_state_store import TaskStateStoreModel as State
from airflow.models.xcom import XComModel
from airflow.utils.state import TaskInstanceState
from sqlalchemy import Text, cast, func, select

from airflow_insightly_hooks.core.delivery.ledger_store import HEAD
from airflow_insightly_hooks.core.delivery.resend_requests import ResendRequest, read_requests
from airflow_insightly_hooks.core.errors import InvalidState
from airflow_insightly_hooks.core.payload import CHUNK_KEY
from airflow_insightly_hooks.database.deliveries import (
    Delivery,
    DeliveryFilter,
    TaskKey,
    WantedTasks,
    search_deliveries,
)
from airflow_insightly_hooks.database.state import DatabaseStateStore
from airflow_insightly_hooks.database.task_instances import select_task_instance

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance
    from airflow.serialization.definitions.dag import SerializedDAG
    from sqlalchemy.orm import Session

__all__ = [
    "FoundPayload",
    "Missing",
    "TaskAround",
    "delivering_dags",
    "find_delivery",
    "find_payload",
    "requests_for",
    "task_around",
]

LARGEST_XCOM = 64_000_000
"""Characters of an XCom that is read for one payload."""
SHORT = 4_096
"""Characters of an XCom that may say where its value stands: a backend's reference."""
DAGS_A_QUERY = 1_000


def delivering_dags(session: Session, dag_ids: Collection[str]) -> list[str]:
    """Return those of the DAGs that have delivered something, or have tried to; sorted."""
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
    """Return what became of a message in one task, by one of its ledgers; ``None`` if nothing is known of it.

    :param prefix: of the ledger's keys, as in ``TaskKey``.
    """
    found = search_deliveries(session, DeliveryFilter(tasks=tasks, message_ids=[message_id]), limit=1_000)
    return next((row for row in found.rows if row.key.prefix == prefix), None)


class TaskAround(NamedTuple):
    """A deliver task as Airflow has it now."""

    state: str | None
    next_try_at: datetime | None
    """When its next try is due, if it waits for one."""
    insightly_assets: tuple[str, ...]
    """The names of the assets of Insightly's records that it, or a task of its DAG, reads."""
    keeps_payloads: bool
    """Whether another task hands its payloads to it: else it reads its records itself, and keeps none."""


def task_around(session: Session, key: TaskKey) -> TaskAround:
    """Return how a deliver task stands."""
    ti: TaskInstance | None = session.scalar(select_task_instance(key))
    dag = _dag_of(session, key)
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
    """Return the requests to send a message again that its task keeps, the oldest first."""
    try:
        requests = read_requests(DatabaseStateStore(session, delivery.key._replace(prefix="")))
    except InvalidState:
        return []
    message = delivery.message.message_id
    return [one for one in requests if message in one.messages.get(delivery.key.prefix, {})]


class Missing(Enum):
    """Why a payload isn't found."""

    NOT_KEPT = "not kept"
    """The task reads its records itself: its payloads stand nowhere."""
    GONE = "gone"
    """It stands in XCom no more, or stands there otherwise."""
    TOO_LARGE = "too large"
    """The XCom is larger than what is read for a page."""
    ELSEWHERE = "elsewhere"
    """An XCom backend has it that can't be read from here."""


class FoundPayload(NamedTuple):
    """A payload's body, or why it is missing."""

    body: str | None
    missing: Missing | None


def find_payload(session: Session, key: TaskKey, message_id: str, xcom_keys: Sequence[str]) -> FoundPayload:
    """Return the body of a message, as the task that has made it has left it in XCom.

    :param key: the deliver task.
    :param xcom_keys: under which payloads can stand, besides those of chunks.
    """
    dag = _dag_of(session, key)
    if dag is None or not dag.has_task(key.task_id):
        return FoundPayload(None, Missing.GONE)
    upstream = dag.get_task(key.task_id).upstream_task_ids
    if not upstream:
        return FoundPayload(None, Missing.NOT_KEPT)
    text = cast(XComModel.value, Text)
    rows = session.execute(
        select(XComModel.task_id, XComModel.map_index, XComModel.key, func.length(text)).where(
            XComModel.dag_run_id == key.dag_run_id,
            XComModel.task_id.in_(upstream),
            XComModel.key.in_(xcom_keys) | XComModel.key.startswith(CHUNK_KEY, autoescape=True),
            text.contains(message_id, autoescape=True) | (func.length(text) < SHORT),
        )
    ).all()
    # A task's own map index first: several of them can hold the same message.
    rows = sorted(rows, key=lambda row: (row[1] != key.map_index, row[1]))
    missing = Missing.GONE
    for task_id, map_index, xcom_key, size in rows[:100]:
        if size > LARGEST_XCOM:
            missing = Missing.TOO_LARGE
            continue
        row = session.scalar(
            select(XComModel).where(
                XComModel.dag_run_id == key.dag_run_id,
                XComModel.task_id == task_id,
                XComModel.map_index == map_index,
                XComModel.key == xcom_key,
            )
        )
        try:
            value = _value(row)
        except Exception:  # whatever a backend raises; its text may hold an address
            missing = Missing.ELSEWHERE
            continue
        for payload in _payloads_in(value):
            if payload.get("message_id") == message_id and isinstance(body := payload.get("body"), str):
                return FoundPayload(body, None)
    return FoundPayload(None, missing)


def _value(row: Any) -> Any:
    """Return what an XCom holds; Airflow's own backend keeps it in the database.

    Airflow's way to read it would make whatever objects a task has named there, in the API server.
    """
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.execution_time.xcom import resolve_xcom_backend

    backend = resolve_xcom_backend()
    value = row.value
    if isinstance(value, str):
        with suppress(ValueError):  # else it is the text itself
            value = json.loads(value)
    return value if backend is BaseXCom or isinstance(value, list) else backend.deserialize_value(row)


def _payloads_in(value: object) -> Iterator[dict[str, Any]]:
    """Yield the payloads of a list, or of a list of such lists."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from [item] if isinstance(item, dict) else _payloads_in(item)


def _dag_of(session: Session, key: TaskKey) -> SerializedDAG | None:
    run = session.get(DagRun, key.dag_run_id)
    return None if run is None else DBDagBag(load_op_links=False).get_dag_for_run(run, session=session)
