"""Read all data that the overview shows.

Each part gets the ids of the DAGs that the user may read, and returns nothing about other DAGs. No XCom is
read, and no DAG is deserialized. The task state store is read once for all parts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from airflow_insightly_hooks.database.overview.accounts import Account, accounts
from airflow_insightly_hooks.database.overview.activity import Activity, activity
from airflow_insightly_hooks.database.overview.ledgers import first_moment, read_ledgers
from airflow_insightly_hooks.database.overview.receivers import ReceiverHealth, receivers
from airflow_insightly_hooks.database.overview.workflow_dags import WorkflowDag, find_workflow_dags
from airflow_insightly_hooks.database.pending import PendingCounts, pending_counts

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["Overview", "read_overview"]


class Overview(NamedTuple):
    """All data that the overview shows."""

    workflows: list[WorkflowDag]
    activity: Mapping[str, Activity]
    """The activity by the workflow's ``dag_id``."""
    receivers: list[ReceiverHealth]
    accounts: list[Account]
    pending: PendingCounts


def read_overview(session: Session, dag_ids: Collection[str], now: datetime) -> Overview:
    """Return all data that the overview shows.

    :param dag_ids: the DAGs that the user may read.
    :param now: the current time, aware.
    """
    ledgers = read_ledgers(session, dag_ids, first_moment(now))
    return Overview(
        find_workflow_dags(session, dag_ids, ledgers),
        {found.dag_id: found for found in activity(dag_ids, now, ledgers)},
        receivers(session, dag_ids, now, ledgers),
        accounts(session, dag_ids, now, ledgers),
        pending_counts(session, dag_ids),
    )
