"""Waiting for record changes in the triggerer: for a deferred sensor, and for DAGs that changes wake."""

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
"""Of the arguments of a deferred sensor's trigger, which another version of this package may read."""


class InsightlyRecordChangeTrigger(BaseTrigger):
    """Tells a deferred sensor when looking again is worth it; it never carries records.

    While a closed window settles, it waits for the moment and asks Insightly nothing. For an open window
    it asks every ``poll_interval`` whether there is a change yet: one small request, which the sensors that
    wait in one triggerer for records of one type share.

    :param insightly_conn_id: a connection of type ``insightly``.
    :param record_type: a name of Insightly's API.
    :param events: which events count.
    :param settle: seconds that an open window ends before now.
    :param look_at: when to look, ISO 8601.
    :param until: when the sensor's time is up, ISO 8601: it is told then in any case.
    :param open_since: where the open window starts, ISO 8601; ``None`` for a closed one.
    :param poll_interval: seconds between two polls.
    :param version: of these arguments.
    :param unknown: arguments of a version that is not this one.

    It yields one event, ``{"reason": "settled" | "changed" | "timeout" | "error"}``; on ``error`` the sensor
    looks itself and raises what is wrong. Arguments that can't be read, since another version has written
    them, are such an error: the sensor then waits anew.
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
        """Return why the sensor is to look again, once it is."""
        if self.version != VERSION or self.unknown:
            self.log.warning(
                "This sensor was deferred by another version of airflow-insightly-hooks (its trigger's "
                "arguments have version %s, with %s; this one reads %s): it looks again now",
                self.version,
                sorted(self.unknown) or "none unknown",
                VERSION,
            )
            return "error"
        try:
            until, look_at = api_time(self.until, "until"), api_time(self.look_at, "look_at")
            since = api_time(self.open_since, "open_since") if self.open_since is not None else None
            events = check_events(RECORD_TYPES[self.record_type], self.events)
        except Exception as error:
            self.log.warning("Its trigger's arguments can't be read (%s): the sensor looks again now", error)
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
                        # Nothing more is asked: the first of them counts once its second has settled.
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
    """Says, for as long as it is watched, that there are record changes; it never carries records.

    Every ``poll_interval`` Insightly is asked whether anything has changed since the last poll: one small
    request, however many watchers of these records there are in this triggerer (``triggers.watcher``); the
    shortest of their intervals counts. If there is something, and once it has settled, it yields an event
    ``{"since", "until"}``, ISO 8601; and one when it starts. Events are wake-up calls: a DAG reads from its
    own cursor, so that a late, repeated or lost one loses nothing.

    :param record_type: a name of Insightly's API.
    :param insightly_conn_id: a connection of type ``insightly``.
    :param poll_interval: seconds between two polls, and between two events at least; ``None`` for 15, or 900
        with ``push``.
    :param settle: seconds after which changes are taken to be visible; as long as what it wakes waits.
    :param lookback: seconds after which a change is not waited for any more that is visible later than that.
    :param cursor: the name of the cursor of the one DAG that it wakes; ``None`` if several share it.
    :param push: whether Insightly's webhooks tell of changes, so that polls only find what they have missed.
    :param unknown: arguments of another version of this package, until its DAG file has been read again.
    :raises UnknownRecordType: if there is no such record type.
    :raises ValueError: if ``poll_interval`` or ``settle`` is out of bounds.

    A poll that fails is logged, and tried again after longer and longer, up to five minutes; the trigger
    never ends by itself, since Airflow would start it again at once.
    """

    unsaid_since: datetime | None = None
    """From when on it holds changes back."""

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
                # Left out where it is not set, so that these watchers are the same as of earlier versions.
                **({"push": True} if self.push else {}),
                **self.unknown,
            },
        )

    def shared_stream_key(self) -> Hashable:
        """Return what watchers have in common that share a watch: the account, and the record type."""
        return ("insightly", self.insightly_conn_id, self.record_type)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """Return the watch for all of them."""
        from airflow_insightly_hooks.triggers.watcher import Watch

        it = cls(**kwargs)
        return Watch(it.insightly_conn_id, it.record_type, it.poll_interval, it.settle, it.lookback, it.push)

    def filter_shared_stream(self, shared_stream: AsyncIterator[ChangeNotice]) -> AsyncIterator[TriggerEvent]:
        """Yield an event for what the watch has to say, when it has settled and the interval is over."""
        from airflow_insightly_hooks.triggers.wake_up_calls import wake_up_calls

        return wake_up_calls(self, shared_stream)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Do the same with a watch of its own; Airflow's triggerer shares one."""
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
    """Return the asset to schedule a DAG by, so that it runs when records change.

    With ``cursor`` it is this DAG's own: while the DAG has something left to read, because it was paused or
    Airflow has lost an event, it alone is woken again, at each poll. Without, it is the same for all DAGs
    that watch these records in the same way; then what one of them has left wakes all, after longer and
    longer, up to an hour. Either way there is one poll for all. It isn't the asset that keeps cursors:
    Airflow takes the watchers from whichever mention of an asset it sees last.

    With ``push``, Insightly's webhooks wake the DAG: they come to ``POST /insightly/hooks/{connection}``
    (``docs/explanation/detection.md``). Polls are then a safety net, and come every 15 minutes.

    :param record_type: a name of Insightly's API.
    :param insightly_conn_id: a connection of type ``insightly``.
    :param poll_interval: seconds between two polls, one small request each; ``None`` for 15, or 900 with
        ``push``.
    :param settle: seconds; as long as the DAG's sensor waits for a window to settle, or longer.
    :param lookback: seconds; how far back changes are looked for that become visible late, as of the sensor.
    :param cursor: the name of its sensor's cursor, ``{dag_id}/{task_id}`` unless it has another one.
    :param push: whether Insightly's webhooks tell of changes.
    :raises UnknownRecordType: if there is no such record type.
    :raises ValueError: if a number of seconds is out of bounds, or ``cursor`` is no name of a cursor.
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

    That run is where the DAG begins: changes are read from then on. Without it, that would be where its
    watcher starts, which Airflow does when it next reads the DAG's file.

    It is made of ``changes_asset``, which has the same arguments.

    :param record_type: a name of Insightly's API.
    :param cursor: the name of its sensor's cursor, ``{dag_id}/{task_id}`` unless it has another one.
    :param insightly_conn_id: a connection of type ``insightly``.
    :param poll_interval: seconds between two polls, one small request each; ``None`` for 15, or 900 with
        ``push``.
    :param settle: seconds; as long as the DAG's sensor waits for a window to settle, or longer.
    :param lookback: seconds; how far back changes are looked for that become visible late, as of the sensor.
    :param push: whether Insightly's webhooks tell of changes.
    :raises UnknownRecordType: if there is no such record type.
    :raises ValueError: if a number of seconds is out of bounds, or ``cursor`` is no name of a cursor.
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
