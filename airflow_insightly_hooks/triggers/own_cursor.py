"""Check whether the only DAG that a watcher wakes has read reported changes; if not, report them again.

Airflow queues no event for a paused DAG, and doesn't tell a trigger that a DAG is paused. So the changes are
reported again at each poll, as long as the DAG has had no new run and its sensor is not active. This wakes no
other DAG, and makes no run while the DAG is paused. If the DAG has had a run, it may be failing. Then the
changes are reported again after growing delays.

The endpoint is the first to report changes that a webhook announces. The DAG gets an interval to read them.
A run that is reading gets five minutes. So a webhook makes only one run if nothing goes wrong.
"""

from __future__ import annotations

import logging
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.hooks.assets import cursor_key, cursor_list

if TYPE_CHECKING:
    from airflow.sdk.execution_time.comms import GetDRCount, GetTICount
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors

__all__ = ["FIRST_REPEAT", "LONGEST_REPEAT", "OwnCursor"]

log = logging.getLogger(__name__)

FIRST_REPEAT = 5.0
"""The least seconds that DAGs get to read changes before they are reported again."""
LONGEST_REPEAT = 3600.0
"""The most seconds between two reports of the same changes."""
LONGEST_READ = 300.0
"""Seconds that a run gets to read announced changes before they are reported again."""
ACTIVE_STATES = ["scheduled", "queued", "running", "deferred", "up_for_retry", "up_for_reschedule"]


class Runs(NamedTuple):
    """The number of a DAG's runs, and the number of active tasks in them that move the cursor."""

    all: int
    reading: int


class _Position(NamedTuple):
    """The position of a cursor.

    :param read_to: the time up to which changes were read; ``None`` if there is no cursor, or it can't be
        read.
    :param is_known: whether the cursor could be read.
    """

    read_to: datetime | None
    is_known: bool = True

    def is_behind(self, until: datetime) -> bool:
        return self.read_to is None or self.read_to < until


class OwnCursor:
    """Changes that were reported to one DAG, until its cursor shows that they were read.

    :param state: the state of the asset that keeps the cursor.
    :param cursor: the cursor's name.
    :param interval: seconds between two events.
    :param is_pushed: whether webhooks wake the DAG.
    """

    def __init__(
        self, state: AssetStateStoreAccessors, cursor: str, interval: float, *, is_pushed: bool = False
    ) -> None:
        self._state = state
        self._key = cursor_key(cursor)
        self._interval, self._first_delay = interval, max(interval, FIRST_REPEAT)
        self._is_pushed = is_pushed
        self._reported: tuple[datetime, datetime] | None = None
        self._runs: Runs | None = None
        self._delay = self._due = self._look_at = self._reported_at = 0.0

    async def reported(self, since: datetime, until: datetime) -> None:
        """Record that changes are being reported.

        :param since: the time from which there are changes.
        :param until: the time up to which there are changes.
        """
        self._note(since, until)
        self._runs = await self._count_runs()

    def announced(self, since: datetime, until: datetime) -> None:
        """Record that a webhook has announced changes. The endpoint's event may already have made a run."""
        self._note(since, until)
        self._runs = None
        self._look_at = self._due

    def _note(self, since: datetime, until: datetime) -> None:
        if self._reported is not None:
            since, until = min(since, self._reported[0]), max(until, self._reported[1])
        self._reported = since, until
        self._delay = self._first_delay
        self._reported_at = time.monotonic()
        self._due = self._reported_at + self._delay

    async def due_repeat(self) -> tuple[datetime, datetime] | None:
        """Return the start and the end of the changes to report again now; ``None`` if there are none."""
        if self._reported is None or (self._is_pushed and time.monotonic() < self._look_at):
            return None
        # Between polls, this is called often. A DAG that is behind for long isn't checked each time.
        self._look_at = time.monotonic() + 0.8 * self._interval
        position = await self._position()
        if not position.is_behind(self._reported[1]):
            self._reported = None
            return None
        reported = await self._due_report(self._reported, position)
        # A task that has ended meanwhile has moved the cursor, and was not counted as active.
        if reported is None or not (await self._position()).is_behind(reported[1]):
            return None
        return reported

    async def _due_report(
        self, reported: tuple[datetime, datetime], position: _Position
    ) -> tuple[datetime, datetime] | None:
        """Return the reported changes if the DAG's runs show that it is time to report them again."""
        runs = await self._count_runs()
        is_reading = runs is not None and runs.reading > 0
        if self._is_pushed and is_reading and time.monotonic() < self._reported_at + LONGEST_READ:
            return None
        if runs is not None and runs == self._runs and not runs.reading:
            return reported
        if time.monotonic() < self._due:
            return None
        if position.read_to is None and position.is_known:
            self._reported = None  # there may never be a cursor: report the changes only once more
        self._delay = min(2 * self._delay, LONGEST_REPEAT)
        self._due = time.monotonic() + self._delay
        self._runs = runs
        return reported

    async def _position(self) -> _Position:
        try:
            read_to = await self._state.aget(self._key)
            return _Position(None if read_to is None else api_time(read_to, self._key))
        except Exception as error:
            log.info("The position of %s can't be read: %s", self._key, type(error).__name__)
            return _Position(None, is_known=False)

    async def _count_runs(self) -> Runs | None:
        """Return the number of the DAG's runs; ``None`` if it isn't known, as before the first run."""
        try:
            known: Any = await self._state.aget(cursor_list(self._key)) or {}
            entry = known.get(self._key)
            return None if entry is None else await count_runs(entry["dag"], entry["task"])
        except Exception as error:
            log.info("The runs of %s can't be counted: %s", self._key, type(error).__name__)
            return None


async def count_runs(dag_id: str, task_id: str) -> Runs:
    """Return how many runs a DAG has, and in how many of them a task is active."""
    from airflow.sdk.execution_time.comms import GetDRCount, GetTICount

    return Runs(
        await _count(GetDRCount(dag_id=dag_id)),
        await _count(GetTICount(dag_id=dag_id, task_ids=[task_id], states=ACTIVE_STATES)),
    )


async def _count(what: GetDRCount | GetTICount) -> int:
    from airflow.sdk.execution_time.comms import DRCount, TICount
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    answer: Any = await SUPERVISOR_COMMS.asend(what)
    if not isinstance(answer, DRCount | TICount):
        raise TypeError(f"no count, but {type(answer).__name__}")
    return answer.count
