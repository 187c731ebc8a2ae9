"""Detecting which records were added or updated."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta, timezone
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from airflow.sdk import BaseSensorOperator, PokeReturnValue, conf
from airflow.sdk.exceptions import AirflowSensorTimeout, AirflowSkipException

from airflow_insightly_hooks.core.bounds import LONGEST_SETTLE, check_seconds
from airflow_insightly_hooks.core.dates import api_time, iso_time
from airflow_insightly_hooks.core.detection.changes import (
    EVENTS,
    ChangeWindow,
    RecordChange,
    changes_in,
    check_events,
)
from airflow_insightly_hooks.core.detection.late_changes import (
    LOOKBACK,
    LateChanges,
    SameChanges,
    check_lookback,
)
from airflow_insightly_hooks.core.detection.nearby_changes import NearbyChanges, WindowRead
from airflow_insightly_hooks.core.detection.record_times import has_time
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.core.records import RECORD_TYPES, is_record_id
from airflow_insightly_hooks.hooks.assets import add_inlet, records_asset
from airflow_insightly_hooks.runs.cursor_argument import check_cursor_argument
from airflow_insightly_hooks.runs.large_xcoms import changes_for_xcom
from airflow_insightly_hooks.runs.lookback import RunLookback
from airflow_insightly_hooks.runs.run_counts import keep_run_counts
from airflow_insightly_hooks.runs.shared_reading import WAIT as SHARED_WAIT
from airflow_insightly_hooks.runs.shared_reading import ReadByAnotherRun, SharedReading
from airflow_insightly_hooks.runs.undeliverable import log_undeliverable
from airflow_insightly_hooks.runs.windows import CLOCK_TOLERANCE, RunWindows, warn_of_timeless
from airflow_insightly_hooks.sensors.links import InsightlyRecordsLink
from airflow_insightly_hooks.sensors.soft_fail import only_a_timeout_is_soft
from airflow_insightly_hooks.triggers.record_change import InsightlyRecordChangeTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_insightly_hooks.hooks.insightly import InsightlyHook

__all__ = ["InsightlyRecordChangeSensor"]

OnEmpty = Literal["skip", "wait", "succeed"]
SHORT_WAIT = 10.0
"""Seconds: a sensor sleeps through shorter waits itself, without a reschedule or a deferral."""


class _Wait(NamedTuple):
    """There is nothing to return yet; look again after ``seconds``."""

    seconds: float
    open_since: datetime | None = None
    """The start of an open window that waits for a change; ``None`` if it waits for a time only."""
    is_poke: bool = False
    """Whether to wait by Airflow's ``poke_interval``, even if the wait is short."""

    @property
    def is_short(self) -> bool:
        """Whether the sensor sleeps through the wait itself."""
        return not self.is_poke and self.seconds <= SHORT_WAIT


class _Search(NamedTuple):
    """A search whose first page has been asked for."""

    records: Iterator[dict[str, Any]]
    began: float  # by the monotonic clock


class InsightlyRecordChangeSensor(BaseSensorOperator):
    """Waits until its window of time has settled, and returns the changes in it.

    ``docs/explanation/detection.md`` says which window a run covers. A window with a fixed end is read once
    it has settled. The window of a run that goes on from the last one ends ``settle`` seconds before now.

    :param record_type: a record type of Insightly's API, such as ``Contacts``, or a custom object
        (``Name__c``).
    :param events: ``added``, ``updated``, or both.
    :param window: ``{"start": …, "end": …}``, or a pair. A time without an offset is in UTC. Templates are
        rendered.
    :param on_empty: what to do if nothing changed. ``skip`` skips this task and the tasks after it.
        ``succeed`` returns an empty list. ``wait`` looks again every ``poke_interval`` until something
        changes; only an open window can get more changes, so a closed one is skipped.
    :param settle: seconds, up to 86,400, that must have passed since the window's end, by the API server's
        clock: changes of the window's last moment are visible by then.
    :param lookback: seconds before its window that a run reads again, 0 to 86,400; 0 reads nothing again. A
        change that became visible there since the last run is returned now, with its own time. Only runs
        with a cursor look back.
    :param field_name: return only records that have ``field_value`` in this field now. The field is a
        standard or a custom one (``Region__c``). Insightly's search filters, by exact comparison, so that
        other records are not read. For anything else use criteria.
    :param field_value: the value: a text as the API takes it, a number or a boolean. Templates are rendered.
    :param insightly_conn_id: a connection of type ``insightly``.
    :param cursor: the name under which the sensor keeps how far it has read, if its runs have no data
        interval (rule 3); ``{dag_id}/{task_id}`` by default. With a fixed name, a renamed task continues from
        there. Templates are rendered. In a mapped task group, each map index needs a name of its own.
    :param deferrable: whether waits longer than 10 s are moved to the triggerer, so that they hold no worker
        slot; Airflow's ``[operators] default_deferrable`` by default.
    :param is_dry_run: ``True``, or a run's param ``dry_run``, keeps no counts of the run for the UI.
        Everything else happens as usual.
    :param retries: 2 by default. A retry loses nothing and repeats nothing. Airflow needs it: under load, its
        scheduler may hear late that the first part of a deferred task has ended, and then fails the second.
    :param retry_delay: seconds or a ``timedelta``; 10 s by default.
    :param kwargs: a sensor's arguments, such as ``poke_interval``, ``timeout`` and ``mode``. ``soft_fail``
        skips the task when its ``timeout`` is over. Errors still fail it.
    :raises UnknownRecordType: if the record type does not exist, when the DAG is parsed.
    :raises ValueError: if another argument is not as described here, when the DAG is parsed.
    :raises InvalidWindow: if ``window`` is not a window, when the task runs.
    :raises InvalidTime: if a text in ``window`` is not a time, when the task runs.
    :raises LostCursor: if rule 3 applies and the cursor is gone although the task has run before.
    :raises UntrustedClock: if rule 3 applies and the cursor is a minute ahead of the server's clock.
    :raises InsightlyAPIError: if Insightly can't be read; an ``InsightlyAccessError`` fails without a retry.

    XCom: a list of changes ``{"record_type", "record_id", "event", "changed_at", "record"}``. The key
    ``window`` has the window that was read. A record that can't be delivered is logged as an error; its
    change has an empty ``record``, and the reason under ``undeliverable``.
    """

    template_fields = ("window", "field_value", "cursor")
    operator_extra_links = (InsightlyRecordsLink(),)
    ui_color = "#e6dcf2"

    def __init__(
        self,
        *,
        record_type: str,
        events: Iterable[str] = EVENTS,
        window: Any = None,
        on_empty: OnEmpty = "skip",
        settle: float = 5.0,
        lookback: float = LOOKBACK,
        field_name: str | None = None,
        field_value: str | float | bool | None = None,
        insightly_conn_id: str = "insightly_default",
        cursor: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        is_dry_run: bool = False,
        retries: int | None = 2,
        retry_delay: timedelta | float = timedelta(seconds=10),
        **kwargs: Any,
    ) -> None:
        check_seconds("settle", settle, at_most=LONGEST_SETTLE)
        for name in ("timeout", "poke_interval"):
            if name in kwargs:
                check_seconds(name, kwargs[name], or_timedelta=True)
        asset = records_asset(insightly_conn_id, record_type)
        add_inlet(kwargs, asset)
        super().__init__(retries=retries, retry_delay=retry_delay, **kwargs)
        self.asset = asset
        self.record_type = record_type
        self.events = check_events(RECORD_TYPES[record_type], events)
        self.window = window
        self.on_empty = on_empty
        self.settle = settle
        self.lookback = check_lookback(lookback)
        self.field_name = field_name
        self.field_value = field_value
        self.cursor = check_cursor_argument(self, cursor, window)
        self.insightly_conn_id = insightly_conn_id
        self.deferrable = deferrable
        self.is_dry_run = is_dry_run
        if on_empty not in ("skip", "wait", "succeed"):
            raise ValueError(f"on_empty must be 'skip', 'wait' or 'succeed', not {on_empty!r}")
        if (field_name is None) != (field_value is None):
            raise ValueError("field_name and field_value go together")

    def execute(self, context: Context) -> list[RecordChange]:
        """Return the changes, once the window has settled."""
        if not self.deferrable:
            with only_a_timeout_is_soft(soft_fail=self.soft_fail):
                changes: list[RecordChange] = super().execute(context)
            return changes
        return self._poll_or_defer(
            context, until=datetime.now(timezone.utc) + timedelta(seconds=self.timeout)
        )

    def execute_complete(
        self,
        context: Context,
        event: dict[str, Any],  # noqa: ARG002 — the task looks for itself, whatever the event says
        until: str,
    ) -> list[RecordChange]:
        """Look again: the trigger has seen a change, or the time is up."""
        return self._poll_or_defer(context, until=api_time(until))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral."""
        with only_a_timeout_is_soft(soft_fail=self.soft_fail):
            return super().resume_execution(next_method, next_kwargs, context)

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Look once, or a few times if the window settles within seconds."""
        while isinstance(outcome := self._poll(context), _Wait):
            if not outcome.is_short:
                return False
            time.sleep(outcome.seconds)
        return PokeReturnValue(is_done=True, xcom_value=outcome)

    def _poll_or_defer(self, context: Context, until: datetime) -> list[RecordChange]:  # noqa: RET503 — defer() never returns
        outcome = self._poll(context)
        timeout = (until - datetime.now(timezone.utc)).total_seconds()
        if isinstance(outcome, _Wait) and outcome.is_short and outcome.seconds <= timeout:
            time.sleep(outcome.seconds)
            outcome = self._poll(context)
        if not isinstance(outcome, _Wait):
            return outcome
        now = datetime.now(timezone.utc)
        if now >= until:
            raise AirflowSensorTimeout(f"nothing to return within the sensor's timeout of {self.timeout:g} s")
        self.defer(
            trigger=InsightlyRecordChangeTrigger(
                insightly_conn_id=self.insightly_conn_id,
                record_type=self.record_type,
                events=list(self.events),
                settle=self.settle,
                look_at=iso_time(min(now + timedelta(seconds=outcome.seconds), until)),
                until=iso_time(until),
                open_since=iso_time(outcome.open_since) if outcome.open_since else None,
                poll_interval=self.poke_interval,
            ),
            method_name="execute_complete",
            kwargs={"until": iso_time(until)},
        )

    def _poll(self, context: Context) -> list[RecordChange] | _Wait:
        """Return the changes, or how long to wait. After 429 or 503 the API gets no requests meanwhile."""
        # requests is loaded in the worker only, so that DAGs parse fast.
        from airflow_insightly_hooks.hooks.api.api_errors import InsightlyAPIError
        from airflow_insightly_hooks.hooks.insightly import InsightlyHook

        try:
            return self._poll_once(context, InsightlyHook(self.insightly_conn_id, exact_numbers=True))
        except InsightlyAPIError as error:
            if error.status not in (429, 503) or getattr(error, "day_is_spent", False):
                raise
            self.log.warning("%s. Looking again in %g s", error, self.poke_interval)
            return _Wait(self.poke_interval, is_poke=True)

    def _poll_once(self, context: Context, hook: InsightlyHook) -> list[RecordChange] | _Wait:
        windows = RunWindows(context, context.get("ti") or self, self.asset, self.window, self.cursor)
        fixed = windows.fixed()
        if fixed is None:
            windows.begin()  # before anything can fail
        kind, searched = RECORD_TYPES[self.record_type], (self.field_name, self.field_value)
        lookback = RunLookback(
            context, windows, self.asset, hook, searched, kind, self.events, self.lookback, self.log
        )
        window = lookback.binding(fixed)
        is_open = window is None
        if window is not None and windows.is_open_ended:
            windows.tell(window)
        shared = None
        if window is not None and not lookback.may_grow(window):
            shared = SharedReading.of_run(context, self.asset, window, hook, searched, self.log)
        if shared is not None and shared.is_being_read():
            return _Wait(SHARED_WAIT)
        found = shared.find(kind, self.events) if shared is not None else None
        if window is None or found is None:
            read = self._read_settled(hook, windows, lookback, window, shared)
            if isinstance(read, _Wait):
                return read
            window, found, changes = read
        else:
            changes = lookback.changes(window, datetime.now(timezone.utc))
        if not found.changes and is_open and self.on_empty == "wait":
            if window.is_empty:  # a first run has its cursor already
                lookback.keep(changes)
            return _Wait(self.poke_interval, open_since=window.start, is_poke=True)
        if not is_open:
            windows.warn_of_unread(self.log, window)
        self._tell_of_updated_again(window, found)
        log_undeliverable(self.log, found.changes)
        lookback.keep(changes)
        windows.tell(window)
        windows.take(window)
        keep_run_counts(context, self.log, detected=len(found.changes), hook=hook, dry_run=self.is_dry_run)
        if not found.changes and self.on_empty != "succeed":
            raise AirflowSkipException(f"{self.record_type}: nothing changed in {window}")
        return changes_for_xcom(context, self.log, found.changes, window)

    def _read_settled(
        self,
        hook: InsightlyHook,
        windows: RunWindows,
        lookback: RunLookback,
        window: ChangeWindow | None,
        shared: SharedReading | None,
    ) -> tuple[ChangeWindow, WindowRead, LateChanges | SameChanges] | _Wait:
        """Read the run's window, if it has settled by the server's clock."""
        search, is_open = None, window is None
        start = window.start if window is not None else windows.begin()
        if shared is None and start is not None and self._seems_settled(window):
            # The first answer has the server's time, so that no request is needed for that alone.
            search = self._search(hook, lookback.search_from(window or ChangeWindow(start, start)))
        settle = timedelta(seconds=self.settle)
        settled_until = hook.server_time() - settle
        if (unsettled := windows.unsettled(settled_until, window, settle)) is not None:
            if window is not None:
                self.log.info("Window %s settles in %.0f s", window, unsettled.total_seconds())
            return _Wait(unsettled.total_seconds())
        if window is None:
            window = windows.open(settled_until)
        changes = lookback.changes(window, settled_until)
        try:
            found = self._read(hook, window, changes, shared, settled_until, search, is_open=is_open)
            return window, found, changes
        except ReadByAnotherRun as other:
            self.log.info("%s: looking again in %g s", other, SHARED_WAIT)
            return _Wait(SHARED_WAIT)

    def _tell_of_updated_again(self, window: ChangeWindow, found: WindowRead) -> None:
        """Log how many changes of a past window Insightly may no longer show."""
        if found.updated_again and "updated" in self.events:
            self.log.info(
                "%s from before %s %s updated after it. Insightly keeps only a record's last update, so that "
                "earlier ones, in the window, can't be seen",
                counted(found.updated_again, "record"),
                *(iso_time(window.end), "was" if found.updated_again == 1 else "were"),
            )

    def _seems_settled(self, window: ChangeWindow | None) -> bool:
        """Return whether a window has settled by this worker's clock, which may be wrong."""
        own = datetime.now(timezone.utc) - timedelta(seconds=self.settle)
        return window is None or (window.end <= own and not window.is_empty)

    def _search(self, hook: InsightlyHook, updated_after: datetime) -> _Search:
        began = time.monotonic()
        search: dict[str, Any] = {}
        if self.field_name is not None:
            search = {"field_name": self.field_name, "field_value": self.field_value}
        records = iter(hook.iter_records(self.record_type, updated_after=updated_after, **search))
        return _Search(chain(list(islice(records, 1)), records), began)

    def _read(
        self,
        hook: InsightlyHook,
        window: ChangeWindow,
        changes: LateChanges | SameChanges,
        shared: SharedReading | None,
        settled_until: datetime,
        search: _Search | None,
        *,
        is_open: bool,
    ) -> WindowRead:
        kind = RECORD_TYPES[self.record_type]
        if window.is_empty:
            self.log.info("%s: nothing to read yet, watching from %s", kind.name, iso_time(window.end))
            if changes.is_empty:
                return WindowRead([], 0)
        began = time.monotonic() if search is None else search.began
        read = later = 0
        timeless: list[Any] = []
        now = max(window.end, settled_until + timedelta(seconds=self.settle) + CLOCK_TOLERANCE)
        after = ChangeWindow(window.end, now)

        def seen(nearby: NearbyChanges) -> Iterable[dict[str, Any]]:
            nonlocal read, later
            search_from = min(nearby.search_from, changes.search_from)
            for record in (search or self._search(hook, search_from)).records:
                read += 1
                if not has_time(record) and is_record_id(record_id := record.get(kind.id_field)):
                    timeless.append(record_id)
                nearby.see(record)
                if is_open:
                    later += any(True for _ in changes_in(after, kind, [record], self.events))
                yield record

        with shared.reading(settled_until) if shared else nullcontext(NearbyChanges(window)) as nearby:
            found = list(changes.changes(seen(nearby)))
        self.log.info(
            "%s in %s: %s; %s read in %s, %.1f s",
            *(self.record_type, window, _counts(found)),
            *(counted(read, "record"), counted(hook.requests_made, "request")),
            time.monotonic() - began,
        )
        if later and not found:
            self.log.info(
                "%s changed after the window's end; the next run takes %s",
                *(("1 record", "it") if later == 1 else (f"{later} records", "them")),
            )
        warn_of_timeless(self.log, self.record_type, timeless)
        return WindowRead(found, nearby.updated_again)


def _counts(changes: Sequence[RecordChange]) -> str:
    added = sum(change["event"] == "added" for change in changes)
    return f"{added} added, {len(changes) - added} updated"
