"""Which window of time a run covers: the one rule, in its one place.

1. an explicit window;
2. else the run's data interval, if it is not empty (interval timetables, backfills);
3. else from where this task has read to, its cursor, up to now less ``settle``, and at least up to where a
   watcher's events say that there are changes. A task's first window starts when its run began, or, where
   such events have triggered the run, where the changes that they tell of begin.

A run that is only a test (``runs.airflow_runs``) covers the same window, and takes nothing.

The cursor is kept in the state of an asset that stands for the account and the record type, since a
task's own state ends with its run. It moves forward only: by rule 3, and by a scheduled run's interval, so
that a manual run without a logical date goes on from the last interval. A window that a run has taken by
rule 3 is kept in the task's state, so that a retry or a cleared run covers the same one again.

A cursor that is missing is not "from now on" where the task has taken a window before: then its last run's
(``runs.earlier_runs``) says where to go on. A task that has taken none begins anew, whatever other cursors
there are. A task that was renamed goes on where its old cursor stands if it is given that cursor's name; the
log of a first run lists the names.
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
"""The key of the task's state that keeps the window a run has taken by rule 3."""
CLOCK_TOLERANCE = timedelta(seconds=60)
"""By how much the clocks of an API's servers may differ before a cursor ahead of them is an error."""
IDS_SHOWN = 20
LONGEST_WAIT_FOR_EVENT = timedelta(minutes=10)
"""How far ahead of what has settled a watcher's event may be to be waited for; a later one may be wrong."""


class RunWindows:
    """The windows of one sensor's run.

    :param context: the run's context.
    :param owner: whose cursor it is: what has the ids of the DAG and the task.
    :param asset: the asset that keeps the cursor; one of the task's inlets.
    :param explicit: rule 1's window, if there is one.
    :param cursor: the cursor's name; by default ``{dag_id}/{task_id}``.
    :raises InvalidWindow: if ``explicit`` is not a window, or a backfill's run has none.
    :raises ValueError: if ``cursor`` is not a name.
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
        # Which map index is which may change from run to run, so they have no cursors by themselves.
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
        """Return the window that is given by rule 1 or 2 or was taken by an earlier try, else ``None``."""
        if self._explicit is not None:
            return self._explicit
        if self._interval is not None:
            return self._interval
        taken = read_value(self._context["task_state_store"], TAKEN)
        return ChangeWindow.of(taken) if taken is not None else None

    @property
    def woken_since(self) -> datetime | None:
        """From when on there are changes, by the events that triggered the run; ``None`` if none tells."""
        return min(self._woken_for("since"), default=None)

    def begin(self) -> datetime | None:
        """Return the cursor, before an open window is looked for; without one, note that none was taken yet.

        So that a run which ends before it has taken one, whatever stops it, isn't taken for one that has.
        """
        cursor = self.cursor()
        if cursor is None:
            self._earlier.note(None)
        return cursor

    def open(self, until: datetime) -> ChangeWindow:
        """Return the window of rule 3 that ends at ``until``; a first run's covers the time since it began.

        :param until: the server's time, less what has to settle. Its fraction of a second is cut: more
            changes of that second may come, and the API's times have whole seconds.
        :raises LostCursor: if the task has run before, and neither its cursor nor its last window is left.
        :raises UntrustedClock: if the cursor is ahead of ``until`` by more than clocks differ.
        """
        until = until.replace(microsecond=0)
        self._check_map_index()
        cursor = self.cursor() or self._end_of_last_run()
        if cursor is None:
            since = min([self._began(until), *self._woken_for("since")])
            self._tell_of_first_run(since)
            if since == until:
                self._advance(until)
            return ChangeWindow(since, until)
        if cursor > until + CLOCK_TOLERANCE:
            raise UntrustedClock(iso_time(until), self.cursor_key, iso_time(cursor))
        return ChangeWindow(min(cursor, until), until)

    def unsettled(
        self, until: datetime, window: ChangeWindow | None, settle: timedelta = timedelta(0)
    ) -> timedelta | None:
        """Return how long to wait until the changes have settled that this run is to read, if at all.

        :param until: the server's time, less what has to settle.
        :param window: the run's window; ``None`` for one that ``open`` is yet to give, which then ends where
            a watcher's events say that there are changes, or later.
        :param settle: what has to settle.
        """
        if window is not None:
            end = window.end
        else:
            last = until + settle + LONGEST_WAIT_FOR_EVENT
            end = max((mark for mark in self._woken_for("until") if mark <= last), default=until)
        return end - until if end > until else None

    def tell(self, window: ChangeWindow) -> None:
        """Push the run's window to XCom, before it is taken; a retry does so before anything can fail.

        Airflow deletes a try's XCom when the next one begins, and what replaces this task in the same run has
        to see that the cursor may be behind the window (``operators.common.mode_change``).
        """
        if (ti := self._context.get("ti")) is not None:
            ti.xcom_push(key=WINDOW, value=window.as_dict())

    def take(self, window: ChangeWindow) -> None:
        """Note that this run has read ``window``.

        By rule 3, a retry will read it again. The cursor moves by rule 3, and by a scheduled interval.
        """
        if self._explicit is not None or not (self._interval is None or self._is_scheduled):
            return
        if self.is_test:
            self._earlier.note(window)
            log.warning("A test: it takes no window, so the next run covers %s again", window)
            return
        if not self._has_cursor:
            return
        if self._interval is None:
            state = self._context["task_state_store"]
            is_repeated = state.get(TAKEN) is not None
            state.set(TAKEN, window.as_dict())
            cursor = self.cursor()
            if is_repeated and cursor is None:
                return  # the last run's window says where to go on, not that of a run which was cleared
            if cursor is not None and cursor < window.start:
                # It was set back, or given another name, since this run has taken its window.
                log.warning(
                    "Cursor %r stays at %s: %s is not next", self.cursor_name, iso_time(cursor), window
                )
                return
        self._advance(window.end)
        self._earlier.note(window)
        self._lists().enlist(
            self.cursor_key,
            {
                "dag": self._owner.dag_id,
                "task": self._owner.task_id,
                # A watcher of its own looks after its cursor itself.
                "woken": bool(self._woken_for("until")) and not self._is_woken_alone(),
            },
            # A run that was started by hand says nothing of the schedule.
            keeps_woken=not self._is_scheduled,
        )

    def unread_before(self, window: ChangeWindow) -> ChangeWindow | None:
        """Return what a scheduled run by rule 2 leaves out: from the cursor to its interval's start."""
        if self._explicit is not None or not self._is_scheduled or not self._has_cursor:
            return None
        cursor = self.cursor()
        return ChangeWindow(cursor, window.start) if cursor is not None and cursor < window.start else None

    def warn_of_unread(self, log: Any, window: ChangeWindow) -> None:
        """Log a warning if a scheduled run leaves something out."""
        if (unread := self.unread_before(window)) is not None:
            log.warning("No run has read %s: this run covers %s. Backfill what is missing", unread, window)

    def _began(self, until: datetime) -> datetime:
        """Return what ``until`` would have been when the run began: a task may wait, and be tried again.

        So a new DAG's first run covers the time since it was unpaused, as near as Airflow tells.
        """
        began: datetime | None = getattr(self._context.get("dag_run"), "start_date", None)
        if began is None:
            return until
        age = datetime.now(timezone.utc) - began  # of two clocks that the server's is not one of
        return min(until, (until - age).replace(microsecond=0))

    def _payloads(self) -> list[Any]:
        """Return what the events say that triggered the run."""
        events = (self._context.get("triggering_asset_events") or {}).values()
        return [(event.extra or {}).get("payload") for of_asset in events for event in of_asset]

    def _is_woken_alone(self) -> bool:
        return any(isinstance(payload, dict) and "cursor" in payload for payload in self._payloads())

    def _woken_for(self, end: str) -> list[datetime]:
        """Return from or up to when there are changes, by the watcher's events that triggered the run."""
        found = []
        for payload in self._payloads():
            # An event that can't be read is another asset's: a DAG may be scheduled by several.
            with contextlib.suppress(InvalidTime, KeyError):
                found.append(api_time(payload[end] if isinstance(payload, dict) else None, "event"))
        return found

    def cursor(self) -> datetime | None:
        """Return up to when this task has read, if that is known."""
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
                "mapped task group, with a cursor whose name depends on what the group is mapped over; or "
                "give it a window, or the DAG a timetable with data intervals"
            ) from None

    def _check_map_index(self) -> None:
        """Refuse what would have several map indexes move one cursor.

        :raises InvalidWindow: if this map index has no cursor of its own.
        """
        if self._map_index < 0:
            return
        if not self._has_cursor:
            raise InvalidWindow(
                "the map indexes of a mapped task group would share one cursor, and each would miss what the "
                "others read: give the sensor a cursor whose name depends on what the group is mapped over, "
                "a window, or a timetable with data intervals"
            )
        self._earlier.note(None)
        self._earlier.check_other_map_indexes()

    def _end_of_last_run(self) -> datetime | None:
        """Return where the last run's window ended; ``None`` if none has taken one.

        :raises LostCursor: if there were runs, and none tells of its window any more.
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
            "No cursor %r in the state of asset %r: going on from where run %s has read to, %s",
            *(self.cursor_key, self._asset.name, run_id, iso_time(window.end)),
        )
        return window.end

    def _tell_of_first_run(self, since: datetime) -> None:
        """Log from when on changes are read, and what other cursors there are: one may be its old one."""
        # A warning: a DAG that was deleted, and is back, looks the same, and what it has missed is not read.
        log.warning(
            "Cursor %r is new: changes are read from %s on. If this task has read changes before, and its "
            "DAG was deleted since, give it an explicit window for what lies between",
            *(self.cursor_name, iso_time(since)),
        )
        if not self.is_test:
            self._lists().tell_of_others(self.cursor_key)

    def _lists(self) -> CursorLists:
        return CursorLists(self._state(), self._context["ti"])


def warn_of_timeless(log: Any, record_type: str, ids: Sequence[int]) -> None:
    """Log a warning of records that have neither time, if there are any."""
    if ids:
        log.warning(
            "%d records of %s have no time of creation or update, so that no window holds them: %s",
            len(ids),
            record_type,
            ids[:IDS_SHOWN],
        )
