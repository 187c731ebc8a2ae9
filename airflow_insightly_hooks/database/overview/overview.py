"""What there is of workflows, and what they have done, for a page that shows all of it at once.

Each function is given the ids of the DAGs that the person may read, and tells of no other. No XCom is read,
and no DAG is deserialized. ``read_overview`` reads the task state store once for all of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from airflow.models import DagModel, DagRun
from airflow.models.asset import (
    AssetModel,
    DagScheduleAssetReference,
    TaskInletAssetReference,
    TaskOutletAssetReference,
)
from sqlalchemy import func, select, union

from airflow_insightly_hooks.database.overview.ledgers import (
    CountedRun,
    Ledgers,
    TaskLedger,
    of_dags,
    read_ledgers,
)
from airflow_insightly_hooks.database.overview.receivers import ReceiverHealth, receivers
from airflow_insightly_hooks.database.pending import PendingCounts, pending_counts

from airflow_insightly_hooks.core.workflow.dag_ids import workflow_dag_id

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = [
    "DAYS",
    "Account",
    "Activity",
    "ActivityCounts",
    "DayCounts",
    "LastRun",
    "Overview",
    "WorkflowDag",
    "accounts",
    "activity",
    "first_moment",
    "read_overview",
    "workflow_dags",
]

DAYS = 30
"""Days of the long period: today, by UTC, and those before."""
ASSETS = "insightly/"
"""How the names of our assets begin; then come the connection's id and the record type."""
URI = "insightly://"


class LastRun(NamedTuple):
    """The run of a DAG that was made last.

    :param state: as Airflow calls it, such as ``success``.
    :param started_at: UTC; ``None``: not yet.
    :param ended_at: UTC; ``None``: not yet.
    """

    run_id: str
    state: str
    started_at: datetime | None
    ended_at: datetime | None


class WorkflowDag(NamedTuple):
    """A DAG that works with Insightly's records.

    :param dag_id: its id; a workflow's, not those of the DAGs that send for it.
    :param display_name: what Airflow shows.
    :param is_paused: whether it is paused.
    :param is_stale: whether its file is gone, or broken.
    :param last_run: its last run; ``None`` if there is none.
    :param sending_dag_ids: the DAGs that send for it what is pending, or waits for a receiver, by name.
    """

    dag_id: str
    display_name: str
    is_paused: bool
    is_stale: bool
    last_run: LastRun | None
    sending_dag_ids: tuple[str, ...]


class ActivityCounts(NamedTuple):
    """What a workflow has done in a period.

    What was left to the retry DAG counts there, once it is tried there; until then it waits
    (``ReceiverHealth.waiting``). A dry run counts nothing.

    :param detected: changes that were detected; ``None`` if no task has counted any.
    :param met: changes that met the criteria, and went on; ``None`` likewise.
    :param delivered: messages that a receiver has acknowledged: each webhook has one of a change.
    :param undelivered: messages that are not delivered (yet): failed, refused for good, in doubt or unsent.
    :param unknown: ledgers whose messages an earlier version has not counted.
    """

    detected: int | None
    met: int | None
    delivered: int
    undelivered: int
    unknown: int


class DayCounts(NamedTuple):
    """What ledgers count that were written last on a day, by UTC."""

    day: date
    delivered: int
    undelivered: int


class Activity(NamedTuple):
    """What a workflow has done lately, with the DAGs that send for it.

    A ledger counts by the time at which it was written last.

    :param dag_id: the workflow's.
    :param last_day: the last 24 hours.
    :param last_days: the ``DAYS`` days of ``days``.
    :param days: by day, the earliest first; the last one is today.
    :param counted_since: when the first count of changes was kept that is in ``last_days``, UTC; before it
        there are none. ``None``: there is none.
    :param unreadable: ledgers and counts that can't be read.
    """

    dag_id: str
    last_day: ActivityCounts
    last_days: ActivityCounts
    days: list[DayCounts]
    counted_since: datetime | None
    unreadable: int


class Account(NamedTuple):
    """What is known of an account's requests of today, by UTC.

    :param conn_id: a connection to it.
    :param requests_left: how many were left; ``None`` if no task of today has told.
    :param requests_a_day: how many the day has in all; ``None`` likewise.
    :param as_of: when a task told that last, also on an earlier day, UTC; ``None``: never in ``DAYS`` days.
    """

    conn_id: str
    requests_left: int | None
    requests_a_day: int | None
    as_of: datetime | None


class Overview(NamedTuple):
    """All of it."""

    workflows: list[WorkflowDag]
    activity: Mapping[str, Activity]
    """By the workflow's ``dag_id``."""
    receivers: list[ReceiverHealth]
    accounts: list[Account]
    pending: PendingCounts


def read_overview(session: Session, dag_ids: Collection[str], now: datetime) -> Overview:
    """Return all that an overview shows.

    :param dag_ids: the DAGs that the person may read.
    :param now: aware.
    """
    ledgers = read_ledgers(session, dag_ids, first_moment(now))
    return Overview(
        workflow_dags(session, dag_ids, now, ledgers=ledgers),
        {found.dag_id: found for found in activity(session, dag_ids, now, ledgers=ledgers)},
        receivers(session, dag_ids, now, ledgers=ledgers),
        accounts(session, dag_ids, now, ledgers=ledgers),
        pending_counts(session, dag_ids),
    )


def first_moment(now: datetime) -> datetime:
    """Return when the period of ``DAYS`` days begins: a midnight, UTC."""
    today = now.astimezone(timezone.utc).date()
    return datetime.combine(today - timedelta(days=DAYS - 1), time(), timezone.utc)


def workflow_dags(
    session: Session, dag_ids: Collection[str], now: datetime, *, ledgers: Ledgers | None = None
) -> list[WorkflowDag]:
    """Return the DAGs that work with Insightly's records, by their names.

    Their tasks or their schedule refer to one of our assets, or a task has written a ledger in ``DAYS`` days.

    :param ledgers: what was read of these DAGs already; ``None``: it is read.
    """
    ledgers = ledgers if ledgers is not None else read_ledgers(session, dag_ids, first_moment(now))
    ours = {dag_id for dag_id, _ in _assets_of(session, dag_ids)} | {x.dag_id for x in ledgers.ledgers}
    found = session.execute(
        select(DagModel.dag_id, DagModel._dag_display_property_value, DagModel.is_paused, DagModel.is_stale)
        .where(of_dags(DagModel.dag_id, ours))
        .order_by(DagModel.dag_id)
    ).all()
    by_id = {row.dag_id: row for row in found if row.dag_id in ours}
    sending: defaultdict[str, list[str]] = defaultdict(list)
    for dag_id in by_id:
        sending[workflow_dag_id(dag_id, by_id)].append(dag_id)
    last_runs = _last_runs(session, sending)
    return [
        WorkflowDag(
            dag_id,
            by_id[dag_id][1] or dag_id,
            bool(by_id[dag_id].is_paused),
            bool(by_id[dag_id].is_stale),
            last_runs.get(dag_id),
            tuple(other for other in of_it if other != dag_id),
        )
        for dag_id, of_it in sending.items()
    ]


def activity(
    session: Session, dag_ids: Collection[str], now: datetime, *, ledgers: Ledgers | None = None
) -> list[Activity]:
    """Return what each workflow has done that has done anything, or of which something can't be read.

    :param now: aware.
    :param ledgers: what was read of these DAGs already; ``None``: it is read.
    """
    ledgers = ledgers if ledgers is not None else read_ledgers(session, dag_ids, first_moment(now))
    workflow = cache(lambda dag_id: workflow_dag_id(dag_id, dag_ids))
    written: defaultdict[str, list[TaskLedger]] = defaultdict(list)
    for ledger in ledgers.ledgers:
        written[workflow(ledger.dag_id)].append(ledger)
    counted: defaultdict[str, list[CountedRun]] = defaultdict(list)
    for run in ledgers.runs:
        counted[workflow(run.dag_id)].append(run)
    unreadable: Counter[str] = Counter()
    for dag_id, count in ledgers.unreadable.items():
        unreadable[workflow(dag_id)] += count
    return [
        _activity(dag_id, written[dag_id], counted[dag_id], unreadable[dag_id], now)
        for dag_id in sorted({*written, *counted, *unreadable})
    ]


def accounts(
    session: Session, dag_ids: Collection[str], now: datetime, *, ledgers: Ledgers | None = None
) -> list[Account]:
    """Return the accounts that these DAGs work with, by their connections' ids.

    :param now: aware.
    :param ledgers: what was read of these DAGs already; ``None``: it is read.
    """
    ledgers = ledgers if ledgers is not None else read_ledgers(session, dag_ids, first_moment(now))
    newest: dict[str, CountedRun] = {}
    for run in ledgers.runs:
        conn_id = run.counts.insightly_conn_id
        if conn_id is None or run.counts.requests_left is None:
            continue
        if conn_id not in newest or newest[conn_id].at < run.at:
            newest[conn_id] = run
    names = {name for _, name in _assets_of(session, dag_ids) if name.startswith(ASSETS)}
    known = {name.removeprefix(ASSETS).rpartition("/")[0] for name in names}
    today = now.astimezone(timezone.utc).date()
    found = []
    for conn_id in sorted(known | newest.keys()):
        if conn_id not in newest:
            found.append(Account(conn_id, None, None, None))
            continue
        at, counts = newest[conn_id].at, newest[conn_id].counts
        is_of_today = at.date() == today
        left, total = (counts.requests_left, counts.requests_a_day) if is_of_today else (None, None)
        found.append(Account(conn_id, left, total, at))
    return found


def _assets_of(session: Session, dag_ids: Collection[str]) -> set[tuple[str, str]]:
    """Return which of these DAGs refer to which of our assets: the DAG's id, and the asset's name."""
    wanted = frozenset(dag_ids)
    query = union(
        *(
            select(reference.dag_id, AssetModel.name)
            .select_from(reference)
            .join(AssetModel, AssetModel.id == reference.asset_id)
            .where(AssetModel.uri.startswith(URI, autoescape=True), of_dags(reference.dag_id, dag_ids))
            for reference in (TaskInletAssetReference, DagScheduleAssetReference, TaskOutletAssetReference)
        )
    )
    return {(dag_id, name) for dag_id, name in session.execute(query) if dag_id in wanted}


def _last_runs(session: Session, dag_ids: Collection[str]) -> dict[str, LastRun]:
    made_last = (
        select(func.max(DagRun.id)).where(of_dags(DagRun.dag_id, dag_ids)).group_by(DagRun.dag_id)
    ).scalar_subquery()
    query = select(DagRun.dag_id, DagRun.run_id, DagRun.state, DagRun.start_date, DagRun.end_date)
    return {
        dag_id: LastRun(run_id, str(state), started, ended)
        for dag_id, run_id, state, started, ended in session.execute(query.where(DagRun.id.in_(made_last)))
    }


def _activity(
    dag_id: str, written: Sequence[TaskLedger], counted: Sequence[CountedRun], unreadable: int, now: datetime
) -> Activity:
    yesterday, first = now - timedelta(hours=24), first_moment(now)
    delivered: Counter[date] = Counter()
    undelivered: Counter[date] = Counter()
    for ledger in written:
        day = ledger.written_at.date()
        delivered[day] += ledger.delivered or 0
        undelivered[day] += ledger.undelivered or 0
    days = [first.date() + timedelta(days=number) for number in range(DAYS)]
    return Activity(
        dag_id,
        _counts([x for x in written if x.written_at >= yesterday], [x for x in counted if x.at >= yesterday]),
        _counts(written, counted),
        [DayCounts(day, delivered[day], undelivered[day]) for day in days],
        min((run.at for run in counted), default=None),
        unreadable,
    )


def _counts(written: Sequence[TaskLedger], counted: Sequence[CountedRun]) -> ActivityCounts:
    detected = [run.counts.detected for run in counted if run.counts.detected is not None]
    met = [run.counts.met for run in counted if run.counts.met is not None]
    return ActivityCounts(
        sum(detected) if detected else None,
        sum(met) if met else None,
        sum(ledger.delivered or 0 for ledger in written),
        sum(ledger.undelivered or 0 for ledger in written),
        sum(ledger.delivered is None or ledger.undelivered is None for ledger in written),
    )
