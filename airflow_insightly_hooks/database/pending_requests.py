"""Find the webhooks that may have pending entries, and the progress of requests to cancel or send them.

The runs of one request have ids that begin in the same way: with the action, then the time of the request
(``database.pending``). So these two together are the request's name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from airflow.models import DagModel, DagRun
from airflow.models.asset_state_store import AssetStateStoreModel
from airflow.utils.state import DagRunState
from sqlalchemy import select

from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.errors import InvalidPayload, InvalidTime
from airflow_insightly_hooks.core.state.pending_request import (
    ACTIONS,
    REQUEST,
    PendingRequest,
    request_in,
)
from airflow_insightly_hooks.core.state.pending_webhooks import KEYS
from airflow_insightly_hooks.core.workflow.dag_ids import PENDING_SUFFIX
from airflow_insightly_hooks.database.pending import PendingRow, pending_webhooks

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["RunProgress", "pending_names", "request_name", "requested_runs"]

QUEUED_WITHIN = timedelta(minutes=30)
"""The longest time between a request and the creation of its last run. One transaction creates all runs."""


class RunProgress(NamedTuple):
    """A run that carries out a request or a part of it, and its progress."""

    dag_id: str
    run_id: str
    action: str  # one of ACTIONS
    who: str  # the user who made the request
    state: str  # the run's state, such as "queued"
    is_paused: bool  # whether the DAG is paused
    entries: int  # how many entries the request names
    waiting: int  # how many of these entries are still pending

    @property
    def has_ended(self) -> bool:
        """Whether the run has ended."""
        return self.state in (DagRunState.SUCCESS, DagRunState.FAILED)


def pending_names(session: Session) -> dict[str, set[str]]:
    """Return the workflows that have, or may get, pending entries, each with its webhooks' names.

    No entry is read for this. A webhook is included if it has ever had a pending entry.
    """
    names: dict[str, set[str]] = defaultdict(set)
    key = AssetStateStoreModel.key
    for text in session.scalars(select(key).where(key.startswith(KEYS, autoescape=True))):
        workflow, _, rest = text.removeprefix(KEYS).partition("/")
        names[workflow].add(rest.partition("/")[0])
    sending = select(DagModel.dag_id).where(
        DagModel.is_stale.is_(False), DagModel.dag_id.endswith(PENDING_SUFFIX, autoescape=True)
    )
    for dag_id in session.scalars(sending):
        names.setdefault(dag_id.removesuffix(PENDING_SUFFIX), set())
    return dict(names)


def request_name(run_id: str) -> str:
    """Return the name of the request that a run carries out, for ``requested_runs``."""
    return run_id.rpartition("__")[0]


def requested_runs(session: Session, request: str, dag_ids: Collection[str]) -> list[RunProgress]:
    """Return the runs that carry out a request, by DAG id; an empty list if the request isn't found.

    :param request: the request's name, from ``request_name``.
    :param dag_ids: the workflows whose pending entries are read.
    """
    action, _, asked_at = request.partition("__")
    try:
        at = api_time(asked_at)
        earliest, latest = at - timedelta(minutes=1), at + QUEUED_WITHIN
    except (InvalidTime, OverflowError):
        return []
    if action not in ACTIONS:
        return []
    statement = (
        select(
            DagRun.dag_id,
            DagRun.run_id,
            DagRun.state,
            DagRun.conf,
            DagRun.triggering_user_name,
            DagModel.is_paused,
        )
        .join(DagModel, DagModel.dag_id == DagRun.dag_id)
        .where(
            DagRun.run_after.between(earliest, latest),  # it has an index
            DagRun.run_id.startswith(f"{request}__", autoescape=True),
        )
        .order_by(DagRun.dag_id, DagRun.id)
    )
    found = session.execute(statement).all()
    rows = pending_webhooks(session, dag_ids=dag_ids).rows if found and dag_ids else []
    pending = {(_sender(row), row.webhook, row.record_id): row.changed_at for row in rows}
    return [
        RunProgress(dag_id, run_id, action, who or "", str(state), is_paused, len(entries), waiting)
        for dag_id, run_id, state, conf, who, is_paused in found
        if (entries := list(_entries(conf)))
        for waiting in [sum(pending.get((dag_id, *place)) == changed for place, changed in entries)]
    ]


def _sender(row: PendingRow) -> str:
    """Return the id of the DAG that got the request; the DAG may no longer exist."""
    return row.pending_dag_id or row.dag_id + PENDING_SUFFIX


def _entries(conf: object) -> Iterator[tuple[tuple[str, int], str | None]]:
    """Yield each entry that a run's conf names: the webhook and the record id, and the time of the change."""
    request = conf.get(REQUEST) if isinstance(conf, Mapping) else None
    entries = request.get("entries") if isinstance(request, Mapping) else None
    for webhook in entries if isinstance(entries, Mapping) else ():
        try:
            asked: PendingRequest = request_in({}, conf, webhook)
        except InvalidPayload:
            return
        for record_id, changed_at in {**asked.cancel, **asked.send_now}.items():
            yield (webhook, record_id), changed_at
