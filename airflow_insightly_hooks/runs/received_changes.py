"""The changes that Insightly's webhooks have brought, with the contents of the webhooks.

If the endpoint's connection has ``accept=entity``, the endpoint keeps an object for each webhook. A task
reads the objects from its own cursor on, as a sensor reads Insightly's records (``runs.windows``). Events
only wake the task. If an event is lost, late or merged with another, no change is lost.

An object's name has the time at which an API server received the webhook. The clocks of several API servers
may differ, and may be ahead of the worker's clock. So a task remembers the names that it has read, and not
only a time. From ``LOOKBACK`` before the cursor on, it reads each object that it has not read yet. A run with
a data interval reads up to the end of the interval only.

A run writes in this order, so that nothing is lost or reported twice if it is killed: the names that it has
read, into its task's state; the names from the lookback on, beside the cursor; the cursor. If a try is
stopped before it writes the cursor, it has returned nothing, and the next try starts again.
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
"""How far before the cursor a task looks for objects that it has not read. The clocks of API servers may
differ by this much."""
CLOCK_TOLERANCE = timedelta(minutes=5)
"""How much the clocks of workers may differ."""
EVENT_TOLERANCE = timedelta(seconds=60)
"""How far Insightly's clock, whose times are in the events, may be ahead of the endpoint's clock."""
WRITING = timedelta(minutes=1)
"""If an object is younger and can't be read, it may be only partly written: some stores show such objects."""


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
            f"mapped task has no inlets: read the changes in a task that is not mapped"
        )


class _WorkerClockError(UntrustedClock):
    """The worker's clock is far behind the cursor. ``server`` is the worker's time here."""

    def __str__(self) -> str:
        return (
            f"this worker's clock says that it is {self.server}, but state {self.cursor!r} says that changes "
            f"up to {self.read_to} have been read. Nothing is read, since changes could be missed. Make sure "
            f"that all machines' clocks agree. If the cursor was wrong, set it back in the asset's state"
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
    """Return the changes that webhooks have brought since this task last asked, the oldest first.

    Call it in a task whose inlets have ``received_changes_asset(record_type)``. A retry and a cleared run get
    the same changes again. Several changes of a record in one second count as one, with the last contents.
    After the call, Airflow doesn't log the task's return value any more, since it may hold records.

    :param record_type: a name of Insightly's API, such as ``Contacts``.
    :param insightly_conn_id: the connection of the account.
    :param incoming_conn_id: the connection through which the webhooks come. It must have ``accept`` =
        ``entity``.
    :param cursor: the name of the task's cursor; by default ``{dag_id}/{task_id}``.
    :returns: changes in the same form as the sensor's. If an object can't be read, or no body can be built
        from it, the change has an empty ``record``, and its key ``undeliverable`` says why.
    :raises UnknownRecordType: if there is no such record type.
    :raises MissingInletError: if the asset is not among the task's inlets.
    :raises InvalidConnection: if the connection can't be used, keeps no contents, or belongs to another
        account.
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
    # A task may ask for several record types. Each has its own values in the task's state.
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
    """Keep the task's return value out of its log. By default, Airflow's Python operators log it."""
    task: Any = context.get("task")
    if hasattr(task, "show_return_value_in_logs"):
        task.show_return_value_in_logs = False


def _settings(incoming_conn_id: str, insightly_conn_id: str) -> IncomingSettings:
    settings = InsightlyIncomingHook(incoming_conn_id).get_conn()
    if settings.entity_path is None:
        raise InvalidConnection(
            incoming_conn_id,
            "extra.accept",
            "it is notice, so the contents of webhooks are not kept: set it to entity",
        )
    if settings.insightly_conn_id != insightly_conn_id:
        raise InvalidConnection(
            incoming_conn_id,
            "extra.insightly_conn_id",
            f"it is {settings.insightly_conn_id!r}, but the task asks for changes of {insightly_conn_id!r}: "
            f"make both the same",
        )
    return settings


class _Found(NamedTuple):
    window: ChangeWindow
    changes: list[RecordChange]


class _Reading:
    """Reads the objects for one run.

    :param windows: the run's windows, and its cursor.
    :param memory: the names that are remembered beside the cursor.
    :param told: the names that an earlier try has read.
    :param store: the account's kept objects.
    :param record_type: the type of the records.
    :param days: the number of days for which contents are kept.
    :param run: the run's name.
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
        """Return the run's window and changes, after the state that retries and next runs need is kept."""
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
        """Read the objects that were not read before, and move the cursor."""
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
                log.warning(
                    "More webhooks came within %g minutes than can be remembered: late ones may be missed",
                    LOOKBACK.total_seconds() / 60,
                )
        self._windows.take(window)
        return _Found(window, changes)

    def _again(self, window: ChangeWindow, told: Remembered) -> _Found:
        """Read the objects that an earlier try has read."""
        names = [name for name in self._names(told.since) if name in told.names]
        if missing := len(told.names) - len(names):
            log.warning("Deleted since this run first read: %s", counted(missing, "webhook"))
        changes, _ = self._read(names, window)
        self._windows.take(window)
        return _Found(window, changes)

    def _told_before(self, window: ChangeWindow) -> Remembered | None:
        """Return the names that an earlier try has read, if that try has moved the cursor."""
        if not self._remembers:
            return None
        try:
            told = self._told.of(window)
        except NewerState:
            raise
        except InvalidState as error:
            log.warning(
                "It is not known which webhooks this run has read before (%s): it reads the new ones",
                error,
            )
            return None
        if told is None or self._memory.has_moved(window.end, self._run) is False:
            return None
        return told

    def _open(self, cursor: datetime | None) -> ChangeWindow:
        """Return the window from the cursor up to now. It is never empty, so that the cursor moves."""
        until = self._now
        if cursor is not None:
            if cursor > until + CLOCK_TOLERANCE:
                raise _WorkerClockError(iso_time(until), self._windows.cursor_key, iso_time(cursor))
            until = max(until, cursor + timedelta(seconds=1))
        try:
            return self._windows.open(until)
        except LostCursor:
            # Wherever the cursor was, reading all kept objects misses nothing.
            window = ChangeWindow(self._oldest_kept, until.replace(microsecond=0))
            log.warning(
                "This task has run before, but its cursor %r is gone: it reads all kept webhooks, from %s on",
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
            log.warning(
                "It is not known which webhooks were read before %s: %s; a webhook from before that time is "
                "not read",
                *(iso_time(cursor), error),
            )
            return None
        if remembered is None:
            log.warning(
                "It is not known which webhooks were read before %s: a webhook from before that time is not "
                "read",
                iso_time(cursor),
            )
        return remembered

    def _first(self, window: ChangeWindow, cursor: datetime | None) -> datetime:
        """Return the time from which to read if nothing is remembered."""
        if cursor is None and self._windows.woken_since is not None:
            return window.start - EVENT_TOLERANCE
        return window.start

    @property
    def _oldest_kept(self) -> datetime:
        """The start of the oldest day that the endpoint doesn't delete."""
        day = self._now.date() - timedelta(days=self._days)
        return datetime.combine(day, time(), timezone.utc)

    def _warn_of_deleted(self, since: datetime, *, is_first: bool) -> None:
        if since < self._oldest_kept and not is_first:
            log.warning(
                "Webhooks from %s to %s may have been deleted before this task read them: contents are kept "
                "for %s (entity_days)",
                *(iso_time(since), iso_time(self._oldest_kept), counted(self._days, "day")),
            )

    def _names(self, since: datetime) -> list[KeptName]:
        """Return the names from a time's day on, including tomorrow's, since another clock may be ahead."""
        return self._store.names(self._kind.name, since, max(since, self._now) + timedelta(days=1))

    def _read(
        self, names: Sequence[KeptName], window: ChangeWindow
    ) -> tuple[list[RecordChange], set[KeptName]]:
        """Return the changes in the objects, and the names of objects that seem to be only partly written."""
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
            log.info(
                "Left to the next run, since they seem to be only partly written: %s",
                counted(len(halves), "webhook"),
            )
        changes = latest_changes(found)
        changed = counted(len(changes), "change")
        log.info("%s: %s from %s; %s", self._kind.name, changed, counted(len(found), "webhook"), window)
        return changes, halves
