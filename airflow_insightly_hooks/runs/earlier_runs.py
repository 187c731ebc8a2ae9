"""Find out from XComs up to what time earlier runs of a task have read.

Each run that may move a cursor pushes an entry under the key ``CURSOR``: the cursor's name, and the window
that the run has taken, which is ``None`` until it takes one. A run may end without a window, because it was
skipped or a user marked it. The entry distinguishes this run from a run whose XComs are gone.

Private.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskInstanceState

from airflow_insightly_hooks.core.detection.changes import ChangeWindow
from airflow_insightly_hooks.core.errors import InsightlyHooksError, InvalidWindow

if TYPE_CHECKING:
    from airflow.sdk.types import RuntimeTaskInstanceProtocol as RuntimeTaskInstance

__all__ = ["CURSOR", "WINDOW", "EarlierRuns"]

WINDOW = "window"
"""The XCom key of the window that a run covers."""
CURSOR = "cursor"
"""The XCom key of ``{"name", "window", "is_test"}``: a run's cursor, and the window that it has taken."""
EARLIER_RUNS = 20
"""The most earlier runs that are examined."""
ENDED = (TaskInstanceState.SUCCESS, TaskInstanceState.SKIPPED)


class EarlierRuns:
    """The runs of one task before this one.

    :param ti: this run's task instance; ``None`` outside of Airflow, where there are no XComs.
    :param name: the name of its cursor.
    :param is_test: whether this run is only a test. Only a test also continues from earlier tests.
    """

    def __init__(self, ti: RuntimeTaskInstance | None, name: str, *, is_test: bool) -> None:
        self._ti: Any = ti
        self._name = name
        self._is_test = is_test

    def note(self, window: ChangeWindow | None) -> None:
        """Push this run's entry.

        :param window: the window that the run has taken; ``None`` if it has not taken one yet.
        """
        if self._ti is None:
            return
        taken = window.as_dict() if window is not None else None
        self._ti.xcom_push(CURSOR, {"name": self._name, "window": taken, "is_test": self._is_test})

    def check_other_map_indexes(self) -> None:
        """Refuse the cursor's name if another map index of this run has it, too.

        The second map index to push its entry sees the other's.

        :raises InvalidWindow: if another map index has the name.
        """
        entries = self._entries(self._ti.run_id)
        if sum(entry.get("name") == self._name for entry in entries) > 1:
            raise InvalidWindow(
                f"several map indexes of this task have the cursor {self._name!r}, so each would miss the "
                f"changes that the others read: make the cursor's name depend on the values that the group "
                f"is mapped over"
            )

    def last_window(self) -> tuple[str, ChangeWindow] | None:
        """Return the id of the last run that has taken a window, and the window; ``None`` for a first run.

        :raises LookupError: if there were earlier runs, but their windows are not known.
        """
        silent = False
        without_window = set()
        for run_id in self._ended():
            entries = self._entries(run_id)
            windows = [self._window(entry) for entry in entries if self._is_of_this(entry)]
            if entries and not any(windows):
                without_window.add(run_id)
                continue
            if not entries:  # an earlier version left none
                windows = [self._window({"window": self._pull(WINDOW, run_id)})]
            if (window := next(filter(None, windows), None)) is not None:
                return run_id, window
            silent = True
        if silent and self._has_run(without_window):
            raise LookupError
        return None

    def _is_of_this(self, entry: dict[str, Any]) -> bool:
        # A task without map indexes has one cursor: its last window counts under any name of the cursor.
        is_named = self._ti.map_index < 0 or entry.get("name") == self._name
        return is_named and (self._is_test or not entry.get("is_test"))

    @staticmethod
    def _window(entry: dict[str, Any]) -> ChangeWindow | None:
        try:
            return ChangeWindow.of(entry.get("window"))
        except InsightlyHooksError:  # the entry has no window
            return None

    def _entries(self, run_id: str) -> list[dict[str, Any]]:
        """Return the entries of a run's task, of all its map indexes."""
        found = self._pull(CURSOR, run_id)
        return [e for e in (found if isinstance(found, list) else [found]) if isinstance(e, dict)]

    def _pull(self, key: str, run_id: str) -> Any:
        # Without map_indexes, Airflow returns the XComs of all map indexes: a list, if there are several.
        return self._ti.xcom_pull(task_ids=self._ti.task_id, key=key, run_id=run_id)

    def _has_run(self, besides: set[str]) -> bool:
        """Return whether this task has ended well in an earlier run.

        :param besides: the ids of runs that don't count. Backfills don't count either.
        """
        for state in ENDED:
            before: datetime | None = None
            for _ in range(EARLIER_RUNS):
                earlier = self._ti.get_previous_ti(
                    state=state, logical_date=before, map_index=self._ti.map_index
                )
                if earlier is None or earlier.run_id == self._ti.run_id:
                    break
                # A task without a try was skipped or marked from outside, and never looked for changes.
                has_looked = earlier.try_number > 0 and earlier.run_id not in besides
                if has_looked and not earlier.run_id.startswith("backfill"):
                    return True
                if earlier.logical_date is None or earlier.logical_date == before:
                    break
                before = earlier.logical_date
        return False

    def _ended(self) -> list[str]:
        """Return the ids of runs in which this task has ended well, the latest first."""
        # Asset-triggered runs have no logical date by which to sort them, but their ids hold their time.
        states = self._ti.get_task_states(dag_id=self._ti.dag_id, task_ids=[self._ti.task_id])
        ended = [
            run_id
            for run_id, of_run in states.items()
            if set(of_run.values()) & set(ENDED)
            and run_id != self._ti.run_id
            and not run_id.startswith("backfill")
        ]
        return sorted(ended, key=_time_of, reverse=True)[:EARLIER_RUNS]


def _time_of(run_id: str) -> str:
    """Return the time in a run id that Airflow made, as a text that sorts; an empty text for other ids."""
    match = re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?", run_id)
    return match[0] if match else ""
