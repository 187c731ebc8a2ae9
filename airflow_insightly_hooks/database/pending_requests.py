"""Of which webhooks something may be pending, and what has become of requests to cancel it or to send it now.

The runs of one request have ids that begin in the same way: the action, then the time of the request
(``database.pending``). So these two name the request.
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
"""How long after the time of a request its last run is queued: all of them are, in one transaction."""


class RunProgress(NamedTuple):
    """A run that carries out a request, or a part of it, and how far it has come."""

    dag_id: str
    run_id: str
    action: str  # one of ACTIONS
    who: str  # the user who has asked
    state: str  # of the run, such as "queued"
    is_paused: bool  # the DAG
    entries: int  # that the request names
    waiting: int  # those of them that are still pending

    @property
    def has_ended(self) -> bool:
        """Whether the run does nothing more."""
        return self.state in (DagRunState.SUCCESS, DagRunState.FAILED)


def pending_names(session: Session) -> dict[str, set[str]]:
    """Return the workflows of which something may be pending, or is yet to be entered: their webhooks' names.

    No entry is read for that. A webhook stays there once it had something pending.
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
    """Return the name of the request that a run carries out; ``requested_runs`` finds its runs by it."""
    return run_id.rpartition("__")[0]


def requested_runs(session: Session, request: str, dag_ids: Collection[str]) -> list[RunProgress]:
    """Return the runs that carry a request out, by their ids; none if there is no such request.

    :param request: as ``request_name`` has named it.
    :param dag_ids: the workflows of which something may be pending: it is looked for among them.
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
    """Return the DAG that was asked: it may be gone by now."""
    return row.pending_dag_id or row.dag_id + PENDING_SUFFIX


def _entries(conf: object) -> Iterator[tuple[tuple[str, int], str | None]]:
    """Yield the webhook and the record id, and the time of the change, of what a run's conf names."""
    request = conf.get(REQUEST) if isinstance(conf, Mapping) else None
    entries = request.get("entries") if isinstance(request, Mapping) else None
    for webhook in entries if isinstance(entries, Mapping) else ():
        try:
            asked: PendingRequest = request_in({}, conf, webhook)
        except InvalidPayload:
            return
        for record_id, changed_at in {**asked.cancel, **asked.send_now}.items():
            yield (webhook, record_id), changed_at
