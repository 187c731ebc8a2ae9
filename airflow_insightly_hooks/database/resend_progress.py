"""Find the progress of a request to send messages again, from Airflow's audit log and the tasks' ledgers."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.task_state_store import TaskStateStoreModel as State
from airflow.models.taskinstance import TaskInstance
from airflow.utils.state import TaskInstanceState
from sqlalchemy import and_, or_, select

from airflow_insightly_hooks.core.delivery.ledger_store import HEAD
from airflow_insightly_hooks.core.delivery.resend_requests import REQUESTS
from airflow_insightly_hooks.core.delivery.stored_deliveries import DELIVERED, StoredLedger
from airflow_insightly_hooks.core.errors import InvalidState
from airflow_insightly_hooks.database.deliveries import TaskKey
from airflow_insightly_hooks.database.resend import EVENT, REFUSED, mark_of
from airflow_insightly_hooks.database.task_instances import ENDED_STATES, RUNNING_STATES

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["ENDED", "RequestProgress", "TaskProgress", "request_dags", "request_progress"]

WAITING, UNDER_WAY, ENDED = "waiting", "under way", "ended"
"""The steps of a task that has not refused the request."""
FEW = 200
"""While some tasks have not ended, ledgers are read only for up to this many tasks: a page asks every two
seconds."""
RUNS_A_QUERY = 1_000


class TaskProgress(NamedTuple):
    """The progress of one task of a request."""

    key: TaskKey
    messages: int
    step: str
    """``waiting``, ``under way``, ``ended`` or ``refused``."""
    task_state: str | None
    """The task's state in Airflow; ``None`` if it has no state, or no longer exists."""
    reason: str
    """Why the task has refused the request, or what it waits for."""
    delivered: int | None = None
    """How many messages the receiver has acknowledged since; ``None`` if the ledger was not read."""

    @property
    def undelivered(self) -> int | None:
        """How many messages the task has not delivered when it ended."""
        return None if self.delivered is None else self.messages - self.delivered


class RequestProgress(NamedTuple):
    """A request: its user, time and selection, and the progress of its tasks, the last one first."""

    by: str
    at: datetime
    last_at: datetime
    """When the last task got the request."""
    what: str
    tasks: list[TaskProgress]

    @property
    def is_done(self) -> bool:
        """Whether each task has ended or has refused the request."""
        return all(task.step in (ENDED, REFUSED) for task in self.tasks)


def request_dags(session: Session, request_id: str) -> list[str]:
    """Return the DAGs whose tasks have got a request."""
    return list(session.scalars(select(Log.dag_id).where(*_of_request(request_id)).distinct()))


def request_progress(session: Session, request_id: str, dag_ids: Collection[str]) -> RequestProgress | None:
    """Return the progress of a request; ``None`` if no task of these DAGs has got it.

    If the request has more than ``FEW`` tasks, and some have not ended, the ledgers are not read. Then
    ``delivered`` is ``None``.
    """
    query = (
        select(Log.owner, Log.dttm, Log.extra, DagRun.id, Log.dag_id, Log.run_id, Log.task_id, Log.map_index)
        .add_columns(TaskInstance.state, TaskInstance.task_id)
        .outerjoin(DagRun, and_(DagRun.dag_id == Log.dag_id, DagRun.run_id == Log.run_id))
        .outerjoin(
            TaskInstance,
            and_(
                TaskInstance.dag_id == Log.dag_id,
                TaskInstance.run_id == Log.run_id,
                TaskInstance.task_id == Log.task_id,
                TaskInstance.map_index == Log.map_index,
            ),
        )
        .where(*_of_request(request_id), Log.dag_id.in_(dag_ids))
        .order_by(Log.id)
    )
    rows = session.execute(query).all()
    if not rows:
        return None
    tasks: dict[TaskKey, TaskProgress] = {}
    entry: dict[str, Any] = {}
    for row in rows:  # a task that refused may have got the request again: its last entry counts
        entry = json.loads(row[2])
        key = TaskKey(row[3] or 0, row[4], row[5], row[6], -1 if row[7] is None else row[7], "")
        tasks[key] = _task(key, entry, row[8], is_there=row[9] is not None)
    found = list(tasks.values())
    is_done = all(task.step in (ENDED, REFUSED) for task in found)
    if is_done or len(found) <= FEW:
        ended = [task for task in found if task.step == ENDED]
        delivered = _delivered(session, request_id, ended)
        found = [task._replace(delivered=delivered.get(task.key)) for task in found]
    return RequestProgress(rows[0][0] or "", rows[0][1], rows[-1][1], str(entry.get("what", "")), found[::-1])


def _of_request(request_id: str) -> tuple[Any, ...]:
    return Log.event == EVENT, Log.extra.startswith(mark_of(request_id), autoescape=True)


def _task(key: TaskKey, entry: Mapping[str, Any], state: str | None, *, is_there: bool) -> TaskProgress:
    reason = str(entry.get("reason", ""))
    if entry.get("outcome") == REFUSED:
        step = REFUSED
    elif not is_there or state in (*ENDED_STATES, TaskInstanceState.REMOVED):
        step, reason = ENDED, "" if is_there else "the task no longer exists: what it delivered is not known"
    else:
        step = UNDER_WAY if state in RUNNING_STATES else WAITING
    return TaskProgress(key, int(entry.get("messages", 0)), step, state, reason)


# --- acknowledged messages ---------------------------------------------------------------------------------


def _delivered(session: Session, request_id: str, tasks: Iterable[TaskProgress]) -> dict[TaskKey, int]:
    """Return how many of a request's messages are acknowledged, by task.

    Tasks whose state doesn't hold the request, or can't be read, are left out.
    """
    keys = {(task.key.dag_run_id, task.key.task_id, task.key.map_index): task.key for task in tasks}
    runs = sorted({key.dag_run_id for key in keys.values()})
    found: dict[TaskKey, int] = {}
    for start in range(0, len(runs), RUNS_A_QUERY):
        values: defaultdict[TaskKey, dict[str, str]] = defaultdict(dict)
        query = select(State.dag_run_id, State.task_id, State.map_index, State.key, State.value).where(
            State.dag_run_id.in_(runs[start : start + RUNS_A_QUERY]),
            or_(
                State.key.startswith(f"{REQUESTS}/{request_id}/", autoescape=True),
                State.key == HEAD,
                State.key.like(f"%/{HEAD}"),
                and_(State.key.like(f"%{HEAD}/%"), State.key.not_like("%/archive/%")),
            ),
        )
        for run, task_id, map_index, name, value in session.execute(query):
            if (key := keys.get((run, task_id, map_index))) is not None:
                values[key][name] = value
        for key, own in values.items():
            try:
                count = _count(request_id, own)
            except InvalidState:
                continue
            if count is not None:
                found[key] = count
    return found


def _count(request_id: str, values: Mapping[str, str]) -> int | None:
    """Return how many of a request's messages are acknowledged in a task's ledgers.

    ``None`` means that the task's state doesn't hold the request.
    """
    parts = [json.loads(v) for name, v in values.items() if name.startswith(f"{REQUESTS}/{request_id}/")]
    if not parts:
        return None
    asked: defaultdict[str, set[str]] = defaultdict(set)
    for part in parts:
        asked[str(part.get("ledger", ""))] |= part["messages"].keys()
    count = 0
    for prefix, messages in asked.items():
        ledger = StoredLedger.find(lambda name, at=prefix: _read(values, at + name))  # type: ignore[misc]
        if ledger is None or request_id not in ledger.begun_requests:
            continue  # the task has ended before it began to carry out the request
        for message in ledger.messages(lambda name, at=prefix: _read(values, at + name)):  # type: ignore[misc]
            count += message.state == DELIVERED and message.message_id in messages
    return count


def _read(values: Mapping[str, str], name: str) -> Any:
    text = values.get(name)
    return None if text is None else json.loads(text)
