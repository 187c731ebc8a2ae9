"""The activity of workflows: how many changes were detected, and how many messages delivered, by day."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta
from functools import cache
from typing import NamedTuple

from airflow_insightly_hooks.core.workflow.dag_ids import workflow_dag_id
from airflow_insightly_hooks.database.overview.ledgers import (
    DAYS,
    CountedRun,
    Ledgers,
    TaskLedger,
    first_moment,
)

__all__ = ["Activity", "ActivityCounts", "DayCounts", "activity"]


class ActivityCounts(NamedTuple):
    """A workflow's activity in a period.

    A message that was left to the retry DAG is counted once that DAG has tried to send it. Until then it is
    counted in ``ReceiverHealth.waiting``. Dry runs are not counted.

    :param detected: how many changes were detected; ``None`` if no task has counted them.
    :param met: how many changes met the criteria; ``None`` if no task has counted them.
    :param delivered: how many messages a receiver has acknowledged: each webhook has one message per change.
    :param undelivered: how many messages are not delivered (yet): failed, refused for good, in doubt or
        unsent.
    :param unknown: how many ledgers have no counts, because an earlier version has written them.
    """

    detected: int | None
    met: int | None
    delivered: int
    undelivered: int
    unknown: int


class DayCounts(NamedTuple):
    """The counts of the ledgers whose last write was on this day, in UTC."""

    day: date
    delivered: int
    undelivered: int


class Activity(NamedTuple):
    """A workflow's recent activity, including the DAGs that send for it.

    All messages of a ledger count at the time of its last write.

    :param dag_id: the workflow's DAG.
    :param last_day: the activity in the last 24 hours.
    :param last_days: the activity in the ``DAYS`` days of ``days``.
    :param days: the counts by day, the earliest first; the last day is today.
    :param counted_since: when the first count of changes in ``last_days`` was stored, in UTC; ``None`` if no
        count was stored.
    :param unreadable: how many ledgers and counts can't be read.
    """

    dag_id: str
    last_day: ActivityCounts
    last_days: ActivityCounts
    days: list[DayCounts]
    counted_since: datetime | None
    unreadable: int


def activity(dag_ids: Collection[str], now: datetime, ledgers: Ledgers) -> list[Activity]:
    """Return the activity of each workflow that was active, or has ledgers or counts that can't be read.

    :param now: the current time, aware.
    :param ledgers: the counts of these DAGs' tasks.
    """
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
