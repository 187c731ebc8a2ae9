"""Wait for record changes in the triggerer: for deferred sensors, and for DAGs that record changes wake."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetOrTimeSchedule, AssetWatcher
from airflow.sdk.definitions.timetables.simple import OnceTimetable
from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from airflow_insightly_hooks.core.bounds import (
    LONGEST_SETTLE,
    POLL_INTERVAL,
    PUSH_POLL_INTERVAL,
    SHORTEST_POLL,
    check_seconds,
)
from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.detection.changes import check_events
from airflow_insightly_hooks.core.detection.cursor_name import check_cursor_name
from airflow_insightly_hooks.core.detection.late_changes import LOOKBACK, check_lookback
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.hooks.assets import changes_asset_name
from airflow_insightly_hooks.triggers.polls import ONE_SECOND, poller, sleep_until

if TYPE_CHECKING:
    from airflow.triggers.shared_stream import SharedStreamProducer

    from airflow_insightly_hooks.triggers.watcher import ChangeNotice

__all__ = [
    "InsightlyRecordChangeEventTrigger",
    "InsightlyRecordChangeTrigger",
    "changes_asset",
    "changes_schedule",
]

VERSION = 1
"""The version of the arguments of a deferred sensor's trigger. Another release may have to read them."""


class InsightlyRecordChangeTrigger(BaseTrigger):
    """Resumes a deferred sensor when it is time to read again. Its event holds no records.

    While a closed window settles, it waits without a request to Insightly. For an open window, it polls every
    ``poll_interval`` whether there is a change. A poll is one small request. Sensors that wait in the same
    triggerer for the same record type share it.

    :param insightly_conn_id: the id of a connection of type ``insightly``.
    :param record_type: a record type's name in Insightly's API.
    :param events: the events that count.
    :param settle: seconds; an open window ends this long before now.
    :param look_at: when to read again, ISO 8601.
    :param until: when the sensor's time limit is reached, ISO 8601. It is resumed then in any case.
    :param open_since: the start of the open window, ISO 8601; ``None`` for a closed window.
    :param poll_interval: seconds between two polls.
    :param version: the version of these arguments.
    :param unknown: arguments of another version.

    It yields one event, ``{"reason": "settled" | "changed" | "timeout" | "error"}``. After ``error``, the
    sensor reads itself and raises the error. If another version has written arguments that can't be read, the
    reason is also ``error``, and the sensor then waits again.
    """

    def __init__(
        self,
        insightly_conn_id: str = "",
        record_type: str = "",
        events: list[str] | None = None,
        settle: float = 5.0,
        look_at: str = "",
        until: str = "",
        open_since: str | None = None,
        poll_interval: float = 60.0,
        version: int = VERSION,
        **unknown: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's base class is not typed
        self.insightly_conn_id = insightly_conn_id
        self.record_type = record_type
        self.events = events or []
        self.settle = settle
        self.look_at = look_at
        self.until = until
        self.open_since = open_since
        self.poll_interval = poll_interval
        self.version = version
        self.unknown = unknown

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
                "version": self.version,
                **self.unknown,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield the one event."""
        yield TriggerEvent({"reason": await self._reason()})

    async def _reason(self) -> str:
        """Wait until the sensor must read again, and return the reason."""
        if self.version != VERSION or self.unknown:
            self.log.warning(
                "Another version of airflow-insightly-hooks has deferred this sensor. The arguments of its "
                "trigger have version %s (this release reads %s), unknown names: %s. It looks again now",
                self.version,
                VERSION,
                ", ".join(sorted(self.unknown)) or "none",
            )
            return "error"
        try:
            until, look_at = api_time(self.until, "until"), api_time(self.look_at, "look_at")
            since = api_time(self.open_since, "open_since") if self.open_since is not None else None
            events = check_events(RECORD_TYPES[self.record_type], self.events)
        except Exception as error:
            self.log.warning("The trigger's arguments can't be read (%s): the sensor looks again now", error)
            return "error"
        await sleep_until(look_at)
        if since is None:
            return "settled"
        polls = poller(self.insightly_conn_id)
        with polls.waiting(self.record_type, since):
            while datetime.now(timezone.utc) < until:
                try:
                    poll = await polls.shared_poll(self.record_type, since, events, self.poll_interval / 2)
                except Exception as error:  # a trigger that raises fails the task, and its retries
                    if not _may_pass(error):
                        self.log.warning("Looking for %s failed: %s", self.record_type, type(error).__name__)
                        return "error"
                    self.log.warning("%s; asking again in %g s", error, self.poll_interval)
                else:
                    if changes := poll.changes(events, since):
                        # No more polls are needed: wait until the first change's second has settled.
                        settled = min(changes) + ONE_SECOND + timedelta(seconds=self.settle)
                        seconds = poll.seconds_until(settled)
                        moment = datetime.now(timezone.utc) + timedelta(seconds=seconds)
                        await sleep_until(min(moment, until))
                        return "changed" if moment <= until else "timeout"
                seconds = polls.spaced(self.poll_interval)
                next_look = datetime.now(timezone.utc) + timedelta(seconds=seconds)
                await sleep_until(min(next_look, until))
        return "timeout"


class InsightlyRecordChangeEventTrigger(BaseEventTrigger):
    """Yields an event whenever records have changed. Its events hold no records.

    Every ``poll_interval`` it polls whether records have changed since the last poll. A poll is one small
    request. All watchers of these records in this triggerer share it; the shortest of
    their intervals counts. When changes have settled, the trigger yields an event ``{"since", "until"}``, ISO
    8601. It also yields one when it starts. Events only wake DAGs. A DAG reads from its own cursor, so it
    misses no change if an event is late, repeated or lost.

    :param record_type: a record type's name in Insightly's API.
    :param insightly_conn_id: the id of a connection of type ``insightly``.
    :param poll_interval: seconds between two polls, and the least seconds between two events; ``None`` for
        15, or 900 with ``push``.
    :param settle: seconds that changes need to become visible. Give the same value as in the DAG that it
        wakes.
    :param lookback: seconds; how far back it looks for changes that become visible late.
    :param cursor: the name of the cursor of the only DAG that it wakes; ``None`` if several DAGs share it.
    :param push: whether Insightly's webhooks announce changes. Then polls only find changes that webhooks
        have missed.
    :param unknown: arguments of another version of this package, until its DAG file is read again.
    :raises UnknownRecordType: if ``record_type`` is not a known record type.
    :raises ValueError: if ``poll_interval`` or ``settle`` is out of bounds.

    A failed poll is logged, and repeated after growing delays of up to five minutes. The trigger never ends
    by itself, because Airflow would start it again at once.
    """

    unreported_since: datetime | None = None
    """The time from which it has changes that it has not reported yet; ``None`` if there are none."""

    def __init__(
        self,
        record_type: str,
        insightly_conn_id: str = "insightly_default",
        poll_interval: float | None = None,
        settle: float = 5.0,
        lookback: float = LOOKBACK,
        cursor: str | None = None,
        push: bool = False,
        **unknown: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's base class is not typed
        if poll_interval is None:
            poll_interval = PUSH_POLL_INTERVAL if push else POLL_INTERVAL
        check_seconds("poll_interval", poll_interval, at_least=SHORTEST_POLL)
        check_seconds("settle", settle, at_most=LONGEST_SETTLE)
        self.record_type = RECORD_TYPES[record_type].name
        self.insightly_conn_id = insightly_conn_id
        self.poll_interval = poll_interval
        self.settle = settle
        self.lookback = lookback
        self.cursor = cursor
        self.push = push
        self.unknown = unknown

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and the arguments to build it again."""
        return (
            "airflow_insightly_hooks.triggers.record_change.InsightlyRecordChangeEventTrigger",
            {
                "record_type": self.record_type,
                "insightly_conn_id": self.insightly_conn_id,
                "poll_interval": self.poll_interval,
                "settle": self.settle,
                "lookback": self.lookback,
                "cursor": self.cursor,
                # Without push it is left out, so that the arguments are the same as in earlier versions.
                **({"push": True} if self.push else {}),
                **self.unknown,
            },
        )

    def shared_stream_key(self) -> Hashable:
        """Return the key of the shared watch: the account and the record type."""
        return ("insightly", self.insightly_conn_id, self.record_type)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """Return the watch for all watchers with the same key."""
        from airflow_insightly_hooks.triggers.watcher import Watch

        it = cls(**kwargs)
        return Watch(it.insightly_conn_id, it.record_type, it.poll_interval, it.settle, it.lookback, it.push)

    def filter_shared_stream(self, shared_stream: AsyncIterator[ChangeNotice]) -> AsyncIterator[TriggerEvent]:
        """Yield an event when changes have settled and the interval is over."""
        from airflow_insightly_hooks.triggers.watcher_events import watcher_events

        return watcher_events(self, shared_stream)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the same events with a watch of its own. Airflow's triggerer uses a shared watch instead."""
        from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome

        watch = self.create_shared_stream_producer(self.serialize()[1])

        async def stream() -> AsyncIterator[ChangeNotice]:
            async for notice, payload in watch.open_stream():
                yield notice
                await watch.advance([AdvanceItem(payload, AdvanceOutcome(acked=1, failed=0))])

        async for event in self.filter_shared_stream(stream()):
            yield event


def changes_asset(
    record_type: str,
    *,
    insightly_conn_id: str = "insightly_default",
    poll_interval: float | None = None,
    settle: float = 5.0,
    lookback: float = LOOKBACK,
    cursor: str | None = None,
    push: bool = False,
) -> Asset:
    """Return an asset to schedule a DAG by, so that it runs when records change.

    With ``cursor``, the asset belongs to one DAG. If this DAG has changes left to read, because it was paused
    or Airflow has lost an event, each poll wakes it again, and no other DAG. Without ``cursor``, all DAGs
    that watch these records with the same settings share the asset. If one of them has changes left to read,
    all of them are woken, after growing delays of up to an hour. In both cases, one poll serves all DAGs.

    This is not the asset that keeps cursors, because Airflow takes the watchers of an asset from the last
    definition of it that it reads.

    With ``push``, Insightly's webhooks wake the DAG. They come to ``POST /insightly/hooks/{connection}``
    (``docs/explanation/incoming.md``). Then polls are only a safety net, every 15 minutes.

    :param record_type: a record type's name in Insightly's API.
    :param insightly_conn_id: the id of a connection of type ``insightly``.
    :param poll_interval: seconds between two polls, one small request each; ``None`` for 15, or 900 with
        ``push``.
    :param settle: seconds that changes need to become visible; the ``settle`` of the DAG's sensor, or longer.
    :param lookback: seconds; how far back to look for changes that become visible late; the ``lookback`` of
        the DAG's sensor.
    :param cursor: the name of the sensor's cursor, ``{dag_id}/{task_id}`` by default; ``None`` if several
        DAGs share the asset.
    :param push: whether Insightly's webhooks announce changes.
    :raises UnknownRecordType: if ``record_type`` is not a known record type.
    :raises ValueError: if a number of seconds is out of bounds, or ``cursor`` is not the name of a cursor.
    """
    if cursor is not None:
        cursor = check_cursor_name(cursor)
    trigger = InsightlyRecordChangeEventTrigger(
        record_type, insightly_conn_id, poll_interval, settle, check_lookback(lookback), cursor, push
    )
    name = changes_asset_name(
        insightly_conn_id,
        record_type,
        poll_interval=trigger.poll_interval,
        settle=settle,
        lookback=lookback if lookback != LOOKBACK else None,
        cursor=cursor,
        push=push,
    )
    return Asset(
        name=name, uri=name.replace("/", "://", 1), watchers=[AssetWatcher(name=name, trigger=trigger)]
    )


def changes_schedule(
    record_type: str,
    cursor: str,
    *,
    insightly_conn_id: str = "insightly_default",
    poll_interval: float | None = None,
    settle: float = 5.0,
    lookback: float = LOOKBACK,
    push: bool = False,
) -> AssetOrTimeSchedule:
    """Return a schedule for one DAG: it runs when records change, and once when it is first unpaused.

    From the time of this first run, the DAG reads changes. Without it, the DAG would read changes from the
    start of its watcher. Airflow starts the watcher when it next reads the DAG's file.

    The schedule uses ``changes_asset``, which has the same arguments.

    :param record_type: a record type's name in Insightly's API.
    :param cursor: the name of the sensor's cursor, ``{dag_id}/{task_id}`` by default.
    :param insightly_conn_id: the id of a connection of type ``insightly``.
    :param poll_interval: seconds between two polls, one small request each; ``None`` for 15, or 900 with
        ``push``.
    :param settle: seconds that changes need to become visible; the ``settle`` of the DAG's sensor, or longer.
    :param lookback: seconds; how far back to look for changes that become visible late; the ``lookback`` of
        the DAG's sensor.
    :param push: whether Insightly's webhooks announce changes.
    :raises UnknownRecordType: if ``record_type`` is not a known record type.
    :raises ValueError: if a number of seconds is out of bounds, or ``cursor`` is not the name of a cursor.
    """
    changes = changes_asset(
        record_type,
        insightly_conn_id=insightly_conn_id,
        poll_interval=poll_interval,
        settle=settle,
        lookback=lookback,
        cursor=cursor,
        push=push,
    )
    return AssetOrTimeSchedule(timetable=OnceTimetable(), assets=[changes])


def _may_pass(error: Exception) -> bool:
    from airflow_insightly_hooks.hooks.api.api_errors import InsightlyRateLimitError, InsightlyUnreachable

    return isinstance(error, InsightlyUnreachable) or (
        isinstance(error, InsightlyRateLimitError) and not error.day_is_spent
    )
