"""Search the ledgers in Airflow's task state store for delivered and undelivered messages.

A ledger's head names the task's receiver and counts its messages by state, so most ledgers need not be
opened. The search begins with the ledger that was written last, and ends when it has enough deliveries.
"""

from __future__ import annotations

import heapq
import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.models.dagrun import DagRun
from airflow.models.task_state_store import TaskStateStoreModel as State
from sqlalchemy import and_, or_, select

from airflow_insightly_hooks.core.delivery.delivery_record import PostOutcome
from airflow_insightly_hooks.core.delivery.ledger_store import HEAD
from airflow_insightly_hooks.core.delivery.stored_deliveries import (
    DELIVERED,
    DRY_RUN,
    LEFT,
    StoredLedger,
    StoredMessage,
)
from airflow_insightly_hooks.core.errors import InvalidState

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = [
    "UNDELIVERED",
    "Deliveries",
    "Delivery",
    "DeliveryFilter",
    "TaskKey",
    "WantedTasks",
    "search_deliveries",
]

UNDELIVERED = "undelivered"
"""A filter's state that matches all messages but those that are delivered, left to a retry DAG, or of a dry
run."""
_KEY = re.compile(rf"((?:[^/]+/)?)({HEAD}(?:/([0-9]+-[0-9a-f]+)/(.+))?)")
"""The keys of a ledger. Groups: the prefix, the key without it, the token of a try, and the part's name."""
CHUNKS = (100, 400, 2_000, 10_000)
"""How many ledgers each step of the search reads; later steps read more."""

CLOCKS_DIFFER = timedelta(days=1)
"""How far a worker's clock may be behind the clock of the machine that created its run."""
LATEST = datetime.max.replace(tzinfo=timezone.utc) - CLOCKS_DIFFER
MOST_PATTERNS = 20
"""The most messages or records that a query searches for. If there are more, all blocks are read."""


class TaskKey(NamedTuple):
    """A deliver task of a run, and one of its ledgers: a task can deliver to several receivers."""

    dag_run_id: int
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    prefix: str  # the prefix of the ledger's keys: "", or the webhook's slug and a slash

    @property
    def shown_task(self) -> str:
        """The task's id; if the task is mapped, with its map index: ``deliver[3]``."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


class WantedTasks(NamedTuple):
    """Tasks of one DAG; a field that is ``None`` does not restrict the search."""

    dag_id: str
    run_id: str | None = None
    task_id: str | None = None
    map_index: int | None = None


class DeliveryFilter(NamedTuple):
    """Which deliveries to search for; a field that is ``None`` does not restrict the search.

    :param dag_ids: only deliveries of these DAGs.
    :param tasks: only deliveries of these tasks of one DAG.
    :param receiver: only to this receiver: a connection's id, or a part of the receiver's URI.
    :param records: only about these records: the type, or ``None`` for any type, and the id.
    :param message_ids: only these messages.
    :param state: one of ``core.delivery.stored_deliveries.STATES``, or ``"undelivered"``.
    :param since: only deliveries at this time or later; an aware time.
    :param until: only deliveries before this time; an aware time.
    """

    dag_ids: Collection[str] | None = None
    tasks: WantedTasks | None = None
    receiver: str | None = None
    records: Collection[tuple[str | None, int]] | None = None
    message_ids: Collection[str] | None = None
    state: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class Delivery(NamedTuple):
    """A message, and its state and outcomes in one task of one run."""

    key: TaskKey
    conn_id: str | None
    receiver: str | None
    message: StoredMessage
    at: datetime
    """When the last POST ended, in UTC; before the first POST, when the ledger was written last."""

    @property
    def last(self) -> PostOutcome | None:
        """The outcome of the last POST, if there is one."""
        return self.message.outcomes[-1] if self.message.outcomes else None


class Deliveries(NamedTuple):
    """A page of deliveries, newest first."""

    rows: list[Delivery]
    has_more: bool
    unreadable: int
    """How many ledgers couldn't be read: another version has written them, or the workers' own state store
    backend stores them."""


def search_deliveries(
    session: Session, wanted: DeliveryFilter, *, limit: int = 100, offset: int = 0
) -> Deliveries:
    """Return the deliveries that match, newest first.

    :param limit: the most deliveries to return.
    :param offset: how many of the newest deliveries to skip.
    """
    search = _Search(session, wanted)
    rows: list[Delivery] = []
    for number, row in enumerate(search.rows()):
        if number == offset + limit:
            return Deliveries(rows, True, search.unreadable)
        if number >= offset:
            rows.append(row)
    return Deliveries(rows, False, search.unreadable)


class _Head(NamedTuple):
    key: TaskKey
    token: str
    updated_at: datetime


class _Search:
    """One search.

    :ivar unreadable: how many ledgers couldn't be read so far.
    """

    def __init__(self, session: Session, wanted: DeliveryFilter) -> None:
        self._session, self._wanted = session, wanted
        self.unreadable = 0

    def rows(self) -> Iterator[Delivery]:
        """Yield the deliveries that match, newest first.

        No message of a ledger is newer than the ledger's last write. So a delivery can be yielded once it is
        newer than all ledgers that are still to be opened.
        """
        waiting: list[tuple[float, int, Delivery]] = []
        count = 0
        for heads, oldest in self._chunks():
            for row in self._messages(heads):
                count += 1
                heapq.heappush(waiting, (-row.at.timestamp(), count, row))
            # Outcomes are stored in whole seconds.
            while waiting and (oldest is None or -waiting[0][0] >= int(oldest.timestamp())):
                yield heapq.heappop(waiting)[2]

    def _chunks(self) -> Iterator[tuple[list[_Head], datetime | None]]:
        """Yield heads, the last written first, with the oldest one's time; ``None`` if no heads follow."""
        last: tuple[datetime, int] | None = None
        sizes = iter(CHUNKS)
        size = 0
        while True:
            size = next(sizes, size)
            found = self._session.execute(self._heads(last).limit(size)).all()
            heads = [
                _Head(TaskKey(row[2], row[3], row[4], row[5], row[6], parts[1]), parts[3], row[1])
                for row in found
                if (parts := _KEY.fullmatch(row[7])) is not None and parts[4] == "head"
            ]
            is_end = len(found) < size
            yield heads, None if is_end else found[-1][1]
            if is_end:
                return
            last = (found[-1][1], found[-1][0])

    def _heads(self, last: tuple[datetime, int] | None) -> Any:
        query = select(
            State.id,
            State.updated_at,
            State.dag_run_id,
            State.dag_id,
            State.run_id,
            State.task_id,
            State.map_index,
            State.key,
        ).where(State.key.like(f"%{HEAD}/%/head"))
        wanted = self._wanted
        if wanted.dag_ids is not None:
            query = query.where(State.dag_id.in_(wanted.dag_ids))
        if wanted.tasks is not None:
            named = {name: value for name, value in wanted.tasks._asdict().items() if value is not None}
            query = query.where(*(getattr(State, name) == value for name, value in named.items()))
        if wanted.since is not None:  # a ledger is written after the POSTs that it records
            query = query.where(State.updated_at >= wanted.since)
        if wanted.until is not None:  # a run sends nothing before its time, even if it is cleared
            query = query.join(DagRun, DagRun.id == State.dag_run_id)
            query = query.where(DagRun.run_after < min(wanted.until, LATEST) + CLOCKS_DIFFER)
        if last is not None:
            query = query.where(
                or_(State.updated_at < last[0], and_(State.updated_at == last[0], State.id < last[1]))
            )
        return query.order_by(State.updated_at.desc(), State.id.desc())

    # --- opening ledgers -----------------------------------------------------------------------------------

    def _messages(self, heads: Sequence[_Head]) -> Iterator[Delivery]:
        ledgers = dict(self._ledgers(heads))
        values = self._values(ledgers)
        for (key, updated_at), ledger in ledgers.items():
            own = values.get(key, {})
            try:
                messages = list(ledger.messages(own.get))
            except InvalidState:
                self.unreadable += 1
                continue
            conn_id, receiver = ledger.about.get("conn_id"), ledger.about.get("receiver")
            for message in messages:
                at = message.outcomes[-1].at if message.outcomes else updated_at
                row = Delivery(key, conn_id, receiver, message, at)
                if self._matches(row):
                    yield row

    def _ledgers(self, heads: Sequence[_Head]) -> Iterator[tuple[tuple[TaskKey, datetime], StoredLedger]]:
        """Yield the current ledger of each task, if it may hold a delivery that matches."""
        small = self._small_values(heads)
        for head in heads:
            own = small.get(head.key, {})
            try:
                ledger = StoredLedger.find(own.get)
            except InvalidState:
                self.unreadable += 1
                continue
            # Heads of earlier tries remain: of a try that was taken over, or was killed before a later try
            # continued from it.
            if ledger is not None and ledger.token == head.token and self._may_match(ledger):
                yield (head.key, head.updated_at), ledger

    def _small_values(self, heads: Sequence[_Head]) -> Mapping[TaskKey, dict[str, Any]]:
        """Return the claims and heads of ledgers."""
        return self._read(
            (head.key for head in heads),
            or_(State.key == HEAD, State.key.like(f"%/{HEAD}"), State.key.like(f"%{HEAD}/%/head")),
        )

    def _values(
        self, ledgers: Mapping[tuple[TaskKey, datetime], StoredLedger]
    ) -> Mapping[TaskKey, dict[str, Any]]:
        """Return the blocks and texts of ledgers.

        If the search is for a few records or messages, only the blocks that name them are returned.
        """
        is_part = and_(
            State.key.like(f"%{HEAD}/%"), State.key.not_like("%/archive/%"), State.key.not_like("%/head")
        )
        patterns = self._patterns()
        keys = [key for key, _ in ledgers]
        if patterns:
            is_text = State.key.like(f"%{HEAD}/%/texts/%")
            is_part = and_(
                is_part,
                or_(is_text, *(State.value.contains(pattern, autoescape=True) for pattern in patterns)),
            )
        return self._read(keys, is_part)

    def _patterns(self) -> list[str]:
        wanted = self._wanted
        if wanted.message_ids is not None and len(wanted.message_ids) <= MOST_PATTERNS:
            return [f'"{message}"' for message in wanted.message_ids]
        if wanted.records is not None and len(wanted.records) <= MOST_PATTERNS:
            return [f" {record_id} " for _, record_id in wanted.records]
        return []

    def _read(self, keys: Iterable[TaskKey], which: Any) -> Mapping[TaskKey, dict[str, Any]]:
        """Return values by task and by key; the keys have no prefix."""
        runs = sorted({key.dag_run_id for key in keys})
        found: defaultdict[TaskKey, dict[str, Any]] = defaultdict(dict)
        columns = (
            State.dag_run_id,
            State.dag_id,
            State.run_id,
            State.task_id,
            State.map_index,
            State.key,
            State.value,
        )
        for start in range(0, len(runs), 5_000):
            query = select(*columns).where(State.dag_run_id.in_(runs[start : start + 5_000]), which)
            for row in self._session.execute(query):
                if (parts := _KEY.fullmatch(row[5])) is not None:
                    task = TaskKey(row[0], row[1], row[2], row[3], row[4], parts[1])
                    found[task][parts[2]] = json.loads(row[6])
        return found

    # --- what matches --------------------------------------------------------------------------------------

    def _may_match(self, ledger: StoredLedger) -> bool:
        wanted = self._wanted
        if wanted.state is not None and wanted.state != DELIVERED and not ledger.may_be_undelivered:
            return False
        if wanted.state == DELIVERED and ledger.counts and not ledger.has_delivered:
            return False
        if wanted.receiver is None:
            return True
        conn_id, receiver = ledger.about.get("conn_id"), ledger.about.get("receiver")
        return wanted.receiver == conn_id or wanted.receiver in str(receiver or "")

    def _matches(self, row: Delivery) -> bool:
        wanted, message = self._wanted, row.message
        if wanted.records is not None:
            about = message.about
            if about is None:
                return False
            of_type, of_any = (about.record_type, about.record_id), (None, about.record_id)
            if of_type not in wanted.records and of_any not in wanted.records:
                return False
        if wanted.message_ids is not None and message.message_id not in wanted.message_ids:
            return False
        if wanted.state == UNDELIVERED:
            if message.state in (DELIVERED, LEFT, DRY_RUN):
                return False
        elif wanted.state is not None and message.state != wanted.state:
            return False
        if wanted.since is not None and row.at < wanted.since:
            return False
        return wanted.until is None or row.at < wanted.until
