"""A run's lookback: what it reads again before its window, and the memory that this needs.

What was seen is kept in the asset's state, beside the cursor (``core.detection.seen_store``); what this run
has told, in the task's state, so that a retry or a cleared run tells the same. They are written in the order
that makes every kill right:

1. what the run tells, into the task's state;
2. what has been seen, for the position that the cursor is to have, beside what is for its present one;
3. by ``runs.windows``, the window that the run has taken, and the cursor: that commits.

A run that was stopped before its cursor's write has told nothing. Its next try begins anew, from where the
cursor stands then: another run may have read the same meanwhile.

Only runs that move the cursor have a lookback: those by rule 3, and scheduled ones by rule 2.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.detection.changes import ChangeWindow, Event
from airflow_insightly_hooks.core.detection.late_changes import (
    LateChanges,
    SameChanges,
    watched_since,
    zone_before,
)
from airflow_insightly_hooks.core.detection.seen_changes import SeenChanges
from airflow_insightly_hooks.core.detection.seen_store import (
    SeenState,
    SeenStore,
    read_seen,
    write_seen,
)
from airflow_insightly_hooks.core.digest import digest_of
from airflow_insightly_hooks.core.errors import InsightlyHooksError, InvalidState
from airflow_insightly_hooks.core.records import RecordType
from airflow_insightly_hooks.core.state.versions import read_value
from airflow_insightly_hooks.runs.task_state import TaskState

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context
    from airflow.sdk.types import Logger

    from airflow_insightly_hooks.hooks.insightly import InsightlyHook
    from airflow_insightly_hooks.runs.windows import RunWindows

__all__ = ["RunLookback"]

TOLD = "told"
"""The first part of the keys of the task's state that keep what a run has told."""


class RunLookback:
    """What one run reads again before its window.

    :param context: the run's context.
    :param windows: the run's windows, of whose cursor this is the memory.
    :param asset: the asset that keeps the cursor.
    :param hook: the account.
    :param search: what else is searched for than changes; what one search has seen says nothing of another.
    :param record_type: of what.
    :param events: the events to tell.
    :param lookback: seconds; 0 for none.
    """

    def __init__(
        self,
        context: Context,
        windows: RunWindows,
        asset: Asset,
        hook: InsightlyHook,
        search: object,
        record_type: RecordType,
        events: Collection[Event],
        lookback: float,
        log: Logger,
    ) -> None:
        self._windows, self._record_type, self._events, self._log = windows, record_type, events, log
        self._lookback = timedelta(seconds=lookback)
        self._states: list[SeenState] = []
        self._store: SeenStore | None = None
        if not lookback or not windows.moves_cursor:
            return
        try:
            store = context["asset_state_store"][asset]
        except KeyError:  # a mapped task has no inlets of its own
            return
        self._task_state = TaskState(context["task_state_store"])
        self._reader = digest_of(f"{hook.base_url} {search!r}")
        ti: Any = context.get("ti")
        names = (getattr(ti, name, "") for name in ("dag_id", "run_id", "task_id", "map_index"))
        self._run = digest_of("/".join(map(str, names)))
        self._cursor = windows.cursor()
        self._store = SeenStore(store, windows.cursor_key)
        self._states = self._store.states()

    def binding(self, window: ChangeWindow | None) -> ChangeWindow | None:
        """Return the window that the run has, ``None`` if it is yet to be opened.

        :param window: as ``RunWindows.fixed`` gives it. One that an earlier try has taken by rule 3 doesn't
            count if that try was stopped before it could move the cursor.
        """
        if window is None or self._store is None or not self._windows.is_open_ended:
            return window
        told = read_value(self._task_state, TOLD)
        if isinstance(told, dict) and told.get("window") != window.as_dict():
            return None  # a try after that one has opened another, and was stopped, too
        return None if self._has_told(window) is False else window

    def may_grow(self, window: ChangeWindow) -> bool:
        """Return whether more may become visible yet of a window, or of what is before it."""
        if self._store is None:
            return False
        now = datetime.now(timezone.utc)
        if watched_since(now, self._lookback) < window.end:
            return True
        state = self._remembered(window)
        return state is not None and not zone_before(window, self._lookback, state.since).is_empty

    def search_from(self, window: ChangeWindow) -> datetime:
        """Return the ``updated_after_utc`` to ask for, where the server's time is not known yet."""
        if self._store is None:
            return window.search_from
        state = self._remembered(window)
        zone = zone_before(window, self._lookback, state.since if state is not None else None)
        return ChangeWindow(zone.start, window.end).search_from

    def changes(self, window: ChangeWindow, settled_until: datetime) -> LateChanges | SameChanges:
        """Return what finds the changes that the run is to tell.

        :param settled_until: up to when changes have settled, by the server's clock.
        """
        plain = SameChanges(self._record_type, self._events, window)
        if self._store is None:
            return plain
        if self._has_told(window):
            return self._same(window) or plain
        if window.is_empty:  # a first run
            is_next = self._remembered(window) is None
        else:
            is_next = self._cursor is None or window.end > self._cursor
        if not is_next:
            return plain
        before = self._before(window)
        return LateChanges(window, self._record_type, self._events, self._lookback, before, settled_until)

    def keep(self, changes: LateChanges | SameChanges) -> None:
        """Keep what the run has seen and told; the cursor is to be moved right after that.

        :param changes: as ``changes`` gave it, after all records have passed.
        """
        if self._store is None or not isinstance(changes, LateChanges):
            return
        window = changes.window
        blocks = changes.told.blocks()  # first: what it gives up makes ``plain`` longer
        if changes.told.since > changes.zone.start:
            self._log.warning(
                "What this run tells does not fit into its state: if it is retried or cleared, it tells all "
                "changes before %s again, also those that earlier runs have told",
                iso_time(changes.told.since),
            )
        entries = {"window": window.as_dict(), "plain": changes.plain.as_dict()}
        write_seen(self._task_state, TOLD, changes.told, blocks, entries)
        self._store.write(
            changes.after,
            reader=self._reader,
            run=self._run,
            since=window.start,
            base=self._state_for(window),
        )
        if changes.has_given_up:
            self._log.warning(
                "More was seen than can be remembered: a change from before %s that becomes visible late is "
                "not found",
                iso_time(changes.after.since),
            )
        if changes.late:
            self._log.info(
                "%d of the changes are from before %s: they have become visible late", changes.late, window
            )

    def _has_told(self, window: ChangeWindow) -> bool | None:
        """Return whether an earlier try has told this window's changes; ``None``: nothing is known of one."""
        told = read_value(self._task_state, TOLD)
        if not isinstance(told, dict) or told.get("window") != window.as_dict():
            return None
        known = {state.has_run(window.end, self._run) for state in self._states}
        return True in known or False not in known

    def _same(self, window: ChangeWindow) -> SameChanges | None:
        try:
            told = read_value(self._task_state, TOLD)
            plain = ChangeWindow.of(told["plain"])
            seen = read_seen(self._task_state, TOLD)
        except (InsightlyHooksError, KeyError) as error:
            self._log.warning("What this run has told can't be read (%s): all of %s is told", error, window)
            return None
        return SameChanges(self._record_type, self._events, plain, seen)

    def _state_for(self, window: ChangeWindow) -> SeenState | None:
        """Return the state for where the window starts, else the latest."""
        exact = [state for state in self._states if state.until == window.start]
        return next(iter([*exact, *self._states[::-1]]), None)

    def _remembered(self, window: ChangeWindow) -> SeenState | None:
        """Return the state that tells what was seen before a window, if there is one."""
        state = self._state_for(window)
        if state is None or state.reader != self._reader:
            return None
        return state if state.until > zone_before(window, self._lookback, None).start else None

    def _before(self, window: ChangeWindow) -> SeenChanges | None:
        """Return what the runs before have seen; ``None``, and a log line, where that is not known."""
        state, known = self._remembered(window), self._state_for(window)
        reason = "nothing is remembered of it"
        if state is not None and self._store is not None:
            try:
                return self._store.read(state)
            except InvalidState as error:
                reason = str(error)
        elif known is not None and known.reader == self._reader:
            reason = f"what is remembered ends at {iso_time(known.until)}"
        elif known is not None:
            reason = "what is remembered was seen by another search, or of another account"
        if self._cursor is None:
            self._log.info("What was there before %s is not told, but remembered", iso_time(window.start))
        else:
            self._log.warning(
                "Not known what was seen before %s: %s. What stands there now is remembered, and not told; "
                "what becomes visible there from now on is found",
                iso_time(window.start),
                reason,
            )
        return None
