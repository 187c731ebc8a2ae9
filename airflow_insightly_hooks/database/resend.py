"""Send messages again: store a request in the deliver task's state, and clear the task.

One transaction does both, and locks the rows of the run and of the task instance. So other requests, the
scheduler and a try that is just beginning wait for it. If the task has not begun its next try yet, that try
carries out the request, and the task is not cleared. Callers must check that the user may do this.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from itertools import groupby, islice
from typing import TYPE_CHECKING, NamedTuple

from airflow.models import DagModel
from airflow.models.dagbag import DBDagBag
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.models.xcom import XComModel
from airflow.utils.state import DagRunState, State, TaskInstanceState
from airflow.utils.types import DagRunType
from sqlalchemy import func, select

from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.delivery.delivery_record import about_of
from airflow_insightly_hooks.core.delivery.resend_requests import ResendRequest, add_request
from airflow_insightly_hooks.core.delivery.stored_deliveries import DRY_RUN, LEFT, StoredLedger
from airflow_insightly_hooks.core.errors import InvalidState
from airflow_insightly_hooks.database.state import DatabaseStateStore
from airflow_insightly_hooks.database.stored_workflows import WORKFLOW_OPERATOR
from airflow_insightly_hooks.database.task_instances import (
    ENDED_STATES,
    RUNNING_STATES,
    select_task_instance,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from airflow_insightly_hooks.database.deliveries import Delivery, TaskKey

__all__ = [
    "CLEARED",
    "EVENT",
    "JOINED",
    "REFUSED",
    "REPEATED",
    "Resend",
    "by_task",
    "latest_of_each",
    "mark_of",
    "refusals",
    "resend",
]

CLEARED, JOINED, REFUSED, REPEATED = "cleared", "joined", "refused", "repeated"
"""The task was cleared; its next try, which has not begun, also sends the messages; the messages can't be
sent again; or the task has got the same request before, and nothing was done."""
EVENT = "insightly_resend"
"""The event in Airflow's audit log."""
GONE = (
    "clear the run's first task and all tasks after it, to send the records as they are now, or start a run "
    "over the same window"
)
NO_TASK = f"the run no longer has this task: {GONE}"
NO_DRY_RUN = "turn off the workflow's dry run and clear the task, or start a run over the same window"


class Resend(NamedTuple):
    """The result of a request for the messages of one task."""

    key: TaskKey
    messages: int
    outcome: str
    """``cleared``, ``joined``, ``refused`` or ``repeated``."""
    reason: str
    """Why the request was refused, and what to do. Otherwise what the messages wait for, or an empty text if
    they only wait for the scheduler."""


def resend(
    session: Session, deliveries: Iterable[Delivery], *, by: str, what: str, request_id: str | None = None
) -> Iterator[Resend]:
    """Request that messages are sent again, task by task; yield the result for each task.

    :param session: a session of Airflow's database; it is committed after each task.
    :param deliveries: the deliveries to send again, as a search has found them; acknowledged ones are sent
        again, too.
    :param by: the user who makes the request, for the task's log and Airflow's audit log.
    :param what: a description of the selected messages, for Airflow's audit log.
    :param request_id: a unique id of letters and digits. A task that has got a request with this id before
        does nothing. Without an id, each call is a new request.
    """
    request_id = request_id or secrets.token_hex(6)
    dags = DBDagBag(load_op_links=False)
    for key, found in by_task(deliveries):
        try:
            outcome, reason = _ask(session, dags, found, _Asker(request_id, by, what))
        except InvalidState as error:
            outcome, reason = REFUSED, str(error)
        if outcome == REFUSED:
            session.rollback()
            extra = _audit_extra(_Asker(request_id, by, what), found, outcome, reason)
            where = {name: getattr(key, name) for name in ("dag_id", "run_id", "task_id", "map_index")}
            session.add(Log(EVENT, owner=by, extra=extra, **where))
        session.commit()
        yield Resend(key, len(found), outcome, reason)


def by_task(deliveries: Iterable[Delivery]) -> Iterator[tuple[TaskKey, list[Delivery]]]:
    """Yield deliveries task by task; the keys have no prefix."""
    for key, group in groupby(sorted(deliveries, key=lambda d: _task(d.key)), key=lambda d: _task(d.key)):
        yield key, list(group)


def refusals(session: Session, deliveries: Iterable[Delivery], *, at_most: int) -> dict[TaskKey, str]:
    """Return why tasks would refuse now to send messages again; tasks that would not refuse are left out.

    :param at_most: how many tasks to check.
    """
    dags = DBDagBag(load_op_links=False)
    found = {}
    for key, of_task in islice(by_task(deliveries), at_most):
        if reason := _refusal(session, dags, session.scalar(select_task_instance(key)), of_task):
            found[key] = reason
    return found


def mark_of(request_id: str) -> str:
    """Return the beginning of the ``extra`` of all entries of a request in the audit log."""
    return json.dumps({"request": request_id})[:-1]


def latest_of_each(deliveries: Iterable[Delivery]) -> list[Delivery]:
    """Return one delivery of each message to each receiver: the newest one.

    A delivery that was left to a retry DAG, or is of a dry run, is returned only if there is no other.

    :param deliveries: the deliveries, newest first.
    """
    found: dict[tuple[str, str | None], Delivery] = {}
    for delivery in deliveries:
        message = delivery.message.message_id, delivery.conn_id or delivery.receiver
        if message not in found or found[message].message.state in (LEFT, DRY_RUN):
            found[message] = delivery
    return list(found.values())


def _task(key: TaskKey) -> TaskKey:
    return key._replace(prefix="")


class _Asker(NamedTuple):
    request_id: str
    by: str
    what: str


def _audit_extra(asker: _Asker, deliveries: Sequence[Delivery], outcome: str, reason: str) -> str:
    """Return the audit log's ``extra`` for a request."""
    entry = {"what": asker.what, "messages": len(deliveries), "outcome": outcome}
    return json.dumps({"request": asker.request_id, **entry} | ({"reason": reason} if reason else {}))


def _ask(session: Session, dags: DBDagBag, deliveries: list[Delivery], asker: _Asker) -> tuple[str, str]:
    key = _task(deliveries[0].key)
    # Lock the rows in the scheduler's order: it locks the run's row while it decides whether the run has
    # ended, and then the rows of its tasks.
    run_state = session.scalar(
        select(DagRun.state).where(DagRun.id == key.dag_run_id).with_for_update(of=DagRun)
    )
    ti = session.scalar(select_task_instance(key).with_for_update(of=TaskInstance))
    if _was_asked(session, key, asker.request_id):
        return REPEATED, "the task has got this request before: nothing was done"
    if ti is None or (reason := _refusal(session, dags, ti, deliveries)):
        return REFUSED, NO_TASK if ti is None else reason or ""
    # The scheduler ignores a task without a state if its run has ended. So clear it, too.
    clears = ti.state in ENDED_STATES or run_state in State.finished_dr_states
    if not _add_request(session, key, deliveries, asker, clears=clears):
        return (
            REFUSED,
            "too many requests already wait for the task: unpause its DAG, or wait for its next try",
        )
    outcome, reason = CLEARED if clears else JOINED, _waits_for(session, ti, run_state)
    session.add(Log(EVENT, ti, owner=asker.by, extra=_audit_extra(asker, deliveries, outcome, reason)))
    if clears:
        clear_task_instances([ti], session)
    return outcome, reason


def _was_asked(session: Session, key: TaskKey, request_id: str) -> bool:
    """Return whether the task has accepted the request before.

    The audit log says so, because its entries are kept longer than the task's state.
    """
    return (
        session.scalar(
            select(Log.id)
            .where(
                Log.dag_id == key.dag_id,
                Log.task_id == key.task_id,
                Log.run_id == key.run_id,
                Log.map_index == key.map_index,
                Log.event == EVENT,
                Log.extra.startswith(mark_of(request_id), autoescape=True),
                Log.extra.not_like(f'%"outcome": "{REFUSED}"%'),
            )
            .limit(1)
        )
        is not None
    )


def _refusal(
    session: Session, dags: DBDagBag, ti: TaskInstance | None, deliveries: Sequence[Delivery]
) -> str | None:
    """Return why messages of a task can't be sent again; ``None`` if they can."""
    if ti is None or ti.state == TaskInstanceState.REMOVED:
        return NO_TASK
    if all(delivery.message.state == DRY_RUN for delivery in deliveries):
        return f"it was a dry run: {NO_DRY_RUN}"
    if ti.state in RUNNING_STATES:
        return "the task is running: try again when it has ended"
    return _missing_input(session, dags, ti)


def _waits_for(session: Session, ti: TaskInstance, run_state: str | None) -> str:
    """Return what the messages wait for besides the scheduler; an empty text if there is nothing else."""
    dag = session.scalar(select(DagModel).where(DagModel.dag_id == ti.dag_id))
    if dag is None or dag.is_stale:
        return "the DAG's file is gone or broken: the messages are sent once it is restored"
    if dag.is_paused:
        return "the DAG is paused: unpause it"
    if ti.state == TaskInstanceState.UP_FOR_RETRY:
        return "sent with the task's retry"
    if run_state != DagRunState.RUNNING and _is_full(session, dag, ti.run_id):
        return (
            f"the DAG has its greatest number of active runs (max_active_runs: {dag.max_active_runs}): the "
            "messages are sent once one of these runs has ended"
        )
    return ""


def _is_full(session: Session, dag: DagModel, run_id: str) -> bool:
    """Return whether a run that had ended has to wait until another run of its DAG ends."""
    others = select(func.count()).where(
        DagRun.dag_id == dag.dag_id,
        DagRun.run_id != run_id,
        DagRun.state == DagRunState.RUNNING,
        DagRun.run_type != DagRunType.BACKFILL_JOB,  # these have a limit of their own
    )
    return dag.max_active_runs is not None and (session.scalar(others) or 0) >= dag.max_active_runs


def _missing_input(session: Session, dags: DBDagBag, ti: TaskInstance) -> str | None:
    """Return why the task can't read its payloads any more; ``None`` if it can."""
    dag = dags.get_dag_for_run(ti.dag_run, session=session)
    if dag is None or not dag.has_task(ti.task_id):
        return f"the DAG no longer has this task: {GONE}"
    task = dag.get_task(ti.task_id)
    upstream = task.upstream_task_ids
    if not upstream or task.task_type == WORKFLOW_OPERATOR:  # it reads its records itself
        return None
    has_xcom = session.scalar(
        select(XComModel.task_id)
        .where(XComModel.dag_id == ti.dag_id, XComModel.run_id == ti.run_id, XComModel.task_id.in_(upstream))
        .limit(1)
    )
    return None if has_xcom else f"its payloads are gone from XCom: {GONE}"


def _add_request(
    session: Session, task: TaskKey, deliveries: Iterable[Delivery], asker: _Asker, *, clears: bool
) -> bool:
    """Store the request in the task's state; return whether there was room for it."""
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
    request = ResendRequest(asker.request_id, asker.by, at, clears, messages)
    return add_request(DatabaseStateStore(session, task), request, begun)
