"""What workflows have done: changes that were detected, messages that were delivered, by day."""

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
    :param counted_since: when the first count of changes in ``last_days`` was kept, UTC; ``None`` if no count
        was kept.
    :param unreadable: ledgers and counts that can't be read.
    """

    dag_id: str
    last_day: ActivityCounts
    last_days: ActivityCounts
    days: list[DayCounts]
    counted_since: datetime | None
    unreadable: int


def activity(dag_ids: Collection[str], now: datetime, ledgers: Ledgers) -> list[Activity]:
    """Return what each workflow has done that has done anything, or of which something can't be read.

    :param now: aware.
    :param ledgers: what tasks of these DAGs have counted.
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
