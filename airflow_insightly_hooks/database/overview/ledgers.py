"""Read the counts of tasks in one pass over the task state store: the heads of ledgers, and counts of runs.

No ledger is opened, and no XCom is read. Airflow's store has no index by time. So its rows are found by their
runs: a run's row has the time of its last change, and Airflow changes it after the run's tasks have ended.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime, time, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.models.dagrun import DagRun
from airflow.models.task_state_store import TaskStateStoreModel as State
from sqlalchemy import or_, select

from airflow_insightly_hooks.core.delivery.ledger import IN_DOUBT
from airflow_insightly_hooks.core.delivery.ledger_store import HEAD, VERSION, tokens_of
from airflow_insightly_hooks.core.delivery.stored_deliveries import StoredLedger, time_or_none
from airflow_insightly_hooks.core.errors import InvalidState
from airflow_insightly_hooks.core.state.run_counts import RUN_COUNTS, RunCounts

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["DAYS", "CountedRun", "Ledgers", "TaskLedger", "first_moment", "of_dags", "read_ledgers"]

DAYS = 30
"""The number of days that an overview covers: today, in UTC, and the days before."""
MOST_IDS = 500
"""The most DAGs that a query names. If there are more, it reads all DAGs, and the caller drops the others."""

MARGIN = timedelta(days=1)
"""How much older a run's row may be than the state that its tasks have written."""


class TaskLedger(NamedTuple):
    """The counts in the ledger of a task.

    :param dag_id: the task's DAG.
    :param task_id: the task; if it is mapped, each map index has a ledger.
    :param written_at: when the ledger was written last, in UTC.
    :param delivered: how many messages are delivered; ``None`` if the version that wrote the ledger has not
        counted them.
    :param undelivered: how many messages are not delivered, without those that were left to a retry DAG or
        are of a dry run; ``None`` if the version that wrote the ledger has not counted them.
    :param in_doubt: how many messages have a POST that is under way, or whose outcome is not known.
    :param acknowledged_at: when a message was acknowledged last, as stored in the ledger; ``None`` if the
        ledger does not say.
    :param conn_id: the receiver's connection, if it has one.
    :param receiver: the receiver's URI, without user information, if it is known.
    :param webhook: the workflow's ``dag_id``, a slash, and the webhook's slug; ``None`` if the task doesn't
        belong to a workflow.
    """

    dag_id: str
    task_id: str
    written_at: datetime
    delivered: int | None
    undelivered: int | None
    in_doubt: int
    acknowledged_at: object
    conn_id: str | None
    receiver: str | None
    webhook: str | None

    @property
    def last_success(self) -> datetime | None:
        """When a message was acknowledged last, in UTC; ``None`` if no message was, or if it is not known.

        If an earlier version has written the ledger, and all its messages are delivered, it is the time of
        the ledger's last write.
        """
        if self.acknowledged_at is not None:
            return time_or_none(self.acknowledged_at)
        return self.written_at if self.delivered and not self.undelivered else None

    @property
    def has_only_failed(self) -> bool:
        """Whether messages are undelivered, none is delivered, and no POST is under way."""
        return bool(self.undelivered and not self.delivered and not self.in_doubt)


class CountedRun(NamedTuple):
    """The counts of a task in a run.

    :param at: when they were stored, in UTC.
    """

    dag_id: str
    at: datetime
    counts: RunCounts


class Ledgers(NamedTuple):
    """The counts of the tasks of some DAGs since a time.

    :param unreadable: by DAG, how many ledgers and counts can't be read: another version has written them, or
        the workers' own state store backend stores them.
    """

    ledgers: list[TaskLedger]
    runs: list[CountedRun]
    unreadable: Mapping[str, int]


def first_moment(now: datetime) -> datetime:
    """Return the beginning of the period of ``DAYS`` days: a midnight in UTC."""
    today = now.astimezone(timezone.utc).date()
    return datetime.combine(today - timedelta(days=DAYS - 1), time(), timezone.utc)


def read_ledgers(session: Session, dag_ids: Collection[str], since: datetime) -> Ledgers:
    """Return the counts that tasks of these DAGs have written since a time, each ledger once.

    If a task was killed and tried again, only its current ledger is read.

    :param since: the time, aware.
    """
    query = (
        select(
            State.dag_run_id,
            State.task_id,
            State.map_index,
            State.key,
            State.dag_id,
            State.updated_at,
            State.value,
        )
        .join(DagRun, DagRun.id == State.dag_run_id)
        .where(
            State.updated_at >= since,
            or_(DagRun.updated_at >= since - MARGIN, DagRun.updated_at.is_(None)),
            or_(
                State.key == HEAD,
                State.key == RUN_COUNTS,
                State.key.like(f"%{HEAD}/%/head"),
                State.key.like(f"%/{HEAD}"),
            ),
        )
    )
    query = query.where(of_dags(State.dag_id, dag_ids))
    wanted = frozenset(dag_ids)
    claims: dict[tuple[Any, ...], tuple[str, str]] = {}
    heads: defaultdict[tuple[Any, ...], dict[str, tuple[str, datetime, str]]] = defaultdict(dict)
    runs: list[CountedRun] = []
    counts: dict[str, RunCounts | None] = {}  # by text: many are equal, because many runs find nothing
    unreadable: Counter[str] = Counter()
    for run, task_id, map_index, key, dag_id, at, text in session.execute(query):
        if dag_id not in wanted:
            continue
        if key == RUN_COUNTS:
            if text not in counts:
                counts[text] = _counts(text)
            if (found := counts[text]) is None:
                unreadable[dag_id] += 1
            else:
                runs.append(CountedRun(dag_id, at, found))
            continue
        before, _, token = key.removesuffix("/head").rpartition(f"{HEAD}/")
        if key.endswith("/head"):
            heads[run, task_id, map_index, before][token] = (dag_id, at, text)
        else:
            claims[run, task_id, map_index, key.removesuffix(HEAD)] = dag_id, text
    ledgers = []
    for task, by_token in heads.items():
        try:
            head = _current_head(claims.pop(task, None), by_token)
        except InvalidState:
            unreadable[next(iter(by_token.values()))[0]] += 1
            continue
        if head is not None:
            ledgers.append(_task_ledger(task[1], *head))
    for dag_id, text in claims.values():  # their tasks have no head yet, or are of another version
        unreadable[dag_id] += not _is_claim(text)
    return Ledgers(ledgers, runs, +unreadable)


def _counts(text: str) -> RunCounts | None:
    """Return the counts of a run; ``None`` if they can't be read."""
    try:
        return RunCounts.of(json.loads(text))
    except InvalidState:
        return None


def _current_head(
    claim: tuple[str, str] | None, heads: Mapping[str, tuple[str, datetime, str]]
) -> tuple[str, datetime, str] | None:
    """Return the current head of a task's ledger.

    :raises InvalidState: if the claim can't be read.
    """
    if claim is None:  # it was written before the time from which rows are read
        return max(heads.values(), key=lambda head: head[1])
    for token, head in heads.items():  # usually, a look at the text is enough, without parsing it
        if claim[1].startswith(f'{{"version": {VERSION}, ') and f'"token": "{token}"' in claim[1]:
            return head
    found = json.loads(claim[1])
    if not isinstance(found, Mapping):
        raise InvalidState(HEAD, "it is not an object")
    return next((heads[token] for token in tokens_of(found, heads.__contains__) if token in heads), None)


def _is_claim(text: str) -> bool:
    found = json.loads(text)
    try:
        return isinstance(found, Mapping) and bool(tokens_of(found, lambda _: True))
    except InvalidState:
        return False


def _task_ledger(task_id: str, dag_id: str, at: datetime, text: str) -> TaskLedger:
    head = json.loads(text)
    ledger = StoredLedger("", head if isinstance(head, Mapping) else {})
    texts = {name: value for name, value in ledger.about.items() if isinstance(value, str)}
    return TaskLedger(
        dag_id,
        task_id,
        at,
        ledger.delivered,
        ledger.undelivered,
        ledger.counts.get(IN_DOUBT, 0),
        ledger.acknowledged_at,
        *(texts.get(name) for name in ("conn_id", "receiver", "webhook")),
    )


def of_dags(column: Any, dag_ids: Collection[str]) -> Any:
    """Return the condition that a column holds one of these ids; for many ids, one that is always true."""
    return column.in_(dag_ids) if len(dag_ids) <= MOST_IDS else column.is_not(None)
