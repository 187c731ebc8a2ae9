"""Sending messages again: a request in the deliver task's state, and the task is cleared.

Both happen in one transaction, which holds the rows of the run and of the task instance: so two requests at
once, the scheduler and a try that is just beginning take turns. A task that has not begun its next try yet
takes the request along without being cleared. Who may do this is decided by whoever calls.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from airflow.models import DagModel
from airflow.models.dagbag import DBDagBag
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.models.xcom import XComModel
from airflow.utils.state import State, TaskInstanceState
from sqlalchemy import select

from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.delivery.delivery_record import about_of
from airflow_insightly_hooks.core.delivery.resend_requests import ResendRequest, add_request
from airflow_insightly_hooks.core.delivery.stored_deliveries import DRY_RUN, LEFT, StoredLedger
from airflow_insightly_hooks.core.errors import InvalidState
from airflow_insightly_hooks.database.state import DatabaseStateStore

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from airflow_insightly_hooks.database.deliveries import Delivery, TaskKey

__all__ = ["CLEARED", "JOINED", "REFUSED", "Resend", "latest_of_each", "resend"]

CLEARED, JOINED, REFUSED = "cleared", "joined", "refused"
"""The task was cleared; it has a try before it that sends them; or they can't be sent again."""
EVENT = "insightly_resend"
"""The event in Airflow's audit log."""
RUNNING = (TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING)
ENDED = (
    TaskInstanceState.SUCCESS,
    TaskInstanceState.FAILED,
    TaskInstanceState.SKIPPED,
    TaskInstanceState.UPSTREAM_FAILED,
)
GONE = (
    "clear the run's first task, which reads the records as they are now, or start a run over the same window"
)
NO_DRY_RUN = "clear the task once the workflow is none, or start a run over the same window"


class Resend(NamedTuple):
    """What came of a request for the messages of one task."""

    key: TaskKey
    messages: int
    outcome: str
    """``cleared``, ``joined`` or ``refused``."""
    reason: str
    """Why it was refused, and the way out; else what the messages wait for, if it is not the scheduler."""


def resend(session: Session, deliveries: Sequence[Delivery], *, by: str, what: str) -> Iterator[Resend]:
    """Ask for messages to be sent again, task by task; yield what came of it.

    :param session: committed after each task, so that what was asked for stays.
    :param deliveries: what is to be sent, as a search has found it; acknowledged ones, too.
    :param by: who asks, for the task's log and Airflow's audit log.
    :param what: what was asked for, in words; likewise.
    """
    for key, group in groupby(sorted(deliveries, key=lambda d: _task(d.key)), key=lambda d: _task(d.key)):
        found = list(group)
        try:
            outcome, reason = _ask(session, found, by, what)
        except InvalidState as error:
            outcome, reason = REFUSED, str(error)
        if outcome == REFUSED:
            session.rollback()
        else:
            session.commit()
        yield Resend(key, len(found), outcome, reason)


def latest_of_each(deliveries: Iterable[Delivery]) -> list[Delivery]:
    """Return one delivery of each message to each receiver: of several tasks, that of the last one.

    A task that has left it to a retry DAG, or was a dry run, counts only if no other task has had it.

    :param deliveries: newest first.
    """
    found: dict[tuple[str, str | None], Delivery] = {}
    for delivery in deliveries:
        message = delivery.message.message_id, delivery.conn_id or delivery.receiver
        if message not in found or found[message].message.state in (LEFT, DRY_RUN):
            found[message] = delivery
    return list(found.values())


def _task(key: TaskKey) -> TaskKey:
    return key._replace(prefix="")


def _ask(session: Session, deliveries: list[Delivery], by: str, what: str) -> tuple[str, str]:
    key = _task(deliveries[0].key)
    # The scheduler holds the run's row while it decides whether the run has ended, and takes those of its
    # tasks after that.
    run_state = session.scalar(
        select(DagRun.state).where(DagRun.id == key.dag_run_id).with_for_update(of=DagRun)
    )
    ti = session.scalar(
        select(TaskInstance)
        .where(
            TaskInstance.dag_id == key.dag_id,
            TaskInstance.run_id == key.run_id,
            TaskInstance.task_id == key.task_id,
            TaskInstance.map_index == key.map_index,
        )
        .with_for_update(of=TaskInstance)
    )
    if ti is None or ti.state == TaskInstanceState.REMOVED:
        return REFUSED, f"the run has no such task any more: {GONE}"
    if all(delivery.message.state == DRY_RUN for delivery in deliveries):
        return REFUSED, f"it was a dry run: {NO_DRY_RUN}"
    if ti.state in RUNNING:
        return REFUSED, "the task is running: ask again when it has ended"
    if reason := _missing_input(session, ti):
        return REFUSED, reason
    # A task without a state in a run that has ended would never be looked at again.
    clears = ti.state in ENDED or run_state in State.finished_dr_states
    if not _add_request(session, key, deliveries, by, clears=clears):
        return (
            REFUSED,
            "too many requests wait for the task already: unpause its DAG, or wait for its next try",
        )
    told = {"what": what, "messages": len(deliveries), "outcome": CLEARED if clears else JOINED}
    session.add(Log(EVENT, ti, owner=by, extra=json.dumps(told)))
    if clears:
        clear_task_instances([ti], session)
    return CLEARED if clears else JOINED, _waits_for(session, ti)


def _waits_for(session: Session, ti: TaskInstance) -> str:
    """Return what the messages wait for beside the scheduler; empty where it is nothing."""
    dag = session.scalar(select(DagModel).where(DagModel.dag_id == ti.dag_id))
    if dag is None or dag.is_stale:
        return "the DAG is gone, or its file is broken: it sends when it is back"
    if dag.is_paused:
        return "the DAG is paused: unpause it"
    if ti.state == TaskInstanceState.UP_FOR_RETRY:
        return "sent with the task's retry"
    return ""


def _missing_input(session: Session, ti: TaskInstance) -> str | None:
    """Return why the task can't have its payloads any more, ``None`` if nothing speaks against it."""
    dag = DBDagBag(load_op_links=False).get_dag_for_run(ti.dag_run, session=session)
    if dag is None or not dag.has_task(ti.task_id):
        return f"the DAG has no such task any more: {GONE}"
    upstream = dag.get_task(ti.task_id).upstream_task_ids
    if not upstream:  # it reads its records itself
        return None
    has_xcom = session.scalar(
        select(XComModel.task_id)
        .where(XComModel.dag_id == ti.dag_id, XComModel.run_id == ti.run_id, XComModel.task_id.in_(upstream))
        .limit(1)
    )
    return None if has_xcom else f"its payloads are gone from XCom: {GONE}"


def _add_request(
    session: Session, task: TaskKey, deliveries: Iterable[Delivery], by: str, *, clears: bool
) -> bool:
    """Write the request into the task's state; return whether there was room for it."""
    messages: dict[str, dict[str, str]] = {}
    for delivery in deliveries:
        about = delivery.message.about
        messages.setdefault(delivery.key.prefix, {})[delivery.message.message_id] = (
            about_of(*about) if about is not None and about.record_type else ""
        )
    begun: set[str] = set()
    for prefix in messages:
        ledger = StoredLedger.find(DatabaseStateStore(session, task._replace(prefix=prefix)).get)
        begun |= set(ledger.begun_requests) if ledger is not None else set()
    at = iso_time(datetime.now(timezone.utc))
    request = ResendRequest(secrets.token_hex(6), by, at, clears, messages)
    return add_request(DatabaseStateStore(session, task), request, begun)
