"""The window of time that a run covers. Only this module decides it, by the first rule that applies:

1. The run covers an explicit window.
2. It covers its data interval, if that is not empty (interval timetables, backfills).
3. It covers the time from the task's cursor, up to which the task has read, to now less ``settle``. It ends
   no earlier than the last change that a watcher's events announce. A task's first window starts when its run
   began. If a watcher's events have triggered the run, it starts with the first change that they announce.

A run that is only a test (``runs.airflow_runs``) covers the same window, but doesn't take it.

The cursor is kept in the state of an asset that stands for the account and the record type, since a task's
own state ends with its run. It only moves forward: by rule 3, and by a scheduled run's interval. So a manual
run without a logical date continues from the last interval. If a run takes a window by rule 3, the window is
kept in the task's state, so that a retry or a cleared run covers the same one again.

If the cursor is missing, but the task has taken a window before, its last run's window says where to continue
(``runs.earlier_runs``). A task that has taken no window begins with a first window, no matter which other
cursors there are. A task that was renamed continues at its old cursor if it gets that cursor's name. The log
of a first run lists the names.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.core.dates import api_time, iso_time
from airflow_insightly_hooks.core.detection.changes import ChangeWindow
from airflow_insightly_hooks.core.detection.cursor_name import check_cursor_name
from airflow_insightly_hooks.core.errors import (
    InvalidTime,
    InvalidWindow,
    LostCursor,
    UntrustedClock,
)
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.core.state.versions import read_value
from airflow_insightly_hooks.hooks.assets import cursor_key
from airflow_insightly_hooks.runs.airflow_runs import interval_of, is_test, type_of
from airflow_insightly_hooks.runs.cursor_lists import CursorLists
from airflow_insightly_hooks.runs.earlier_runs import WINDOW, EarlierRuns

if TYPE_CHECKING:
    from airflow.sdk import Asset, BaseOperator, Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol as RuntimeTaskInstance

__all__ = ["WINDOW", "RunWindows", "warn_of_timeless"]

log = logging.getLogger(__name__)

TAKEN = "window"
"""The key, in the task's state, of the window that a run has taken by rule 3."""
CLOCK_TOLERANCE = timedelta(seconds=60)
"""How far a cursor may be ahead of the API server's clock: Insightly's servers' clocks differ."""
IDS_SHOWN = 20
LONGEST_WAIT_FOR_EVENT = timedelta(minutes=10)
"""A run waits for the change of a watcher's event only if the change is at most this far ahead. The time of a
later one may be wrong."""


class RunWindows:
    """The windows of one sensor's run.

    :param context: the run's context.
    :param owner: the task that owns the cursor: an object with the ids of the DAG and the task.
    :param asset: the asset that keeps the cursor. It is one of the task's inlets.
    :param explicit: the window of rule 1; ``None`` if there is none.
    :param cursor: the cursor's name; by default ``{dag_id}/{task_id}``.
    :raises InvalidWindow: if ``explicit`` is not a window, or a backfill's run has no window.
    :raises ValueError: if ``cursor`` is not a valid name.
    """

    def __init__(
        self,
        context: Context,
        owner: RuntimeTaskInstance | BaseOperator,
        asset: Asset,
        explicit: object = None,
        cursor: str | None = None,
    ) -> None:
        self._context = context
        self._owner: Any = owner
        self._asset = asset
        self._explicit = ChangeWindow.of(explicit) if explicit is not None else None
        self._interval = interval_of(context) if self._explicit is None else None
        self._is_scheduled = type_of(context) == "scheduled"
        self.is_test = is_test(context)
        map_index = getattr(owner, "map_index", None)
        self._map_index = -1 if map_index is None else map_index
        # A map index may stand for another value in the next run, so it has no cursor by default.
        self._has_cursor = cursor is not None or self._map_index < 0
        default = f"{owner.dag_id}/{owner.task_id}"
        self.cursor_name = default if cursor is None else check_cursor_name(cursor)
        self.cursor_key = cursor_key(self.cursor_name)
        self._earlier = EarlierRuns(context.get("ti"), self.cursor_name, is_test=self.is_test)

    @property
    def is_open_ended(self) -> bool:
        """Whether rule 3 gives the window."""
        return self._explicit is None and self._interval is None

    @property
    def moves_cursor(self) -> bool:
        """Whether ``take`` moves the cursor."""
        if self._explicit is not None or self.is_test or not self._has_cursor:
            return False
        return self.is_open_ended or self._is_scheduled

    def fixed(self) -> ChangeWindow | None:
        """Return the window of rule 1 or 2, or the one that an earlier try has taken; otherwise ``None``."""
        if self._explicit is not None:
            return self._explicit
        if self._interval is not None:
            return self._interval
        taken = read_value(self._context["task_state_store"], TAKEN)
        return ChangeWindow.of(taken) if taken is not None else None

    @property
    def woken_since(self) -> datetime | None:
        """The time of the first change that the triggering events announce; ``None`` if they don't say."""
        return min(self._woken_for("since"), default=None)

    def begin(self) -> datetime | None:
        """Return the cursor, before the window of rule 3 is opened.

        If there is no cursor, note that this run has not taken a window yet. So if the run ends early, for
        any reason, later runs know that it has taken none.
        """
        cursor = self.cursor()
        if cursor is None:
            self._earlier.note(None)
        return cursor

    def open(self, until: datetime) -> ChangeWindow:
        """Return the window of rule 3 that ends at ``until``. A first run's covers the time since it began.

        :param until: the server's time, less the time that changes need to settle. Its fraction of a second
            is dropped: more changes of that second may come, and the API's times have whole seconds.
        :raises LostCursor: if the task has run before, but neither its cursor nor its last window is left.
        :raises UntrustedClock: if the cursor is further ahead of ``until`` than clocks may differ.
        """
        until = until.replace(microsecond=0)
        self._check_map_index()
        cursor = self.cursor() or self._end_of_last_run()
        if cursor is None:
            since = min([self._began(until), *self._woken_for("since")])
            self._log_first_run(since)
            if since == until:
                self._advance(until)
            return ChangeWindow(since, until)
        if cursor > until + CLOCK_TOLERANCE:
            raise UntrustedClock(iso_time(until), self.cursor_key, iso_time(cursor))
        return ChangeWindow(min(cursor, until), until)

    def unsettled(
        self, until: datetime, window: ChangeWindow | None, settle: timedelta = timedelta(0)
    ) -> timedelta | None:
        """Return how long to wait until the changes that this run reads have settled; ``None`` if they have.

        :param until: the server's time, less the time that changes need to settle.
        :param window: the run's window; ``None`` if ``open`` has not returned it yet. It then ends at the
            last change that a watcher's events announce, or later.
        :param settle: the time that changes need to settle.
        """
        if window is not None:
            end = window.end
        else:
            last = until + settle + LONGEST_WAIT_FOR_EVENT
            end = max((mark for mark in self._woken_for("until") if mark <= last), default=until)
        return end - until if end > until else None

    def tell(self, window: ChangeWindow) -> None:
        """Push the run's window to XCom, before the run takes it. A retry does so before anything can fail.

        Airflow deletes a try's XComs when the next try begins. If another task replaces this one in the same
        run, the XCom shows it that the cursor may have passed the window (``operators.common.mode_change``).
        """
        if (ti := self._context.get("ti")) is not None:
            ti.xcom_push(key=WINDOW, value=window.as_dict())

    def take(self, window: ChangeWindow) -> None:
        """Record that this run has read ``window``.

        By rule 3, a retry reads it again. Rule 3 and a scheduled run's interval move the cursor.
        """
        if self._explicit is not None or not (self._interval is None or self._is_scheduled):
            return
        if self.is_test:
            self._earlier.note(window)
            log.warning("This run is a test and takes no window: the next run covers %s again", window)
            return
        if not self._has_cursor:
            return
        if self._interval is None:
            state = self._context["task_state_store"]
            is_repeated = state.get(TAKEN) is not None
            state.set(TAKEN, window.as_dict())
            cursor = self.cursor()
            if is_repeated and cursor is None:
                return  # this run was cleared; the last run's window says where to continue
            if cursor is not None and cursor < window.start:
                # Since this run took its window, the cursor was set back, or the task got another cursor.
                log.warning(
                    "Cursor %r stays at %s, since this run's window %s begins later: the next run reads from "
                    "the cursor on",
                    *(self.cursor_name, iso_time(cursor), window),
                )
                return
        self._advance(window.end)
        self._earlier.note(window)
        self._lists().add(
            self.cursor_key,
            {
                "dag": self._owner.dag_id,
                "task": self._owner.task_id,
                # If the DAG has a watcher of its own, this watcher looks after the cursor.
                "woken": bool(self._woken_for("until")) and not self._is_woken_alone(),
            },
            # A run that was started by hand doesn't show what starts the DAG.
            keeps_woken=not self._is_scheduled,
        )

    def unread_before(self, window: ChangeWindow) -> ChangeWindow | None:
        """Return the gap that a scheduled run by rule 2 leaves: from the cursor to its interval's start."""
        if self._explicit is not None or not self._is_scheduled or not self._has_cursor:
            return None
        cursor = self.cursor()
        return ChangeWindow(cursor, window.start) if cursor is not None and cursor < window.start else None

    def warn_of_unread(self, log: Any, window: ChangeWindow) -> None:
        """Log a warning if a scheduled run leaves a gap."""
        if (unread := self.unread_before(window)) is not None:
            log.warning("No run has read %s: this run covers %s. Backfill the missing time", unread, window)

    def _began(self, until: datetime) -> datetime:
        """Return the value that ``until`` had when the run began.

        The task may have waited since, or be a retry. With this time, a new DAG's first run covers the time
        since the DAG was unpaused, as closely as Airflow knows it.
        """
        began: datetime | None = getattr(self._context.get("dag_run"), "start_date", None)
        if began is None:
            return until
        age = datetime.now(timezone.utc) - began  # by Airflow's clocks; ``until`` is by the server's
        return min(until, (until - age).replace(microsecond=0))

    def _payloads(self) -> list[Any]:
        """Return the payloads of the events that triggered the run."""
        events = (self._context.get("triggering_asset_events") or {}).values()
        return [(event.extra or {}).get("payload") for of_asset in events for event in of_asset]

    def _is_woken_alone(self) -> bool:
        return any(isinstance(payload, dict) and "cursor" in payload for payload in self._payloads())

    def _woken_for(self, end: str) -> list[datetime]:
        """Return the times under a key of the watcher's events that triggered the run.

        :param end: ``since``: from when on there are changes; ``until``: up to when there are changes.
        """
        found = []
        for payload in self._payloads():
            # A DAG may be scheduled by several assets. An event that can't be read is from another one.
            with contextlib.suppress(InvalidTime, KeyError):
                found.append(api_time(payload[end] if isinstance(payload, dict) else None, "event"))
        return found

    def cursor(self) -> datetime | None:
        """Return the time up to which this task has read; ``None`` if it is not known."""
        text = read_value(self._state(), self.cursor_key)
        where = f"state {self.cursor_key!r} of asset {self._asset.name!r}"
        return None if text is None else api_time(text, where)

    def _advance(self, to: datetime) -> None:
        if self.is_test:
            return
        cursor = self.cursor()
        if cursor is None or cursor < to:
            self._state().set(self.cursor_key, iso_time(to))

    def _state(self) -> Any:
        try:
            return self._context["asset_state_store"][self._asset]
        except KeyError:  # a mapped task has no inlets of its own
            raise InvalidWindow(
                "a mapped task has no cursor, since Airflow gives it no asset of its own: put it into a "
                "mapped task group, with a cursor whose name depends on the values that the group is mapped "
                "over; or give it a window; or give the DAG a timetable with data intervals"
            ) from None

    def _check_map_index(self) -> None:
        """Check that no other map index moves the same cursor.

        :raises InvalidWindow: if this map index has no cursor of its own.
        """
        if self._map_index < 0:
            return
        if not self._has_cursor:
            raise InvalidWindow(
                "the map indexes of a mapped task group would share one cursor, and each would miss the "
                "changes that the others read: give the sensor a cursor whose name depends on the values "
                "that the group is mapped over, or a window; or give the DAG a timetable with data intervals"
            )
        self._earlier.note(None)
        self._earlier.check_other_map_indexes()

    def _end_of_last_run(self) -> datetime | None:
        """Return the end of the last run's window; ``None`` if no run has taken a window.

        :raises LostCursor: if there were runs, but the window of none is known any more.
        """
        try:
            last = self._earlier.last_window()
        except LookupError:
            owner = self._owner
            raise LostCursor(owner.dag_id, owner.task_id, self._asset.name, self.cursor_key) from None
        if last is None:
            return None
        run_id, window = last
        log.warning(
            "The cursor %r is missing in the state of asset %r: this run continues where run %s ended, at %s",
            *(self.cursor_key, self._asset.name, run_id, iso_time(window.end)),
        )
        return window.end

    def _log_first_run(self, since: datetime) -> None:
        """Log the time from which changes are read, and the other cursors: one may be the task's old one."""
        # A warning, since a DAG that was deleted and added again looks the same: it doesn't read the changes
        # that it has missed.
        log.warning(
            "Cursor %r is new: changes are read from %s on. If this task has read changes before, and its "
            "DAG was deleted since, give it an explicit window for the time between",
            *(self.cursor_name, iso_time(since)),
        )
        if not self.is_test:
            self._lists().log_others(self.cursor_key)

    def _lists(self) -> CursorLists:
        return CursorLists(self._state(), self._context["ti"])


def warn_of_timeless(log: Any, record_type: str, ids: Sequence[int]) -> None:
    """Log a warning if there are records without a time of creation and of update.

    :param ids: the records' ids. The first 20 are logged.
    """
    if ids:
        log.warning(
            "%s: %s without a time of creation or update, so no window has %s: %s",
            record_type,
            counted(len(ids), "record"),
            "it" if len(ids) == 1 else "them",
            ids[:IDS_SHOWN],
        )
