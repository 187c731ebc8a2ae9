"""Check whether the DAGs that share a watcher have read reported changes; if not, report them again."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.state.versions import check_version
from airflow_insightly_hooks.hooks.assets import CURSOR_LISTS
from airflow_insightly_hooks.triggers.own_cursor import LONGEST_READ, LONGEST_REPEAT, count_runs

if TYPE_CHECKING:
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors

__all__ = ["SharedCursors"]

log = logging.getLogger(__name__)

ABANDONED_AFTER = timedelta(days=7)
"""A cursor that is older doesn't count as behind, because its DAG is gone."""


class _Behind(NamedTuple):
    read_to: str
    delay: float
    due: float


class SharedCursors:
    """Changes that were reported to the DAGs that share a watcher, until the DAGs have read them.

    As long as a cursor is behind, the changes are reported again. The delay grows while the cursor doesn't
    move. So a DAG that is paused for long, or gone, wakes the other DAGs less and less often.

    :param state: the state of the asset that keeps the cursors.
    """

    def __init__(self, state: AssetStateStoreAccessors) -> None:
        self._state = state
        self._look_at = math.inf
        self._delay = 0.0
        self._behind: dict[str, _Behind] = {}
        self._reported: tuple[datetime, datetime] | None = None
        self._wait_for_runs_until = 0.0

    def reported(self, since: datetime, until: datetime, delay: float, *, is_announced: bool = False) -> None:
        """Record that changes were reported.

        :param since: the time from which there are changes.
        :param until: the time up to which there are changes.
        :param delay: seconds until the cursors are checked.
        :param is_announced: whether a webhook has announced the changes. Then a run that is reading gets some
            time before the changes are reported again.
        """
        if self._reported is not None:
            since, until = self._reported[0], max(until, self._reported[1])
        self._reported = since, until
        self._delay = delay
        self._wait_for_runs_until = time.monotonic() + LONGEST_READ if is_announced else 0.0
        self._look_at = min(self._look_at, time.monotonic() + delay)

    async def due_repeat(self) -> tuple[datetime, datetime] | None:
        """Return the start and the end of the changes to report again now; ``None`` if there are none."""
        now = time.monotonic()
        if self._reported is None or now < self._look_at:
            return None
        reported, self._look_at = self._reported, math.inf
        try:
            read_to, tasks = await self._cursors()
        except Exception as error:
            log.info("The cursors of DAGs can't be read: %s", type(error).__name__)
            self._look_at, self._delay = now + self._delay, min(2 * self._delay, LONGEST_REPEAT)
            return reported
        if not read_to:  # no DAG that listens has a known cursor: report the changes only once more
            self._reported = None
            return reported
        last, before, is_due = datetime.now(timezone.utc) - ABANDONED_AFTER, self._behind, False
        self._behind = {}
        for key, text in read_to.items():
            if not last < api_time(text, key) < reported[1]:
                continue
            known = before.get(key)
            if known is not None and known.read_to == text and now < known.due:
                self._behind[key] = known
            elif now < self._wait_for_runs_until and await _is_reading(tasks[key]):
                self._behind[key] = _Behind(text, self._delay / 2, now + self._delay)
            elif known is None or known.read_to != text:
                self._behind[key], is_due = _Behind(text, self._delay, now + self._delay), True
            else:
                delay = min(2 * known.delay, LONGEST_REPEAT)
                self._behind[key], is_due = _Behind(text, delay, now + delay), True
        if not self._behind:
            self._reported = None
            return None
        self._look_at = min(known.due for known in self._behind.values())
        return reported if is_due else None

    async def _cursors(self) -> tuple[dict[str, str], dict[str, Any]]:
        """Return the cursors of the DAGs that watchers wake, and the tasks that moved cursors, by key."""
        known: dict[str, Any] = {}
        for part in CURSOR_LISTS:
            of_part: Any = await self._state.aget(part)
            check_version(part, of_part)
            known |= of_part or {}
        woken = [key for key, entry in known.items() if entry.get("woken")]
        read_to = {key: await self._state.aget(key) for key in woken}
        return {key: text for key, text in read_to.items() if isinstance(text, str)}, known


async def _is_reading(task: Mapping[str, Any]) -> bool:
    """Return whether a task that moves a cursor is active."""
    try:
        return (await count_runs(task["dag"], task["task"])).reading > 0
    except Exception as error:
        log.info("The runs of a DAG can't be counted: %s", type(error).__name__)
        return False
