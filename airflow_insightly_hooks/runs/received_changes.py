"""The changes that Insightly's webhooks have brought, for tasks that want what they hold.

The endpoint keeps an object for each webhook where its connection says ``accept=entity``. A task reads the
objects from its own cursor, as a sensor reads Insightly's records (``runs.windows``). Events only wake it: if
one is lost, late or coalesced, no change is lost.

The objects' names have the clock of the API server that took the webhook. Several of them may differ, and be
ahead of the worker's, so what counts as read are names, not times: whatever stands there from ``LOOKBACK``
before the cursor on, and has not been read, is. A run by a data interval reads up to its end only.

What is written, in this order, so that every kill is right: what the run has read, into its task's state; the
names from the lookback, beside the cursor; the cursor. A try that was stopped before the cursor's write has
told nothing, and the next one begins anew.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, time, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from airflow.sdk import get_current_context

from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.detection.changes import ChangeWindow, RecordChange
from airflow_insightly_hooks.core.detection.storable_changes import storable
from airflow_insightly_hooks.core.digest import digest_of
from airflow_insightly_hooks.core.errors import (
    InsightlyHooksError,
    InvalidConnection,
    InvalidState,
    InvalidTime,
    LostCursor,
    NewerState,
    UntrustedClock,
)
from airflow_insightly_hooks.core.incoming.kept_entity import InvalidKeptEntity, KeptEntity, KeptName
from airflow_insightly_hooks.core.incoming.received_change import (
    ReceivedChange,
    latest_changes,
    received_change,
    unreadable_change,
)
from airflow_insightly_hooks.core.incoming.seen_names import SeenNames
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.hooks.assets import records_asset
from airflow_insightly_hooks.hooks.entity_store import EntityStore
from airflow_insightly_hooks.hooks.incoming import IncomingSettings, InsightlyIncomingHook
from airflow_insightly_hooks.runs.names_memory import NamesMemory, Remembered, ToldNames
from airflow_insightly_hooks.runs.task_state import PrefixedStore, TaskState
from airflow_insightly_hooks.runs.undeliverable import log_undeliverable
from airflow_insightly_hooks.runs.windows import WINDOW, RunWindows

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

__all__ = ["MissingInletError", "received_changes", "received_changes_asset"]

log = logging.getLogger(__name__)

LOOKBACK = timedelta(minutes=15)
"""How long before the cursor is looked for what has not been read: by so much clocks may differ."""
CLOCK_TOLERANCE = timedelta(minutes=5)
"""By how much the clocks of workers may differ."""
EVENT_TOLERANCE = timedelta(seconds=60)
"""By how much Insightly's clock, which events tell, may be ahead of the endpoint's."""
WRITING = timedelta(minutes=1)
"""An object that is younger, and can't be read, may be being written by a store that shows halves."""


class MissingInletError(InsightlyHooksError):
    """A task reads received changes, and can't access the state of the asset that holds its cursor.

    Cause: Raised when the asset is not among the task's inlets, or when the task is mapped: mapped tasks have
    no inlets.

    Remedy: Add the inlet that the message names. Read the changes in a task that is not mapped.

    :param asset: the asset's name.
    :param record_type: the record type that was asked for.
    :param insightly_conn_id: the connection of the account.
    """

    def __init__(self, asset: str, record_type: str, insightly_conn_id: str) -> None:
        super().__init__(asset, record_type, insightly_conn_id)
        self.asset = asset
        self.record_type = record_type
        self.insightly_conn_id = insightly_conn_id

    def __str__(self) -> str:
        return (
            f"asset {self.asset!r} is not among the task's inlets, so the cursor can't be stored: write "
            f"@task(inlets=[received_changes_asset({self.record_type!r}, {self.insightly_conn_id!r})]). A "
            f"mapped task has no inlets: read the changes in one that is not mapped"
        )


class _WorkerClockError(UntrustedClock):
    """``server`` is the worker's own time here."""

    def __str__(self) -> str:
        return (
            f"this worker's clock says that it is {self.server}, but {self.cursor} has been read up to "
            f"{self.read_to}. Nothing is read, since changes could be missed: have all machines keep the "
            f"same time, and set the cursor back in the asset's state if it was wrong"
        )


def received_changes_asset(record_type: str, insightly_conn_id: str = "insightly_default") -> Asset:
    """Return the asset that a task needs among its inlets to call ``received_changes``.

    :param record_type: a name of Insightly's API, such as ``Contacts``.
    :param insightly_conn_id: the connection of the account.
    :raises UnknownRecordType: if there is no such record type.
    """
    return records_asset(insightly_conn_id, RECORD_TYPES[record_type].name)


def received_changes(
    record_type: str,
    *,
    insightly_conn_id: str = "insightly_default",
    incoming_conn_id: str = InsightlyIncomingHook.default_conn_name,
    cursor: str | None = None,
) -> list[RecordChange]:
    """Return the changes that webhooks have brought since this task has last asked, the oldest first.

    Call it in a task whose inlets have ``received_changes_asset(record_type)``. A retry and a cleared run get
    the same changes again. Several changes of a record in one second are one, with the last contents. Airflow
    no longer logs what the task returns: it may hold records.

    :param record_type: a name of Insightly's API, such as ``Contacts``.
    :param insightly_conn_id: the connection of the account.
    :param incoming_conn_id: the connection by which the webhooks come; it has ``accept`` = ``entity``.
    :param cursor: the name of the task's cursor; by default ``{dag_id}/{task_id}``.
    :returns: changes as the sensor's. One that can't be read, or of which no body can be built, has an empty
        ``record``, and says why under ``undeliverable``.
    :raises UnknownRecordType: if there is no such record type.
    :raises MissingInletError: if the asset is not among the task's inlets.
    :raises InvalidConnection: if the connection can't be used, keeps nothing, or is another account's.
    :raises UntrustedClock: if this worker's clock is far behind the cursor.
    :raises InvalidWindow: if a backfill's run has no window.
    """
    kind = RECORD_TYPES[record_type]
    context = get_current_context()
    asset = records_asset(insightly_conn_id, kind.name)
    try:
        state = context["asset_state_store"][asset]
    except KeyError:
        raise MissingInletError(asset.name, kind.name, insightly_conn_id) from None
    settings = _settings(incoming_conn_id, insightly_conn_id)
    _hide_return_value(context)
    # A task may ask for several record types: each has values of its own in the task's state.
    task_state = PrefixedStore(TaskState(context["task_state_store"]), f"received/{kind.name}/")
    own = cast("Context", {**context, "task_state_store": task_state})
    windows = RunWindows(own, context["ti"], asset, cursor=cursor)
    memory = NamesMemory(state, windows.cursor_key)
    store = EntityStore(settings.entity_path or "", insightly_conn_id)
    ti = context["ti"]
    run = digest_of("/".join(map(str, (ti.dag_id, ti.run_id, ti.task_id, ti.map_index))))
    told, days = ToldNames(task_state), settings.entity_days
    found = _Reading(windows, memory, told, store, kind.name, days, run).changes()
    context["ti"].xcom_push(key=WINDOW, value=found.window.as_dict())
    log_undeliverable(log, found.changes)
    return [storable(change) for change in found.changes]


def _hide_return_value(context: Context) -> None:
    """Keep what the task returns out of its log, where Airflow's Python operators write it by default."""
    task: Any = context.get("task")
    if hasattr(task, "show_return_value_in_logs"):
        task.show_return_value_in_logs = False


def _settings(incoming_conn_id: str, insightly_conn_id: str) -> IncomingSettings:
    settings = InsightlyIncomingHook(incoming_conn_id).get_conn()
    if settings.entity_path is None:
        raise InvalidConnection(
            incoming_conn_id,
            "extra.accept",
            "it is notice, so what webhooks hold is dropped: entity is needed",
        )
    if settings.insightly_conn_id != insightly_conn_id:
        raise InvalidConnection(
            incoming_conn_id,
            "extra.insightly_conn_id",
            f"it is {settings.insightly_conn_id!r}, and changes of {insightly_conn_id!r} are asked for",
        )
    return settings


class _Found(NamedTuple):
    window: ChangeWindow
    changes: list[RecordChange]


class _Reading:
    """One run's reading.

    :param windows: what the run covers, and its cursor.
    :param memory: what is remembered beside the cursor.
    :param told: what an earlier try has read.
    :param store: what is kept of the account.
    :param record_type: of which records.
    :param days: after how many days contents are deleted.
    :param run: its name.
    """

    def __init__(
        self,
        windows: RunWindows,
        memory: NamesMemory,
        told: ToldNames,
        store: EntityStore,
        record_type: str,
        days: int,
        run: str,
    ) -> None:
        self._windows, self._memory, self._told, self._store = windows, memory, told, store
        self._kind = RECORD_TYPES[record_type]
        self._days, self._run = days, run
        self._now = datetime.now(timezone.utc)
        self._remembers = windows.is_open_ended or windows.moves_cursor

    def changes(self) -> _Found:
        """Return what the run covers, and its changes, once it is kept what retries and next runs need."""
        window = self._windows.fixed()
        if window is not None and (told := self._told_before(window)) is not None:
            return self._again(window, told)
        cursor = self._windows.begin() if self._windows.is_open_ended else self._windows.cursor()
        if window is None or self._windows.is_open_ended:
            window = self._open(cursor)
        if not self._remembers or (cursor is not None and window.end <= cursor):
            names = self._names(window.start)
            found, _ = self._read([name for name in names if name.received_at in window], window)
            return _Found(window, found)
        return self._unread(window, cursor)

    def _unread(self, window: ChangeWindow, cursor: datetime | None) -> _Found:
        """Read what has not been read, and move the cursor."""
        remembered = self._remembered(cursor)
        since = remembered.since if remembered is not None else self._first(window, cursor)
        lookback = window.end - LOOKBACK
        self._warn_of_deleted(since, is_first=cursor is None)
        until = None if self._windows.is_open_ended else window.end
        names = [
            name for name in self._names(min(since, lookback)) if until is None or name.received_at < until
        ]
        seen = remembered.names if remembered is not None else SeenNames()
        gap = ChangeWindow(cursor, max(cursor, window.start)) if cursor is not None else window
        unread = [
            name
            for name in names
            if name.received_at >= since
            and name not in seen
            and (cursor is None or name.received_at not in gap)
        ]
        changes, halves = self._read(unread, window)
        if not self._windows.is_open_ended:
            self._windows.warn_of_unread(log, window)
        if not self._windows.is_test:
            self._told.keep(window, [name for name in unread if name not in halves])
            known = [name for name in names if name.received_at >= lookback and name not in halves]
            if not self._memory.keep(known, lookback, window.end, cursor, self._run):
                log.warning("More webhooks were read than can be remembered: late ones may be missed")
        self._windows.take(window)
        return _Found(window, changes)

    def _again(self, window: ChangeWindow, told: Remembered) -> _Found:
        """Read what an earlier try has read."""
        names = [name for name in self._names(told.since) if name in told.names]
        if missing := len(told.names) - len(names):
            log.warning("Deleted since this run first read: %s", counted(missing, "webhook"))
        changes, _ = self._read(names, window)
        self._windows.take(window)
        return _Found(window, changes)

    def _told_before(self, window: ChangeWindow) -> Remembered | None:
        """Return what an earlier try has read, if that try has moved the cursor."""
        if not self._remembers:
            return None
        try:
            told = self._told.of(window)
        except NewerState:
            raise
        except InvalidState as error:
            log.warning("What this run has read before is not known (%s): it reads what is new", error)
            return None
        if told is None or self._memory.has_moved(window.end, self._run) is False:
            return None
        return told

    def _open(self, cursor: datetime | None) -> ChangeWindow:
        """Return the window from the cursor up to now; it is never empty, so that the cursor moves."""
        until = self._now
        if cursor is not None:
            if cursor > until + CLOCK_TOLERANCE:
                raise _WorkerClockError(iso_time(until), self._windows.cursor_key, iso_time(cursor))
            until = max(until, cursor + timedelta(seconds=1))
        try:
            return self._windows.open(until)
        except LostCursor:
            # Whatever it was, it is among what is kept.
            window = ChangeWindow(self._oldest_kept, until.replace(microsecond=0))
            log.warning(
                "This task has run before, and has no cursor %r: all that is kept is read, from %s on",
                *(self._windows.cursor_key, iso_time(window.start)),
            )
            return window

    def _remembered(self, cursor: datetime | None) -> Remembered | None:
        if cursor is None:
            return None
        try:
            remembered = self._memory.of(cursor)
        except NewerState:
            raise
        except (InvalidState, InvalidTime) as error:
            log.warning("What was read before is not known: %s", error)
            return None
        if remembered is None:
            log.warning("What was read before %s is not known: a late webhook is not read", iso_time(cursor))
        return remembered

    def _first(self, window: ChangeWindow, cursor: datetime | None) -> datetime:
        """Return from when on to read where nothing is remembered."""
        if cursor is None and self._windows.woken_since is not None:
            return window.start - EVENT_TOLERANCE
        return window.start

    @property
    def _oldest_kept(self) -> datetime:
        """The beginning of the oldest day that the endpoint doesn't delete."""
        day = self._now.date() - timedelta(days=self._days)
        return datetime.combine(day, time(), timezone.utc)

    def _warn_of_deleted(self, since: datetime, *, is_first: bool) -> None:
        if since < self._oldest_kept and not is_first:
            log.warning(
                "What came from %s to %s may be deleted before this task has read it: contents are kept for "
                "%d days (entity_days)",
                *(iso_time(since), iso_time(self._oldest_kept), self._days),
            )

    def _names(self, since: datetime) -> list[KeptName]:
        """Return the names of what is kept from a day on, tomorrow included: another clock may be ahead."""
        return self._store.names(self._kind.name, since, max(since, self._now) + timedelta(days=1))

    def _read(
        self, names: Sequence[KeptName], window: ChangeWindow
    ) -> tuple[list[RecordChange], set[KeptName]]:
        """Return the changes that objects hold, and which of them seem to be half written."""
        found: list[ReceivedChange] = []
        halves: set[KeptName] = set()
        gone = 0
        for name, content in zip(names, self._store.contents(self._kind.name, names), strict=True):
            if content is None:
                gone += 1
                continue
            try:
                found.append(received_change(name, KeptEntity.of(content), self._kind))
            except InvalidKeptEntity as error:
                if self._now - name.received_at < WRITING:
                    halves.add(name)
                else:
                    found.append(unreadable_change(name, self._kind, str(error)))
        if gone:
            log.warning("Deleted before this task could read: %s", counted(gone, "webhook"))
        if halves:
            log.info("Left to the next run (half written, it seems): %s", counted(len(halves), "webhook"))
        changes = latest_changes(found)
        changed = counted(len(changes), "change")
        log.info("%s: %s, by %s; %s", self._kind.name, changed, counted(len(found), "webhook"), window)
        return changes, halves
