"""What is pending in all workflows, and requests to cancel it or to send it now.

Pending webhooks are blocks of an asset's state (``core.state.pending_webhooks``). They are read in one
statement, whose rows are of one moment: then each head that is seen has its blocks. Nothing is written there,
since one ``due`` task at a time is the only writer. A request is a run of the DAG that sends the webhooks,
and its conf names the entries (``core.state.pending_request``). The run's ``due`` tasks carry the request out
once, however often they are killed, retried or cleared.
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
"""Entries that one run's conf names: Airflow's pages load the conf of each run that they list."""
SCHEDULING = "from__"
"""How the ids of the runs begin that enter what a workflow's run has scheduled."""
MOST_PREFIXES = 100
"""Workflows whose keys a query looks for; of more, all are read."""
ELSEWHERE = "__airflow_state_ref__"
"""The only key of a value that ``[workers] state_store_backend`` keeps outside of the database."""


class PendingRow(NamedTuple):
    """A webhook that waits for its time."""

    due: datetime  # aware, UTC
    dag_id: str  # the workflow's
    webhook: str  # its name, as task ids have it
    record_type: str
    record_id: int
    event: str  # "added" or "updated"
    changed_at: str  # the time of the change that triggered, as stored: ISO 8601, or as the API writes it
    pending_dag_id: str | None  # the DAG that sends it; None: there is none any more


class PendingDag(NamedTuple):
    """A DAG that sends what is pending."""

    dag_id: str
    is_paused: bool
    queued: int  # its runs that are queued, and have not entered yet what they were triggered for


class PendingPage(NamedTuple):
    """A part of what is pending."""

    rows: list[PendingRow]  # by the time that they are due
    total: int  # rows of all parts
    dags: list[PendingDag]  # those that send them, also rows of other parts and what isn't entered yet
    unreadable: list[InvalidState]  # state whose entries are missing here, since they can't be read


class PendingCounts(NamedTuple):
    """How much is pending, by the workflow's ``dag_id``; one of which nothing is pending may be missing."""

    counts: Mapping[str, int]
    unreadable: Mapping[str, int]  # webhooks whose state can't be read, and is not counted


class RequestedRun(NamedTuple):
    """A run that carries out a request, or a part of it."""

    dag_id: str
    run_id: str
    entries: int
    is_paused: bool  # the DAG; the run waits then until it is unpaused


class PendingDagNotFound(InsightlyHooksError):
    """No DAG sends what is pending of a ``webhook`` of the workflow ``dag_id``."""

    def __init__(self, dag_id: str, webhook: str) -> None:
        super().__init__(dag_id, webhook)
        self.dag_id = dag_id
        self.webhook = webhook

    def __str__(self) -> str:
        return (
            f"no DAG sends what is pending of {self.dag_id}/{self.webhook}: its file is gone or broken, or "
            "the webhook's name, the record type or the connection was changed. So it is not sent, and need "
            "not be cancelled. Leave it out, or bring the DAG back"
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
    """Return what is pending, by the time that it is due.

    :param dag_ids: only of these workflows; empty: of all.
    :param webhooks: only of these webhooks, as ``PendingRow.webhook`` names them; empty: of all.
    :param record_ids: only of these records; empty: of all.
    :param limit: rows at the most; ``None``: all.
    :param offset: rows before the first one that is returned.
    """
    books = [b for b in _books(session, dag_ids) if not webhooks or b.webhook in webhooks]
    senders, dags = _senders(session, books, dag_ids)
    found: list[tuple[PendingWebhook, _Book]] = []
    unreadable = []
    for book in books:
        try:
            entries = book.entries()
        except InvalidState as error:
            unreadable.append(error)
        else:
            found += [(e, book) for e in entries if not record_ids or e.record_id in record_ids]
    found.sort(key=lambda item: (item[0].due, item[0].record_id))
    rows = [
        PendingRow(
            entry.due,
            book.workflow,
            book.webhook,
            book.record_type,
            entry.record_id,
            entry.event,
            entry.changed_at,
            senders.get(book),
        )
        for entry, book in found[offset : None if limit is None else offset + limit]
    ]
    return PendingPage(rows, len(found), dags, unreadable)


def pending_counts(session: Session, dag_ids: Collection[str]) -> PendingCounts:
    """Return how much is pending of these workflows, without reading each entry."""
    counts: Counter[str] = Counter()
    unreadable: Counter[str] = Counter()
    for book in _books(session, dag_ids) if dag_ids else ():
        try:
            counts[book.workflow] += book.count()
        except InvalidState:
            unreadable[book.workflow] += 1
    return PendingCounts(counts, unreadable)


def cancel(
    session: Session,
    rows: Iterable[PendingRow],
    *,
    who: str,
    triggered_by: DagRunTriggeredByType = DagRunTriggeredByType.CLI,
) -> list[RequestedRun]:
    """Ask for pending webhooks not to be sent; ``send_now`` takes, returns and raises the same."""
    return _request(session, CANCEL, rows, who, triggered_by)


def send_now(
    session: Session,
    rows: Iterable[PendingRow],
    *,
    who: str,
    triggered_by: DagRunTriggeredByType = DagRunTriggeredByType.CLI,
) -> list[RequestedRun]:
    """Ask for pending webhooks to be sent at once, as if they were due.

    :param rows: what is meant, as ``pending_webhooks`` has returned it. What is no longer pending when the
        request is carried out is left out, and so is what was scheduled anew of the same records.
    :param who: the user who asks; Airflow shows it as the one who has triggered the runs.
    :returns: the runs that are queued once the session is committed; several where the rows are of several
        DAGs, or more than ``ENTRIES_IN_RUN``.
    :raises PendingDagNotFound: if no DAG sends one of them; nothing is asked for then.
    """
    return _request(session, SEND_NOW, rows, who, triggered_by)


class _Book:
    """What is pending of one webhook, as the database has it."""

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
        """Of the DAGs that may send it: a DAG of one's own has any name, but it has written this."""

    def entries(self) -> list[PendingWebhook]:
        """Return them.

        :raises InvalidState: if they can't be read.
        """
        return self._pending().all()

    def count(self) -> int:
        """Return how many there are.

        :raises InvalidState: if it can't be told.
        """
        return self._pending().count()

    def _pending(self) -> PendingWebhooks:
        if any(isinstance(value, Mapping) and ELSEWHERE in value for value in self._values.values()):
            raise InvalidState(
                self._key,
                "workers keep it outside of Airflow's database ([workers] state_store_backend): it can't be "
                "listed here. The parameters of the DAG that sends it work all the same "
                "(docs/reference/workflow-files.md)",
            )
        return PendingWebhooks(StoredValues(self._values), self._key)


def _books(session: Session, dag_ids: Collection[str]) -> Iterator[_Book]:
    """Yield what is pending of each webhook, unread; without ``dag_ids``, of all workflows."""
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
            book = _Book(asset_and_name, head, of_head, writers.get((asset_and_name[0], head)))
            if not dag_ids or book.workflow in dag_ids:
                yield book


def _head_of(key: str, value: object) -> str:
    """Return the key of the head that a value belongs to, or that it is; the head itself may be lost."""
    parent, _, last = key.rpartition("/")
    is_head = isinstance(value, Mapping) and "version" in value
    return parent if not is_head and (last == KEPT or last.isdecimal()) else key


def _senders(
    session: Session, books: Iterable[_Book], dag_ids: Collection[str]
) -> tuple[dict[_Book, str], list[PendingDag]]:
    """Return the ids of the DAGs that send what is pending; and these DAGs, and those yet to enter something.

    A DAG sends what its tasks have the asset of: one that reads another record type by now doesn't.
    """
    dags = {dag.dag_id: dag for dag in _pending_dags(session, {i for book in books for i in book.dag_ids})}
    inlets = select(TaskInletAssetReference.dag_id, TaskInletAssetReference.asset_id).where(
        TaskInletAssetReference.dag_id.in_(dags)
    )
    reads = {tuple(row) for row in session.execute(inlets)}
    senders: dict[_Book, str] = {}
    for book in books:
        for dag_id in book.dag_ids:
            if (dag_id, book.asset_id) in reads:
                senders.setdefault(book, dag_id)
    shown = [
        dag
        for dag in dags.values()
        if dag.dag_id in senders.values()
        or (dag.queued and (not dag_ids or dag.dag_id.removesuffix(PENDING_SUFFIX) in dag_ids))
    ]
    return senders, shown


def _pending_dags(session: Session, dag_ids: Collection[str]) -> list[PendingDag]:
    """Return those of the DAGs that Airflow knows, and all that may send what is pending, by their names."""
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
    """Queue the runs that carry a request out."""
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
            # Of two users who ask at the same moment, each gets a run.
            run_id = f"{action}__{now}__{digest_of(repr((who, start, part)))}"
            trigger_dag(
                dag_id,
                run_id=run_id,
                conf=request_conf(action, entries, requested_by=who, requested_at=now),
                triggered_by=triggered_by,
                triggering_user_name=who,
                note=f"{len(part)} pending webhooks: {action.replace('_', ' ')}, asked for by {who}",
                session=session,
            )
            runs.append(RequestedRun(dag_id, run_id, len(part), paused[dag_id]))
    return runs
