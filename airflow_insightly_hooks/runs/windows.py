"""Which window of time a run covers: the one rule, in its one place.

1. an explicit window;
2. else the run's data interval, if it is not empty (interval timetables, backfills);
3. else from where this task has read to, its cursor, up to now less ``settle``, and at least up to where a
   watcher's events say that there are changes; a first run starts there, or, where such events have triggered
   it, where the changes that they tell of begin.

The cursor is kept in the state of an asset that stands for the account and the record type, since a
task's own state ends with its run. It moves forward only: by rule 3, and by a scheduled run's interval, so
that a manual run without a logical date goes on from the last interval. A window that a run has taken by
rule 3 is kept in the task's state, so that a retry or a cleared run covers the same one again.

A cursor that is missing is not "from now on" where the task has run before: then its last run's own window
(XCom ``window``) says where to go on. A task that hasn't run before begins now, whatever other cursors there
are: one that was renamed says by the cursor's name where it goes on. The log of a first run lists the names.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskInstanceState

from airflow_insightly_hooks.core.dates import api_time, iso_time
from airflow_insightly_hooks.core.detection.changes import ChangeWindow
from airflow_insightly_hooks.core.errors import (
    InsightlyHooksError,
    InvalidTime,
    InvalidWindow,
    LostCursor,
    UntrustedClock,
)
from airflow_insightly_hooks.hooks.assets import CURSORS, cursor_key

if TYPE_CHECKING:
    from airflow.sdk import Asset, BaseOperator, Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol as RuntimeTaskInstance

__all__ = ["WINDOW", "RunWindows", "warn_of_timeless"]

log = logging.getLogger(__name__)

WINDOW = "window"
"""The XCom key of the window that a run covers."""
TAKEN = "window"
"""The key of the task's state that keeps the window a run has taken by rule 3."""
CLOCK_TOLERANCE = timedelta(seconds=60)
"""By how much the clocks of an API's servers may differ before a cursor ahead of them is an error."""
IDS_SHOWN = 20
CURSORS_SHOWN = 50
EARLIER_RUNS = 20
"""How many earlier runs are asked, at most: whether one was not a backfill's, and for its window."""
LONGEST_SETTLE = timedelta(minutes=10)
"""How far ahead an event's watermark may be to be waited for; what is further ahead is nobody's settling."""
ENDED = (TaskInstanceState.SUCCESS, TaskInstanceState.SKIPPED)


class RunWindows:
    """The windows of one sensor's run.

    :param context: the run's context.
    :param owner: whose cursor it is: what has the ids of the DAG and the task.
    :param asset: the asset that keeps the cursor; one of the task's inlets.
    :param explicit: rule 1's window, if there is one.
    :param cursor: the cursor's name; by default ``{dag_id}/{task_id}``.
    :raises InvalidWindow: if ``explicit`` is not a window.
    """

    def __init__(
        self,
        context: Context,
        owner: RuntimeTaskInstance | BaseOperator,
        asset: Asset,
        explicit: object = None,
        cursor: str | None = None,
    ) -> None:
        run = context.get("dag_run")
        start, end = context.get("data_interval_start"), context.get("data_interval_end")
        self._context = context
        self._owner = owner
        self._asset = asset
        self._explicit = ChangeWindow.of(explicit) if explicit is not None else None
        self._interval = (
            ChangeWindow(start, end) if start is not None and end is not None and start < end else None
        )
        self._is_scheduled = getattr(run, "run_type", None) == "scheduled"
        self.cursor_name = cursor or f"{owner.dag_id}/{owner.task_id}"
        self.cursor_key = cursor_key(self.cursor_name)

    @property
    def is_open_ended(self) -> bool:
        """Whether rule 3 gives the window."""
        return self._explicit is None and self._interval is None

    @property
    def moves_cursor(self) -> bool:
        """Whether ``take`` moves the cursor."""
        return self.is_open_ended or (self._explicit is None and self._is_scheduled)

    def fixed(self) -> ChangeWindow | None:
        """Return the window that is given by rule 1 or 2 or was taken by an earlier try, else ``None``."""
        if self._explicit is not None:
            return self._explicit
        if self._interval is not None:
            return self._interval
        taken = self._context["task_state_store"].get(TAKEN)
        return ChangeWindow.of(taken) if taken is not None else None

    def open(self, until: datetime) -> ChangeWindow:
        """Return the window of rule 3 that ends at ``until``; it starts there, too, in a task's first run.

        :param until: the server's time, less what has to settle. Its fraction of a second is cut: more
            changes of that second may come, and the API's times have whole seconds.
        :raises LostCursor: if the task has run before, and neither its cursor nor its last window is left.
        :raises UntrustedClock: if the cursor is ahead of ``until`` by more than clocks differ.
        """
        until = until.replace(microsecond=0)
        cursor = self.cursor() or self._end_of_last_run()
        if cursor is None:
            since = min([until, *self._woken_for("since")])
            self._tell_of_first_run(since)
            if since == until:
                self._advance(until)
            return ChangeWindow(since, until)
        if cursor > until + CLOCK_TOLERANCE:
            raise UntrustedClock(iso_time(until), self.cursor_key, iso_time(cursor))
        return ChangeWindow(min(cursor, until), until)

    def unsettled(self, until: datetime, window: ChangeWindow | None) -> timedelta | None:
        """Return how long to wait until the changes have settled that this run is to read, if at all.

        :param until: the server's time, less what has to settle.
        :param window: the run's window; ``None`` for one that ``open`` is yet to give, which then ends where
            a watcher's events say that there are changes, or later.
        """
        if window is not None:
            end = window.end
        else:
            last = until + LONGEST_SETTLE
            end = max((mark for mark in self._woken_for("until") if mark <= last), default=until)
        return end - until if end > until else None

    def take(self, window: ChangeWindow) -> None:
        """Note that this run has read ``window``.

        By rule 3, a retry will read it again. The cursor moves by rule 3, and by a scheduled interval.
        """
        if self._explicit is not None:
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
        elif not self._is_scheduled:
            return
        self._advance(window.end)
        self._enlist()

    def unread_before(self, window: ChangeWindow) -> ChangeWindow | None:
        """Return what a scheduled run by rule 2 leaves out: from the cursor to its interval's start."""
        if self._explicit is not None or not self._is_scheduled:
            return None
        cursor = self.cursor()
        return ChangeWindow(cursor, window.start) if cursor is not None and cursor < window.start else None

    def warn_of_unread(self, log: Any, window: ChangeWindow) -> None:
        """Log a warning if a scheduled run leaves something out."""
        if (unread := self.unread_before(window)) is not None:
            log.warning("No run has read %s: this run covers %s. Backfill what is missing", unread, window)

    def _woken_for(self, end: str) -> list[datetime]:
        """Return from or up to when there are changes, by the watcher's events that triggered the run."""
        events = (self._context.get("triggering_asset_events") or {}).values()
        payloads = [(event.extra or {}).get("payload") for of_asset in events for event in of_asset]
        found = []
        for payload in payloads:
            # An event that can't be read is another asset's: a DAG may be scheduled by several.
            with contextlib.suppress(InvalidTime, KeyError):
                found.append(api_time(payload[end] if isinstance(payload, dict) else None, "event"))
        return found

    def cursor(self) -> datetime | None:
        """Return up to when this task has read, if that is known."""
        text = self._state().get(self.cursor_key)
        where = f"state {self.cursor_key!r} of asset {self._asset.name!r}"
        return None if text is None else api_time(text, where)

    def _advance(self, to: datetime) -> None:
        cursor = self.cursor()
        if cursor is None or cursor < to:
            self._state().set(self.cursor_key, iso_time(to))

    def _state(self) -> Any:
        try:
            return self._context["asset_state_store"][self._asset]
        except KeyError:  # a mapped task has no inlets of its own
            raise InvalidWindow(
                "a sensor that is mapped over record types or connections has no cursor: give it a window, "
                "or use a timetable with data intervals"
            ) from None

    def _end_of_last_run(self) -> datetime | None:
        """Return where the last run's window ended; ``None`` if this is the first one.

        :raises LostCursor: if there were runs, and none tells of its window any more.
        """
        if not self._has_run():
            return None
        ti = self._context["ti"]
        for run_id in self._earlier_runs():
            window = ti.xcom_pull(task_ids=ti.task_id, key=WINDOW, run_id=run_id)
            try:
                end = ChangeWindow.of(window).end
            except InsightlyHooksError:  # marked so by hand, or its XCom is gone
                continue
            log.warning(
                "No cursor %r in the state of asset %r: going on from where run %s has read to, %s",
                *(self.cursor_key, self._asset.name, run_id, iso_time(end)),
            )
            return end
        raise LostCursor(self._owner.dag_id, self._owner.task_id, self._asset.name, self.cursor_key)

    def _has_run(self) -> bool:
        """Return whether a run of this task, other than a backfill's, has ended well before."""
        ti = self._context["ti"]
        for state in ENDED:
            before: datetime | None = None
            for _ in range(EARLIER_RUNS):
                earlier = ti.get_previous_ti(state=state, logical_date=before)
                # Without a try it was skipped from outside, and never looked.
                if earlier is None or earlier.run_id == ti.run_id or earlier.try_number == 0:
                    break
                if not earlier.run_id.startswith("backfill"):
                    return True
                before = earlier.logical_date
        return False

    def _earlier_runs(self) -> list[str]:
        """Return the ids of runs in which this task has ended well, the latest first."""
        ti = self._context["ti"]
        # Asset-triggered runs have no logical date to be ordered by; their ids hold their time.
        states = ti.get_task_states(dag_id=ti.dag_id, task_ids=[ti.task_id])
        ended = [
            run_id
            for run_id, of_run in states.items()
            if of_run.get(ti.task_id) in ENDED and run_id != ti.run_id and not run_id.startswith("backfill")
        ]
        return sorted(ended, key=_time_of, reverse=True)[:EARLIER_RUNS]

    def _tell_of_first_run(self, since: datetime) -> None:
        """Log from when on changes are read, and what other cursors there are: one may be its old one."""
        log.info("Cursor %r is new: changes are read from %s on", self.cursor_name, iso_time(since))
        state = self._state()
        keys = sorted(set(state.get(CURSORS) or ()) - {self.cursor_key})
        if not keys:
            return
        names = {key: key.removeprefix(cursor_key("")) for key in keys[:CURSORS_SHOWN]}
        shown = [f"{name} (read to {state.get(key)})" for key, name in names.items()]
        if len(keys) > len(shown):
            shown.append(f"and {len(keys) - len(shown)} more")
        log.info(
            "Other cursors for this account and record type: %s. If this task had another id before, give it "
            "cursor=… with that name to go on from there",
            ", ".join(shown),
        )

    def _enlist(self) -> None:
        """Note whose cursor it is, for a watcher, and for the log of another task's first run."""
        state, entry = self._state(), self._entry()
        known = state.get(CURSORS) or {}
        before = known.get(self.cursor_key)
        if before is not None:
            if not entry["woken"] and not self._is_scheduled:
                # A run that was started by hand says nothing of the schedule.
                entry["woken"] = before["woken"]
            if (before["dag"], before["task"]) != (entry["dag"], entry["task"]):
                log.warning(
                    "Cursor %r was moved by %s.%s before. After a rename, that is as it should be. If that "
                    "task still runs, each of the two misses what the other one reads: give them two names",
                    *(self.cursor_name, before["dag"], before["task"]),
                )
        if before != entry:
            state.set(CURSORS, {**known, self.cursor_key: entry})

    def _entry(self) -> dict[str, Any]:
        return {
            "dag": self._owner.dag_id,
            "task": self._owner.task_id,
            "woken": bool(self._woken_for("until")),
        }


def warn_of_timeless(log: Any, record_type: str, ids: Sequence[int]) -> None:
    """Log a warning of records that have neither time, if there are any."""
    if ids:
        log.warning(
            "%d records of %s have no time of creation or update, so that no window holds them: %s",
            len(ids),
            record_type,
            ids[:IDS_SHOWN],
        )


def _time_of(run_id: str) -> str:
    """Return the time that Airflow's own run ids end in, as a text that sorts; others come first."""
    match = re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?", run_id)
    return match[0] if match else ""
