"""Waiting for record changes in the triggerer: for a deferred sensor, and for DAGs that changes wake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetWatcher
from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from airflow_insightly_hooks.core.changes import EVENTS, ChangeWindow, changes_in, check_events
from airflow_insightly_hooks.core.dates import api_time, iso_time
from airflow_insightly_hooks.core.errors import InsightlyHooksError
from airflow_insightly_hooks.core.records import RECORD_TYPES

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.insightly import InsightlyHook

__all__ = ["InsightlyRecordChangeEventTrigger", "InsightlyRecordChangeTrigger", "changes_asset"]

WATCHED = "watched"
"""The key of the asset's state that keeps up to when the watcher has looked."""
LONGEST_BACKOFF = 300.0


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
        return _has_changes(hook, self.record_type, self.events, since, _settled(hook, self.settle))


class InsightlyRecordChangeEventTrigger(BaseEventTrigger):
    """Says, for as long as it is watched, that there are record changes; it never carries records.

    Every ``poll_interval`` it asks Insightly whether anything has changed since it looked last, and if so
    yields an event ``{"since", "until"}``, ISO 8601. Events are wake-up calls: a DAG reads from its own
    cursor, so that a late, repeated or lost one loses nothing. As Airflow can hold an event back until the
    next one comes, each is said once more at the next look; and one is said when the watcher starts.

    :param record_type: a name of Insightly's API.
    :param insightly_conn_id: a connection of type ``insightly``.
    :param poll_interval: seconds between two looks.
    :param settle: seconds before now up to which it looks; what it wakes must settle no longer.
    :raises UnknownRecordType: if there is no such record type.

    A look that fails is logged, and tried again after longer and longer, up to five minutes; the trigger
    never ends by itself, since Airflow would start it again at once.
    """

    def __init__(
        self,
        record_type: str,
        insightly_conn_id: str = "insightly_default",
        poll_interval: float = 15.0,
        settle: float = 5.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's base class is not typed
        self.record_type = RECORD_TYPES[record_type].name
        self.insightly_conn_id = insightly_conn_id
        self.poll_interval = poll_interval
        self.settle = settle

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and the arguments to build it again."""
        return (
            "airflow_insightly_hooks.triggers.record_change.InsightlyRecordChangeEventTrigger",
            {
                "record_type": self.record_type,
                "insightly_conn_id": self.insightly_conn_id,
                "poll_interval": self.poll_interval,
                "settle": self.settle,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look, again and again, and yield an event where there is something to read."""
        say_again = True
        said: datetime | None = None
        failures = 0
        while True:
            try:
                # Noted when the event has long been handed over: a triggerer that is stopped before says it
                # again, and on SQLite the two don't wait for one another.
                since = await self._watched(said)
                until, changed = await asyncio.to_thread(self._look, since)
                failures = 0
            except Exception as error:  # a trigger that raises is built again at once, endlessly
                failures += 1
                delay = min(self.poll_interval * 2 ** min(failures, 10), LONGEST_BACKOFF)
                self.log.warning(
                    "Looking for %s failed (%s); looking again in %g s", self.record_type, _told(error), delay
                )
                await asyncio.sleep(delay)
                continue
            said = until if changed or since is None else None
            if changed or say_again:
                yield TriggerEvent({"since": iso_time(since or until), "until": iso_time(until)})
            say_again = changed
            await asyncio.sleep(self.poll_interval)

    async def _watched(self, until: datetime | None = None) -> datetime | None:
        """Return up to when it has looked, after setting that to ``until``, if given."""
        store = self.asset_state_store
        if store is None:
            raise RuntimeError(
                "the trigger belongs into an AssetWatcher: there is no asset to keep its state"
            )
        if until is not None:
            await store.aset(WATCHED, iso_time(until))
            return until
        text = await store.aget(WATCHED)
        return api_time(text, WATCHED) if text is not None else None

    def _look(self, since: datetime | None) -> tuple[datetime, bool]:
        from airflow_insightly_hooks.hooks.insightly import InsightlyHook

        hook = InsightlyHook(self.insightly_conn_id)
        end = _settled(hook, self.settle)
        changed = since is not None and _has_changes(hook, self.record_type, EVENTS, since, end)
        return end, changed


def changes_asset(
    record_type: str,
    *,
    insightly_conn_id: str = "insightly_default",
    poll_interval: float = 15.0,
    settle: float = 5.0,
) -> Asset:
    """Return the asset to schedule a DAG by, so that it runs when records change.

    It is the same for all DAGs that watch these records in the same way, so that there is one watcher. It
    isn't the one that keeps cursors: Airflow takes the watchers from whichever mention of an asset it sees
    last.

    :param record_type: a name of Insightly's API.
    :param insightly_conn_id: a connection of type ``insightly``.
    :param poll_interval: seconds between two looks, two requests each.
    :param settle: seconds; as long as the DAG's sensor waits for a window to settle, or longer.
    :raises UnknownRecordType: if there is no such record type.
    """
    name = f"insightly/{insightly_conn_id}/{record_type}/changes/{poll_interval:g}s/{settle:g}s"
    trigger = InsightlyRecordChangeEventTrigger(record_type, insightly_conn_id, poll_interval, settle)
    return Asset(
        name=name, uri=name.replace("/", "://", 1), watchers=[AssetWatcher(name=name, trigger=trigger)]
    )


def _settled(hook: InsightlyHook, settle: float) -> datetime:
    """Return up to when changes are visible, by the server's clock: the end of an open window."""
    return (hook.server_time() - timedelta(seconds=settle)).replace(microsecond=0)


def _has_changes(
    hook: InsightlyHook, record_type: str, events: Sequence[str], since: datetime, end: datetime
) -> bool:
    if end <= since:
        return False
    kind = RECORD_TYPES[record_type]
    window = ChangeWindow(since, end)
    records = hook.iter_records(record_type, updated_after=window.search_from)
    return any(True for _ in changes_in(window, kind, records, check_events(kind, events)))


def _told(error: Exception) -> str:
    """Return what can be said of an error: our own say it themselves, others might hold secrets."""
    return str(error) if isinstance(error, InsightlyHooksError) else type(error).__name__


def _may_pass(error: Exception) -> bool:
    from airflow_insightly_hooks.hooks.errors import InsightlyRateLimitError, InsightlyUnreachable

    return isinstance(error, InsightlyUnreachable) or (
        isinstance(error, InsightlyRateLimitError) and not error.day_is_spent
    )


async def _sleep_until(moment: datetime) -> None:
    while (seconds := (moment - datetime.now(timezone.utc)).total_seconds()) > 0:
        await asyncio.sleep(min(seconds, 60))  # by the wall clock: it may be set meanwhile
