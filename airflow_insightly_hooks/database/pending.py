"""Read the pending webhooks of all workflows, and request to cancel them or to send them now.

Pending webhooks are stored in blocks of an asset's state (``core.state.pending_webhooks``). One statement
reads them, and all its rows are from one moment. So each head has its blocks. This module writes nothing
there, because the only writer is a ``due`` task, one at a time. A request is a run of the DAG that sends the
webhooks, and its conf names the entries (``core.state.pending_request``). The run's ``due`` tasks carry out
the request once, even if they are killed, retried or cleared.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.api.common.trigger_dag import trigger_dag
from airflow.models import DagModel, DagRun
from airflow.models.asset import AssetModel, TaskInletAssetReference
from airflow.models.asset_state_store import AssetStateStoreModel
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType
from sqlalchemy import func, or_, select

from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.digest import digest_of
from airflow_insightly_hooks.core.errors import InsightlyHooksError, InvalidState
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.core.state.pending_request import CANCEL, SEND_NOW, request_conf
from airflow_insightly_hooks.core.state.pending_webhooks import KEYS, PendingWebhook, PendingWebhooks
from airflow_insightly_hooks.core.state.state_store import KEPT
from airflow_insightly_hooks.core.workflow.dag_ids import PENDING_SUFFIX
from airflow_insightly_hooks.database.state import StoredValues

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = [
    "PendingCounts",
    "PendingDag",
    "PendingDagNotFound",
    "PendingPage",
    "PendingRow",
    "RequestedRun",
    "cancel",
    "pending_counts",
    "pending_webhooks",
    "send_now",
]

ENTRIES_IN_RUN = 1_000
"""The most entries that one run's conf names: Airflow's pages load the conf of each run that they list."""
SCHEDULING = "from__"
"""The beginning of the ids of runs that add a workflow's scheduled webhooks to the pending ones."""
MOST_PREFIXES = 100
"""The most workflows whose keys a query names. If there are more, it reads all workflows."""
ELSEWHERE = "__airflow_state_ref__"
"""The only key of a value that ``[workers] state_store_backend`` stores outside of the database."""


class PendingRow(NamedTuple):
    """A webhook that waits for its time."""

    due: datetime  # aware, UTC
    dag_id: str  # the workflow's DAG
    webhook: str  # the webhook's name, as in task ids
    record_type: str
    record_id: int
    event: str  # "added" or "updated"
    changed_at: str  # the time of the change that triggered it, as stored: ISO 8601, or the API's form
    pending_dag_id: str | None  # the DAG that sends it; None if there is no such DAG any more


class PendingDag(NamedTuple):
    """A DAG that sends pending webhooks."""

    dag_id: str
    is_paused: bool
    queued: int  # how many of its runs are queued, and have not added their webhooks yet


class PendingPage(NamedTuple):
    """One page of the pending webhooks."""

    rows: list[PendingRow]  # by due time
    total: int  # how many rows all pages have
    dags: list[PendingDag]  # the DAGs that send the rows of all pages, and those that will add webhooks
    unreadable: list[InvalidState]  # an error for each webhook whose entries are missing here


class PendingCounts(NamedTuple):
    """How many entries are pending, by the workflow's ``dag_id``; a workflow with no entry may be missing."""

    counts: Mapping[str, int]
    unreadable: Mapping[str, int]  # how many webhooks are not counted, because their state can't be read


class RequestedRun(NamedTuple):
    """A run that carries out a request, or a part of it."""

    dag_id: str
    run_id: str
    entries: int
    is_paused: bool  # whether the DAG is paused; if so, the run waits until the DAG is unpaused


class PendingDagNotFound(InsightlyHooksError):
    """No DAG sends the pending entries of a webhook.

    Cause: Raised when a user asks to cancel pending entries or to send them now, and the file of their DAG is
    gone or broken, or the webhook's name, the record type or the connection was changed.

    Remedy: Leave these entries out of the request: they are not sent, so you need not cancel them. To send
    them, restore the DAG's file, or undo the change.

    :param dag_id: the workflow's DAG.
    :param webhook: the webhook's name, as in task ids.
    """

    def __init__(self, dag_id: str, webhook: str) -> None:
        super().__init__(dag_id, webhook)
        self.dag_id = dag_id
        self.webhook = webhook

    def __str__(self) -> str:
        return (
            f"no DAG sends the pending entries of {self.dag_id}/{self.webhook}: the DAG's file is gone or "
            "broken, or the webhook's name, the record type or the connection was changed. The entries are "
            "not sent, so you need not cancel them: leave them out. To send them, restore the DAG"
        )


def pending_webhooks(
    session: Session,
    *,
    dag_ids: Collection[str] = (),
    webhooks: Collection[str] = (),
    record_ids: Collection[int] = (),
    limit: int | None = None,
    offset: int = 0,
) -> PendingPage:
    """Return the pending webhooks, by due time.

    :param dag_ids: only those of these workflows; if empty, of all.
    :param webhooks: only these webhooks, as ``PendingRow.webhook`` names them; if empty, all.
    :param record_ids: only those of these records; if empty, of all.
    :param limit: the most rows to return; ``None`` returns all.
    :param offset: how many rows to skip.
    """
    all_stored = [s for s in _stored_webhooks(session, dag_ids) if not webhooks or s.webhook in webhooks]
    senders, dags = _senders(session, all_stored, dag_ids)
    found: list[tuple[PendingWebhook, _StoredWebhook]] = []
    unreadable = []
    for stored in all_stored:
        try:
            entries = stored.entries()
        except InvalidState as error:
            unreadable.append(error)
        else:
            found += [(e, stored) for e in entries if not record_ids or e.record_id in record_ids]
    found.sort(key=lambda item: (item[0].due, item[0].record_id))
    rows = [
        PendingRow(
            entry.due,
            stored.workflow,
            stored.webhook,
            stored.record_type,
            entry.record_id,
            entry.event,
            entry.changed_at,
            senders.get(stored),
        )
        for entry, stored in found[offset : None if limit is None else offset + limit]
    ]
    return PendingPage(rows, len(found), dags, unreadable)


def pending_counts(session: Session, dag_ids: Collection[str]) -> PendingCounts:
    """Return how many entries are pending for each of these workflows, without reading the entries."""
    counts: Counter[str] = Counter()
    unreadable: Counter[str] = Counter()
    for stored in _stored_webhooks(session, dag_ids) if dag_ids else ():
        try:
            counts[stored.workflow] += stored.count()
        except InvalidState:
            unreadable[stored.workflow] += 1
    return PendingCounts(counts, unreadable)


def cancel(
    session: Session,
    rows: Iterable[PendingRow],
    *,
    who: str,
    triggered_by: DagRunTriggeredByType = DagRunTriggeredByType.CLI,
) -> list[RequestedRun]:
    """Request that pending webhooks are not sent.

    The arguments, the result and the errors are the same as for ``send_now``.
    """
    return _request(session, CANCEL, rows, who, triggered_by)


def send_now(
    session: Session,
    rows: Iterable[PendingRow],
    *,
    who: str,
    triggered_by: DagRunTriggeredByType = DagRunTriggeredByType.CLI,
) -> list[RequestedRun]:
    """Request that pending webhooks are sent at once, as if they were due.

    :param rows: the rows to send, from ``pending_webhooks``. When the request is carried out, it skips a row
        that is no longer pending, or that was scheduled again for the same record in the meantime.
    :param who: the user who makes the request; Airflow shows that this user has triggered the runs.
    :returns: the runs that are queued once the session is committed. There are several if the rows belong to
        several DAGs, or are more than ``ENTRIES_IN_RUN``.
    :raises PendingDagNotFound: if a row has no DAG that sends it; then nothing is requested.
    """
    return _request(session, SEND_NOW, rows, who, triggered_by)


class _StoredWebhook:
    """The stored pending entries of one webhook."""

    def __init__(
        self, asset: tuple[int, str], key: str, values: Mapping[str, Any], writer: str | None
    ) -> None:
        # Airflow's ids hold no "/", nor does a webhook's name there; a connection's id may.
        self.workflow, _, self.webhook = key.removeprefix(KEYS).rpartition("/")
        self.asset_id, asset_name = asset
        self.record_type = asset_name.rpartition("/")[2]
        self._key = key
        self._values = values
        usual = self.workflow + PENDING_SUFFIX
        self.dag_ids = [usual] if writer is None else [usual, writer]
        """The ids of the DAGs that may send the entries. A user's own DAG can have any id, but its tasks have
        written the state."""

    def entries(self) -> list[PendingWebhook]:
        """Return the entries.

        :raises InvalidState: if they can't be read.
        """
        return self._pending().all()

    def count(self) -> int:
        """Return the number of entries.

        :raises InvalidState: if it can't be read.
        """
        return self._pending().count()

    def _pending(self) -> PendingWebhooks:
        if any(isinstance(value, Mapping) and ELSEWHERE in value for value in self._values.values()):
            raise InvalidState(
                self._key,
                "workers store it outside of Airflow's database ([workers] state_store_backend), so it can't "
                "be listed here. Use the parameters of the DAG that sends it: they work all the same "
                "(docs/reference/workflow-files.md)",
            )
        return PendingWebhooks(StoredValues(self._values), self._key)


def _stored_webhooks(session: Session, dag_ids: Collection[str]) -> Iterator[_StoredWebhook]:
    """Yield the stored entries of each webhook, not decoded yet; without ``dag_ids``, of all workflows."""
    key = AssetStateStoreModel.key
    named = dag_ids if len(dag_ids) <= MOST_PREFIXES else ()
    prefixes = [f"{KEYS}{dag_id}/" for dag_id in named] or [KEYS]
    statement = (
        select(
            AssetModel.id,
            AssetModel.name,
            key,
            AssetStateStoreModel.value,
            AssetStateStoreModel.last_updated_by_dag_id,
        )
        .join(AssetModel, AssetModel.id == AssetStateStoreModel.asset_id)
        .where(or_(*(key.startswith(prefix, autoescape=True) for prefix in prefixes)))
    )
    values: dict[tuple[int, str], dict[str, Any]] = defaultdict(dict)
    writers: dict[tuple[int, str], str | None] = {}
    for asset_id, asset, name, text, writer in session.execute(statement):
        values[asset_id, asset][name] = json.loads(text)
        writers[asset_id, name] = writer
    for asset_and_name, of_asset in values.items():
        for head in sorted({_head_of(name, value) for name, value in of_asset.items()}):
            of_head = {n: value for n, value in of_asset.items() if n == head or n.startswith(f"{head}/")}
            stored = _StoredWebhook(asset_and_name, head, of_head, writers.get((asset_and_name[0], head)))
            if not dag_ids or stored.workflow in dag_ids:
                yield stored


def _head_of(key: str, value: object) -> str:
    """Return the key of the head that a value belongs to, even if the head is lost; a head's own key."""
    parent, _, last = key.rpartition("/")
    is_head = isinstance(value, Mapping) and "version" in value
    return parent if not is_head and (last == KEPT or last.isdecimal()) else key


def _senders(
    session: Session, all_stored: Iterable[_StoredWebhook], dag_ids: Collection[str]
) -> tuple[dict[_StoredWebhook, str], list[PendingDag]]:
    """Return the id of the DAG that sends each webhook's entries, and the DAGs to show.

    The DAGs to show are these, and those whose queued runs will add entries. A DAG sends the entries if a
    task of it has their asset. A DAG that now reads another record type doesn't.
    """
    dags = {
        dag.dag_id: dag
        for dag in _pending_dags(session, {i for stored in all_stored for i in stored.dag_ids})
    }
    inlets = select(TaskInletAssetReference.dag_id, TaskInletAssetReference.asset_id).where(
        TaskInletAssetReference.dag_id.in_(dags)
    )
    reads = {tuple(row) for row in session.execute(inlets)}
    senders: dict[_StoredWebhook, str] = {}
    for stored in all_stored:
        for dag_id in stored.dag_ids:
            if (dag_id, stored.asset_id) in reads:
                senders.setdefault(stored, dag_id)
    shown = [
        dag
        for dag in dags.values()
        if dag.dag_id in senders.values()
        or (dag.queued and (not dag_ids or dag.dag_id.removesuffix(PENDING_SUFFIX) in dag_ids))
    ]
    return senders, shown


def _pending_dags(session: Session, dag_ids: Collection[str]) -> list[PendingDag]:
    """Return the DAGs with these ids, and all other DAGs that may send pending webhooks, by id."""
    queued = (
        select(func.count())
        .where(
            DagRun.dag_id == DagModel.dag_id,
            DagRun.state == DagRunState.QUEUED,
            DagRun.run_id.startswith(SCHEDULING, autoescape=True),
        )
        .scalar_subquery()
    )
    statement = (
        select(DagModel.dag_id, DagModel.is_paused, queued)
        .where(
            DagModel.is_stale.is_(False),
            or_(DagModel.dag_id.in_(dag_ids), DagModel.dag_id.endswith(PENDING_SUFFIX, autoescape=True)),
        )
        .order_by(DagModel.dag_id)
    )
    return [PendingDag(*row) for row in session.execute(statement)]


def _request(
    session: Session, action: str, rows: Iterable[PendingRow], who: str, triggered_by: DagRunTriggeredByType
) -> list[RequestedRun]:
    """Queue the runs that carry out a request."""
    by_dag: dict[str, list[PendingRow]] = defaultdict(list)
    for row in rows:
        if row.pending_dag_id is None:
            raise PendingDagNotFound(row.dag_id, row.webhook)
        by_dag[row.pending_dag_id].append(row)
    paused = {dag.dag_id: dag.is_paused for dag in _pending_dags(session, by_dag)}
    for dag_id, of_dag in by_dag.items():
        if dag_id not in paused:
            raise PendingDagNotFound(of_dag[0].dag_id, of_dag[0].webhook)
    now = iso_time(datetime.now(timezone.utc))
    runs = []
    for dag_id, of_dag in by_dag.items():
        for start in range(0, len(of_dag), ENTRIES_IN_RUN):
            part = of_dag[start : start + ENTRIES_IN_RUN]
            entries: dict[str, dict[int, str]] = defaultdict(dict)
            for row in part:
                entries[row.webhook][row.record_id] = row.changed_at
            # Two users who make a request at the same moment get two runs.
            run_id = f"{action}__{now}__{digest_of(repr((who, start, part)))}"
            trigger_dag(
                dag_id,
                run_id=run_id,
                conf=request_conf(action, entries, requested_by=who, requested_at=now),
                triggered_by=triggered_by,
                triggering_user_name=who,
                note=(
                    f"{counted(len(part), 'pending webhook')}: {action.replace('_', ' ')}, requested by {who}"
                ),
                session=session,
            )
            runs.append(RequestedRun(dag_id, run_id, len(part), paused[dag_id]))
    return runs
