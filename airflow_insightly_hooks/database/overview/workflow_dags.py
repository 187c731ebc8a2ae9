"""Find the DAGs that work with Insightly's records, and their last runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from airflow.models import DagModel, DagRun
from airflow.models.asset import (
    AssetModel,
    DagScheduleAssetReference,
    TaskInletAssetReference,
    TaskOutletAssetReference,
)
from sqlalchemy import func, select, union

from airflow_insightly_hooks.core.workflow.dag_ids import workflow_dag_id
from airflow_insightly_hooks.database.delivery_details import delivering_dags
from airflow_insightly_hooks.database.overview.ledgers import Ledgers, of_dags

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["LastRun", "WorkflowDag", "assets_of", "find_workflow_dags", "insightly_dags"]

URI = "insightly://"


class LastRun(NamedTuple):
    """The run of a DAG that was created last.

    :param state: its state in Airflow, such as ``success``.
    :param started_at: when it started, in UTC; ``None`` if it has not started yet.
    :param ended_at: when it ended, in UTC; ``None`` if it has not ended yet.
    """

    run_id: str
    state: str
    started_at: datetime | None
    ended_at: datetime | None


class WorkflowDag(NamedTuple):
    """A DAG that works with Insightly's records.

    :param dag_id: its id. DAGs that only send for a workflow are not listed here.
    :param display_name: the name that Airflow shows.
    :param is_paused: whether it is paused.
    :param is_stale: whether its file is gone or broken.
    :param last_run: its last run; ``None`` if it has never run.
    :param sending_dag_ids: the DAGs that send its pending webhooks, or its messages that wait for a receiver,
        by id.
    """

    dag_id: str
    display_name: str
    is_paused: bool
    is_stale: bool
    last_run: LastRun | None
    sending_dag_ids: tuple[str, ...]


def find_workflow_dags(session: Session, dag_ids: Collection[str], ledgers: Ledgers) -> list[WorkflowDag]:
    """Return the DAGs that work with Insightly's records, by id.

    Their tasks or schedules refer to an asset of this package, or a task has written a ledger in ``DAYS``
    days.

    :param ledgers: the counts of these DAGs' tasks.
    """
    ours = {dag_id for dag_id, _ in assets_of(session, dag_ids)} | {x.dag_id for x in ledgers.ledgers}
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


def insightly_dags(session: Session, dag_ids: Collection[str]) -> set[str]:
    """Return the DAGs that refer to an asset of this package, or have delivered a message.

    An Airflow may have hundreds of DAGs, and only a few of them are returned. This saves time: it is slow to
    check a user's permissions for each DAG.
    """
    return {dag_id for dag_id, _ in assets_of(session, dag_ids)}.union(delivering_dags(session, dag_ids))


def assets_of(session: Session, dag_ids: Collection[str]) -> set[tuple[str, str]]:
    """Return the assets of this package that these DAGs refer to: the DAG's id, and the asset's name."""
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
