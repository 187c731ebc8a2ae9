"""Waiting for record changes in the triggerer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_insightly_hooks.core.changes import ChangeWindow, changes_in, check_events
from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.records import RECORD_TYPES

__all__ = ["InsightlyRecordChangeTrigger"]


class InsightlyRecordChangeTrigger(BaseTrigger):
    """Tells a deferred sensor when looking again is worth it; it never carries records.

    While a closed window settles, it waits for the moment and asks Insightly nothing. For an open window
    it asks every ``poll_interval`` whether there is a change yet.

    :param insightly_conn_id: a connection of type ``insightly``.
    :param record_type: a name of Insightly's API.
    :param events: which events count.
    :param settle: seconds that an open window ends before now.
    :param look_at: when to look, ISO 8601.
    :param until: when the sensor's time is up, ISO 8601: it is told then in any case.
    :param open_since: where the open window starts, ISO 8601; ``None`` for a closed one.
    :param poll_interval: seconds between two looks.

    It yields one event, ``{"reason": "settled" | "changed" | "timeout" | "error"}``; on ``error`` the sensor
    looks itself and raises what is wrong.
    """

    def __init__(
        self,
        insightly_conn_id: str,
        record_type: str,
        events: list[str],
        settle: float,
        look_at: str,
        until: str,
        open_since: str | None,
        poll_interval: float,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's base class is not typed
        self.insightly_conn_id = insightly_conn_id
        self.record_type = record_type
        self.events = events
        self.settle = settle
        self.look_at = look_at
        self.until = until
        self.open_since = open_since
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and the arguments to build it again."""
        return (
            "airflow_insightly_hooks.triggers.record_change.InsightlyRecordChangeTrigger",
            {
                "insightly_conn_id": self.insightly_conn_id,
                "record_type": self.record_type,
                "events": self.events,
                "settle": self.settle,
                "look_at": self.look_at,
                "until": self.until,
                "open_since": self.open_since,
                "poll_interval": self.poll_interval,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield the one event."""
        until = api_time(self.until)
        await _sleep_until(api_time(self.look_at))
        if self.open_since is None:
            yield TriggerEvent({"reason": "settled"})
            return
        while datetime.now(timezone.utc) < until:
            try:
                if await asyncio.to_thread(self._has_changes, api_time(self.open_since)):
                    yield TriggerEvent({"reason": "changed"})
                    return
            except Exception as error:  # a trigger that raises is built again at once, endlessly
                if not _may_pass(error):
                    self.log.warning("Looking for %s failed: %s", self.record_type, type(error).__name__)
                    yield TriggerEvent({"reason": "error"})
                    return
                self.log.warning("%s; asking again in %g s", error, self.poll_interval)
            await _sleep_until(min(datetime.now(timezone.utc) + timedelta(seconds=self.poll_interval), until))
        yield TriggerEvent({"reason": "timeout"})

    def _has_changes(self, since: datetime) -> bool:
        from airflow_insightly_hooks.hooks.insightly import InsightlyHook

        hook = InsightlyHook(self.insightly_conn_id)
        kind = RECORD_TYPES[self.record_type]
        end = (hook.server_time() - timedelta(seconds=self.settle)).replace(microsecond=0)
        if end <= since:
            return False
        window = ChangeWindow(since, end)
        records = hook.iter_records(self.record_type, updated_after=window.search_from)
        return any(True for _ in changes_in(window, kind, records, check_events(kind, self.events)))


def _may_pass(error: Exception) -> bool:
    from airflow_insightly_hooks.hooks.errors import InsightlyRateLimitError, InsightlyUnreachable

    return isinstance(error, InsightlyUnreachable) or (
        isinstance(error, InsightlyRateLimitError) and not error.day_is_spent
    )


async def _sleep_until(moment: datetime) -> None:
    while (seconds := (moment - datetime.now(timezone.utc)).total_seconds()) > 0:
        await asyncio.sleep(min(seconds, 60))  # by the wall clock: it may be set meanwhile
