"""A run's lookback: the span before its window that it reads again, and the memory that this needs.

The changes that were seen are kept in the asset's state, beside the cursor (``core.detection.seen_store``).
The changes that this run reports are kept in the task's state, so that a retry or a cleared run reports the
same ones. A run writes in this order, so that nothing is lost or reported twice if it is killed:

1. It writes the changes that it reports into the task's state.
2. It writes the changes that were seen, for the cursor's next position. The state for the present one stays.
3. ``runs.windows`` writes the window that the run has taken, and the cursor. This commits the run.

If a run is stopped before it writes the cursor, it has reported nothing. Its next try starts again, from the
cursor's position at that time, since another run may have read the same changes meanwhile.

Only runs that move the cursor have a lookback: runs by rule 3, and scheduled runs by rule 2.
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
from airflow_insightly_hooks.core.plurals import counted
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
"""The first part of the keys of the task's state that keep the changes that a run has reported."""


class RunLookback:
    """The lookback of one run.

    :param context: the run's context.
    :param windows: the run's windows. This object is the memory beside their cursor.
    :param asset: the asset that keeps the cursor.
    :param hook: the hook of the account.
    :param search: the other conditions of the search. Changes that a search with other conditions has seen
        don't count.
    :param record_type: the type of the records.
    :param events: the events to report.
    :param lookback: seconds; 0 means no lookback.
    :param log: the task's log.
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
        """Return the run's window; ``None`` if it must be opened.

        :param window: the result of ``RunWindows.fixed``. If an earlier try has taken it by rule 3, but was
            stopped before it could move the cursor, this window doesn't count.
        """
        if window is None or self._store is None or not self._windows.is_open_ended:
            return window
        told = read_value(self._task_state, TOLD)
        if isinstance(told, dict) and told.get("window") != window.as_dict():
            return None  # a later try has opened another window, and was stopped, too
        return None if self._has_reported(window) is False else window

    def may_grow(self, window: ChangeWindow) -> bool:
        """Return whether more changes in a window, or in the lookback before it, may still become visible."""
        if self._store is None:
            return False
        now = datetime.now(timezone.utc)
        if watched_since(now, self._lookback) < window.end:
            return True
        state = self._remembered(window)
        return state is not None and not zone_before(window, self._lookback, state.since).is_empty

    def search_from(self, window: ChangeWindow) -> datetime:
        """Return the ``updated_after_utc`` of the search, for use when the server's time is not known yet."""
        if self._store is None:
            return window.search_from
        state = self._remembered(window)
        zone = zone_before(window, self._lookback, state.since if state is not None else None)
        return ChangeWindow(zone.start, window.end).search_from

    def changes(self, window: ChangeWindow, settled_until: datetime) -> LateChanges | SameChanges:
        """Return the object that finds the changes for the run to report.

        :param settled_until: changes up to this time have settled, by the server's clock.
        """
        plain = SameChanges(self._record_type, self._events, window)
        if self._store is None:
            return plain
        if self._has_reported(window):
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
        """Keep the changes that the run has seen and those that it reports. Move the cursor right after this.

        :param changes: the result of ``changes``, after all records were passed to it.
        """
        if self._store is None or not isinstance(changes, LateChanges):
            return
        window = changes.window
        blocks = changes.told.blocks()  # first, since the changes that it drops make ``plain`` longer
        if changes.told.since > changes.zone.start:
            self._log.warning(
                "The list of this run's changes does not fit into its state. If the run is retried or "
                "cleared, it reports all changes before %s again, even if earlier runs have reported them",
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
                "There are more changes than can be remembered: a change from before %s that becomes visible "
                "late is not found; a shorter lookback needs less memory",
                iso_time(changes.after.since),
            )
        if changes.late:
            self._log.info(
                "Found %s from before %s: they have become visible late",
                counted(changes.late, "change"),
                window,
            )

    def _has_reported(self, window: ChangeWindow) -> bool | None:
        """Return whether an earlier try has reported this window's changes; ``None`` if no try is known."""
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
            self._log.warning(
                "The list of the changes that this run has reported can't be read (%s): it reports all "
                "changes in %s",
                error,
                window,
            )
            return None
        return SameChanges(self._record_type, self._events, plain, seen)

    def _state_for(self, window: ChangeWindow) -> SeenState | None:
        """Return the state for the position at which the window starts; otherwise the latest state."""
        exact = [state for state in self._states if state.until == window.start]
        return next(iter([*exact, *self._states[::-1]]), None)

    def _remembered(self, window: ChangeWindow) -> SeenState | None:
        """Return the state that has the changes seen before a window; ``None`` if there is no such state."""
        state = self._state_for(window)
        if state is None or state.reader != self._reader:
            return None
        return state if state.until > zone_before(window, self._lookback, None).start else None

    def _before(self, window: ChangeWindow) -> SeenChanges | None:
        """Return the changes that earlier runs have seen. If they aren't known, log it; return ``None``."""
        state, known = self._remembered(window), self._state_for(window)
        reason = "nothing is remembered"
        if state is not None and self._store is not None:
            try:
                return self._store.read(state)
            except InvalidState as error:
                reason = str(error)
        elif known is not None and known.reader == self._reader:
            reason = f"the remembered changes end at {iso_time(known.until)}"
        elif known is not None:
            reason = "the remembered changes are of another search or another account"
        if self._cursor is None:
            self._log.info("Changes before %s are remembered, but not reported", iso_time(window.start))
        else:
            self._log.warning(
                "It is not known which changes before %s earlier runs have seen: %s. Changes that are "
                "visible there now are remembered, but not reported. Changes that become visible there "
                "later are found",
                iso_time(window.start),
                reason,
            )
        return None
