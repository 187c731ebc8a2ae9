"""Which window of time a run covers: the one rule, in its one place.

1. an explicit window;
2. else the run's data interval, if it is not empty (interval timetables, backfills);
3. else from where this task has read to, its cursor, up to now less ``settle``; a first run starts there,
   or, where a watcher's events have triggered it, where the changes that they tell of begin.

The cursor is kept in the state of an asset that stands for the account and the record type, since a
task's own state ends with its run. It moves forward only: by rule 3, and by a scheduled run's interval, so
that a manual run without a logical date goes on from the last interval. A window that a run has taken by
rule 3 is kept in the task's state, so that a retry or a cleared run covers the same one again.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskInstanceState

from airflow_insightly_hooks.core.changes import ChangeWindow
from airflow_insightly_hooks.core.dates import api_time, iso_time
from airflow_insightly_hooks.core.errors import InvalidWindow, LostCursor, UntrustedClock

if TYPE_CHECKING:
    from airflow.sdk import Asset, BaseOperator, Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol as RuntimeTaskInstance

__all__ = ["RunWindows"]

TAKEN = "window"
"""The key of the task's state that keeps the window a run has taken by rule 3."""
CLOCK_TOLERANCE = timedelta(seconds=60)
"""By how much the clocks of an API's servers may differ before a cursor ahead of them is an error."""
EARLIER_RUNS = 20
"""How many backfill runs are passed over, to see whether another run has been before."""


class RunWindows:
    """The windows of one sensor's run.

    :param context: the run's context.
    :param owner: whose cursor it is: what has the ids of the DAG and the task.
    :param asset: the asset that keeps the cursor; one of the task's inlets.
    :param explicit: rule 1's window, if there is one.
    :raises InvalidWindow: if it is none.
    """

    def __init__(
        self,
        context: Context,
        owner: RuntimeTaskInstance | BaseOperator,
        asset: Asset,
        explicit: object = None,
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
        self.cursor_key = f"cursor/{owner.dag_id}/{owner.task_id}"

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
        :raises LostCursor: if the task has run before and its cursor is gone.
        :raises UntrustedClock: if the cursor is ahead of ``until`` by more than clocks differ.
        """
        until = until.replace(microsecond=0)
        cursor = self._cursor()
        if cursor is None:
            self._check_first_run()
            since = min(self._woken_for(), default=until)
            if since >= until:
                self._advance(until)
            return ChangeWindow(min(since, until), until)
        if cursor > until + CLOCK_TOLERANCE:
            raise UntrustedClock(iso_time(until), self.cursor_key, iso_time(cursor))
        return ChangeWindow(min(cursor, until), until)

    def take(self, window: ChangeWindow) -> None:
        """Note that this run has read ``window``.

        By rule 3, a retry will read it again. The cursor moves by rule 3, and by a scheduled interval.
        """
        if self._explicit is not None:
            return
        if self._interval is None:
            self._context["task_state_store"].set(TAKEN, window.as_dict())
            self._advance(window.end)
        elif self._is_scheduled:
            self._advance(window.end)

    def unread_before(self, window: ChangeWindow) -> ChangeWindow | None:
        """Return what a scheduled run by rule 2 leaves out: from the cursor to its interval's start."""
        if self._explicit is not None or not self._is_scheduled:
            return None
        cursor = self._cursor()
        return ChangeWindow(cursor, window.start) if cursor is not None and cursor < window.start else None

    def _woken_for(self) -> list[datetime]:
        """Return from when on there are changes, by the watcher's events that have triggered the run."""
        events = (self._context.get("triggering_asset_events") or {}).values()
        payloads = [(event.extra or {}).get("payload") for of_asset in events for event in of_asset]
        return [api_time(p["since"], "event") for p in payloads if isinstance(p, dict) and "since" in p]

    def _cursor(self) -> datetime | None:
        text = self._state().get(self.cursor_key)
        where = f"state {self.cursor_key!r} of asset {self._asset.name!r}"
        return None if text is None else api_time(text, where)

    def _advance(self, to: datetime) -> None:
        cursor = self._cursor()
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

    def _check_first_run(self) -> None:
        """Raise LostCursor if a run of this task, other than a backfill's, has ended well before."""
        ti = self._context["ti"]
        for state in (TaskInstanceState.SUCCESS, TaskInstanceState.SKIPPED):
            before: datetime | None = None
            for _ in range(EARLIER_RUNS):
                earlier = ti.get_previous_ti(state=state, logical_date=before)
                # Without a try it was skipped from outside, and never looked.
                if earlier is None or earlier.run_id == ti.run_id or earlier.try_number == 0:
                    break
                if not earlier.run_id.startswith("backfill"):
                    raise LostCursor(
                        self._owner.dag_id, self._owner.task_id, self._asset.name, self.cursor_key
                    )
                before = earlier.logical_date
