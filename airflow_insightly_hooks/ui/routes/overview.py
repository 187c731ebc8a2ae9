"""The first page: workflows, receivers and accounts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from airflow_insightly_hooks.database.overview.activity import Activity, ActivityCounts
from airflow_insightly_hooks.database.overview.ledgers import DAYS, first_moment
from airflow_insightly_hooks.database.overview.overview import Overview, read_overview
from airflow_insightly_hooks.database.overview.receivers import ReceiverHealth
from airflow_insightly_hooks.database.overview.workflow_dags import WorkflowDag, insightly_dags
from airflow_insightly_hooks.database.stored_workflows import StoredWorkflow, stored_workflows
from airflow_insightly_hooks.ui.access import AccessDep, Right
from airflow_insightly_hooks.ui.charts import Chart
from airflow_insightly_hooks.ui.rendering import RendererDep

__all__ = ["router"]

NONE = ActivityCounts(None, None, 0, 0, 0)

IDLE = ("paused", "inactive", "missing")

router = APIRouter()


class WorkflowRow(NamedTuple):
    """A workflow, as the page shows it.

    :param name: the name of the workflow, or else of its DAG.
    :param state: ``active``, ``paused``, ``inactive``, ``dry run`` or ``missing``.
    :param pending: how many webhooks wait for their time.
    """

    dag: WorkflowDag
    name: str
    state: str
    last_day: ActivityCounts
    last_days: ActivityCounts
    chart: Chart | None
    pending: int


class ReceiverRow(NamedTuple):
    """A receiver, as the page shows it.

    :param state: ``healthy``, ``failing``, ``waiting`` or ``unknown``.
    """

    health: ReceiverHealth
    state: str


@router.get("/")
def show_overview(access: AccessDep, session: SessionDep, render: RendererDep) -> HTMLResponse:
    """Show the workflows that the person may see, with their receivers and accounts."""
    now = datetime.now(timezone.utc)
    dag_ids = access.permitted(Right.READ, insightly_dags(session, access.dag_ids))
    found = read_overview(session, dag_ids, now)
    definitions = stored_workflows(session, {workflow.dag_id for workflow in found.workflows})
    unreadable = sum(activity.unreadable for activity in found.activity.values())
    return render(
        "overview.html",
        workflows=_workflow_rows(found, definitions),
        receivers=[ReceiverRow(health, _receiver_state(health, now)) for health in found.receivers],
        accounts=found.accounts,
        total=_total(found),
        days=DAYS,
        now=now,
        unreadable=unreadable + sum(found.pending.unreadable.values()),
        unknown=sum(activity.last_days.unknown for activity in found.activity.values()),
        counted_since=_counted_since(found.activity.values(), now),
    )


class Total(NamedTuple):
    """The figures at the top of the page."""

    delivered: int
    undelivered: int
    waiting: int
    pending: int


def _total(found: Overview) -> Total:
    return Total(
        sum(activity.last_day.delivered for activity in found.activity.values()),
        sum(activity.last_day.undelivered for activity in found.activity.values()),
        sum(receiver.waiting for receiver in found.receivers),
        sum(found.pending.counts.values()),
    )


def _workflow_rows(found: Overview, definitions: Collection[StoredWorkflow]) -> list[WorkflowRow]:
    by_dag: dict[str, list[StoredWorkflow]] = {}
    for definition in definitions:
        by_dag.setdefault(definition.dag_id, []).append(definition)
    rows = [
        _workflow_row(workflow, by_dag.get(workflow.dag_id, []), found.activity, found.pending.counts)
        for workflow in found.workflows
    ]
    return sorted(rows, key=_place)


def _place(row: WorkflowRow) -> tuple[bool, bool, str]:
    """Return a workflow's place in the list: first the ones with undelivered messages, last the idle ones."""
    return not row.last_day.undelivered, row.state in IDLE, row.name.casefold()


def _workflow_row(
    dag: WorkflowDag,
    definitions: list[StoredWorkflow],
    activities: Mapping[str, Activity],
    pending: Mapping[str, int],
) -> WorkflowRow:
    activity = activities.get(dag.dag_id)
    return WorkflowRow(
        dag,
        dag.display_name,
        _workflow_state(dag, definitions),
        NONE if activity is None else activity.last_day,
        NONE if activity is None else activity.last_days,
        None if activity is None else Chart.of([(d.day, d.delivered, d.undelivered) for d in activity.days]),
        pending.get(dag.dag_id, 0),
    )


def _workflow_state(dag: WorkflowDag, definitions: list[StoredWorkflow]) -> str:
    """Return the state of a DAG. It is inactive or a dry run only if all its workflows are."""
    known = [stored.definition for stored in definitions if stored.definition is not None]
    if dag.is_stale:
        return "missing"
    if dag.is_paused:
        return "paused"
    if known and not any(definition.active for definition in known):
        return "inactive"
    if known and all(definition.dry_run for definition in known):
        return "dry run"
    return "active"


def _receiver_state(health: ReceiverHealth, now: datetime) -> str:
    if health.retry_at is not None and health.retry_at > now:
        return "waiting"
    if health.failing_since is not None or health.error is not None:
        return "failing"
    if health.failed_at is not None:
        return "failing"
    if health.last_success is None:
        return "failing" if health.undelivered else "unknown"
    return "healthy"


def _counted_since(activities: Collection[Activity], now: datetime) -> datetime | None:
    """Return since when changes are counted; ``None`` if it is about since the beginning of the period."""
    since = min((one.counted_since for one in activities if one.counted_since is not None), default=None)
    return since if since is not None and since > first_moment(now) + timedelta(days=2) else None
