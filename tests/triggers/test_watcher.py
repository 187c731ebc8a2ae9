"""Several watchers of the same records, in Airflow's own shared streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.triggers.shared_stream import SharedStreamManager

from airflow_insightly_hooks.core.incoming.announced import AnnouncedSpans, span_of
from airflow_insightly_hooks.hooks.assets import ANNOUNCED
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from airflow_insightly_hooks.triggers import watcher as module
from airflow_insightly_hooks.triggers.record_change import InsightlyRecordChangeEventTrigger
from tests.triggers.conftest import AssetState

SEARCH = "GET /v3.1/Contacts/Search"


class Triggerer:
    """Runs watchers' triggers as Airflow's ``TriggerRunner`` does."""

    def __init__(self, confirms: bool = True) -> None:
        self.confirms = confirms
        self.manager = SharedStreamManager()
        self.events: dict[int, list[dict[str, str]]] = {}
        self.failures: dict[int, Exception] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def start(self, trigger_id: int, trigger: InsightlyRecordChangeEventTrigger) -> None:
        self._tasks[trigger_id] = asyncio.create_task(self._run(trigger_id, trigger))

    async def _run(self, trigger_id: int, trigger: InsightlyRecordChangeEventTrigger) -> None:
        key = trigger.shared_stream_key()
        events = self.events.setdefault(trigger_id, [])
        stream = self.manager.subscribe(trigger_id=trigger_id, trigger=trigger, key=key)
        try:
            async for event in trigger.filter_shared_stream(stream):
                events.append(event.payload)
                seq = self.manager.bind_pending_event(trigger_id=trigger_id, key=key)
                if self.confirms and seq is not None:
                    asyncio.get_running_loop().call_later(0.02, self.manager.confirm_persisted, [seq])
        except Exception as error:
            self.failures[trigger_id] = error
        finally:
            await self.manager.unsubscribe(trigger_id, key)

    async def stop(self, *trigger_ids: int) -> None:
        for trigger_id in trigger_ids or tuple(self._tasks):
            task = self._tasks.pop(trigger_id)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def watcher(**arguments: Any) -> InsightlyRecordChangeEventTrigger:
    return InsightlyRecordChangeEventTrigger(
        **{"record_type": "Contacts", "poll_interval": 0.2, "settle": 0, **arguments}
    )


async def until(condition: Callable[[], Any], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not within the time"
        await asyncio.sleep(0.02)


@pytest.fixture
def crm(insightly: RunningSandbox, state: AssetState, monkeypatch: pytest.MonkeyPatch) -> RunningSandbox:
    monkeypatch.setattr(module, "FIRST_REPEAT", 60.0)
    state.values["watched"] = (datetime.now(timezone.utc) - timedelta(seconds=2)).isoformat()
    return insightly


def requests(sandbox: RunningSandbox) -> int:
    counts: dict[str, int] = sandbox.configure()["requests"]
    return sum(count for path, count in counts.items() if path.startswith("GET /v3.1"))


def test_many_watchers_are_one_poll(crm: RunningSandbox, state: AssetState) -> None:
    """However many watch a record type of an account, there is one request an interval. All get the event."""

    async def play() -> Triggerer:
        triggerer = Triggerer()
        for i in range(20):
            triggerer.start(i, watcher(settle=i / 1000))
        await until(lambda: len(triggerer.events) == 20 and all(triggerer.events.values()))
        before = await asyncio.to_thread(requests, crm)
        await asyncio.sleep(2)
        assert await asyncio.to_thread(requests, crm) - before <= 12
        await asyncio.to_thread(crm.create, "Contacts", FIRST_NAME="A")
        await until(lambda: all(len(events) == 2 for events in triggerer.events.values()))
        await asyncio.sleep(0.5)
        await triggerer.stop()
        return triggerer

    triggerer = asyncio.run(play())
    assert triggerer.failures == {}
    assert all(len(events) == 2 for events in triggerer.events.values())


def test_the_place_moves_when_all_was_persisted(crm: RunningSandbox, state: AssetState) -> None:
    """If a triggerer is killed between an event and storing its place, the event is repeated."""
    before = state.values["watched"]

    async def play(confirms: bool) -> Triggerer:
        triggerer = Triggerer(confirms)
        triggerer.start(1, watcher())
        await until(lambda: len(triggerer.events.get(1, ())) >= 1)
        await asyncio.sleep(1)
        await triggerer.stop()
        return triggerer

    lost = asyncio.run(play(confirms=False))
    assert state.values["watched"] == before
    again = asyncio.run(play(confirms=True))
    assert again.events[1][0]["since"] == lost.events[1][0]["since"]
    assert state.values["watched"] > before


def test_a_time_of_a_newer_release(
    crm: RunningSandbox, state: AssetState, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not overwritten; the log says what to do, and once it can be read, changes are reported."""
    kept, state.values["watched"] = state.values["watched"], {"version": 2, "until": "2031"}

    async def play() -> Triggerer:
        triggerer = Triggerer()
        triggerer.start(1, watcher())
        await until(lambda: "state 'watched': a newer release" in caplog.text)
        assert "Looking for Contacts failed" in caplog.text
        assert triggerer.events[1] == []
        assert state.values["watched"] == {"version": 2, "until": "2031"}
        state.values["watched"] = kept
        await until(lambda: triggerer.events[1])
        await triggerer.stop()
        return triggerer

    assert asyncio.run(play()).failures == {}


def test_one_that_comes_late_is_told_where_it_begins(crm: RunningSandbox) -> None:
    """A watcher that joins a running watch misses no change: each gets its first event."""

    async def play() -> Triggerer:
        triggerer = Triggerer()
        triggerer.start(1, watcher())
        await until(lambda: triggerer.events.get(1))
        await asyncio.sleep(0.5)
        triggerer.start(2, watcher())
        await until(lambda: triggerer.events.get(2))
        await triggerer.stop()
        return triggerer

    events = asyncio.run(play()).events
    assert [len(events[i]) for i in (1, 2)] == [1, 1]
    assert events[2][0]["since"] >= events[1][0]["since"]


def test_the_shortest_interval_counts_and_none_is_told_more_often_than_it_asked(
    crm: RunningSandbox, state: AssetState
) -> None:
    """Two intervals share one poll. Events for the longer interval are held back, and so is the place."""

    async def play() -> Triggerer:
        triggerer = Triggerer()
        triggerer.start(1, watcher(poll_interval=30))
        triggerer.start(2, watcher(poll_interval=0.2))
        await until(lambda: triggerer.events.get(1) and triggerer.events.get(2))
        begun = state.values["watched"]
        await asyncio.sleep(1.1)
        await asyncio.to_thread(crm.create, "Contacts", FIRST_NAME="A")
        await until(lambda: len(triggerer.events[2]) == 2)
        await asyncio.sleep(0.5)
        assert len(triggerer.events[1]) == 1
        assert state.values["watched"] < triggerer.events[2][1]["until"]
        assert state.values["watched"] >= begun
        await triggerer.stop()
        return triggerer

    asyncio.run(play())


def test_the_shorter_interval_counts_from_when_it_comes_to_when_it_goes(
    crm: RunningSandbox, state: AssetState
) -> None:
    """The watch polls as often as its present watchers want."""

    async def play() -> None:
        triggerer = Triggerer()
        triggerer.start(1, watcher(poll_interval=0.6))
        await until(lambda: triggerer.events.get(1))
        triggerer.start(2, watcher(poll_interval=0.1))
        await until(lambda: triggerer.events.get(2))
        before = await asyncio.to_thread(requests, crm)
        await asyncio.sleep(1)
        assert await asyncio.to_thread(requests, crm) - before >= 5
        await triggerer.stop(2)
        await asyncio.sleep(0.2)
        before = await asyncio.to_thread(requests, crm)
        await asyncio.sleep(1.2)
        assert await asyncio.to_thread(requests, crm) - before <= 3
        await triggerer.stop()

    asyncio.run(play())


def test_what_one_could_not_say_is_found_again(
    crm: RunningSandbox, state: AssetState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watcher that failed has reported nothing.

    The place stays, and the next poll finds the changes again.
    """

    async def play() -> None:
        triggerer = Triggerer()
        triggerer.manager._ack_timeout = 0.3
        triggerer.confirms = False
        triggerer.start(1, watcher())
        await until(lambda: 1 in triggerer.failures)
        assert type(triggerer.failures[1]).__name__ == "AckTimeout"
        stored = [key for key, _ in state.writes]
        assert stored == []
        triggerer.confirms = True
        triggerer.start(2, watcher())
        await until(lambda: state.writes)
        assert triggerer.events[2][0]["since"] == triggerer.events[1][0]["since"]
        await triggerer.stop()

    asyncio.run(play())


def test_what_those_who_share_a_watcher_have_left_wakes_no_other(
    crm: RunningSandbox, state: AssetState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A DAG has its own watcher, beside a shared one that repeats an event."""
    monkeypatch.setattr(module, "FIRST_REPEAT", 0.1)
    state.values |= {
        "cursors": {"cursor/shared/detect": {"dag": "shared", "task": "detect", "woken": True}},
        "cursor/shared/detect": (datetime.now(timezone.utc) - timedelta(hours=1)).isoformat(),
        "cursor/own/detect": (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat(),
    }

    async def play() -> Triggerer:
        triggerer = Triggerer()
        triggerer.start(1, watcher(poll_interval=0.1))
        triggerer.start(2, watcher(poll_interval=0.1, cursor="own/detect"))
        await until(lambda: triggerer.events.get(1) and triggerer.events.get(2))
        await asyncio.to_thread(crm.create, "Contacts", FIRST_NAME="A")
        await until(lambda: len(triggerer.events[1]) >= 5)
        await triggerer.stop()
        return triggerer

    assert len(asyncio.run(play()).events[2]) == 2


def test_other_accounts_and_types_have_watches_of_their_own() -> None:
    """Only watchers of the same account and record type share a watch."""
    keys = {
        watcher(**arguments).shared_stream_key()
        for arguments in ({}, {"poll_interval": 60}, {"settle": 60}, {"record_type": "Tasks"})
    }
    assert len(keys) == 2
    assert watcher(insightly_conn_id="other").shared_stream_key() not in keys


# --- webhooks wake some of them --------------------------------------------------------------------------


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let watches look at announcements ten times a second."""
    monkeypatch.setattr(module, "LOOK_INTERVAL", 0.1)


def announce(state: AssetState, at: datetime) -> None:
    """Write into the state what the endpoint would write."""
    span = span_of(at, at)
    known = AnnouncedSpans.of(state.values.get(ANNOUNCED)) or AnnouncedSpans.from_now_on(span)
    known.add(span)
    state.values[ANNOUNCED] = known.as_value()


@pytest.mark.usefixtures("quick_looks")
def test_one_that_joins_a_watch_between_two_polls_begins_at_once(
    crm: RunningSandbox, state: AssetState
) -> None:
    """Its DAG may just have been unpaused. It costs no request."""

    async def play() -> None:
        triggerer = Triggerer()
        triggerer.start(1, watcher(push=True, poll_interval=60))
        await until(lambda: triggerer.events.get(1))
        before = await asyncio.to_thread(requests, crm)
        triggerer.start(2, watcher(push=True, poll_interval=60, cursor="own/detect"))
        await until(lambda: triggerer.events.get(2))
        await asyncio.sleep(0.5)
        assert await asyncio.to_thread(requests, crm) == before
        assert [len(triggerer.events[i]) for i in (1, 2)] == [1, 1]
        triggerer.start(3, watcher(poll_interval=0.2))
        await until(lambda: triggerer.events.get(3))
        await asyncio.sleep(1)
        assert await asyncio.to_thread(requests, crm) >= before + 3
        await triggerer.stop()
        assert triggerer.failures == {}

    asyncio.run(play())


@pytest.mark.usefixtures("quick_looks")
def test_what_webhooks_have_told_of_is_news_to_those_alone_that_only_poll(
    crm: RunningSandbox, state: AssetState
) -> None:
    """They share a watch, and its place moves on. Changes that no webhook has announced are new to all."""

    async def play() -> None:
        triggerer = Triggerer()
        for number, arguments in enumerate(({}, {"push": True}, {"push": True, "cursor": "own/detect"})):
            triggerer.start(number, watcher(**arguments))
        await until(lambda: len(triggerer.events) == 3 and all(triggerer.events.values()))
        before = state.values["watched"]
        now = datetime.now(timezone.utc)
        for seconds in range(-2, 6):
            announce(state, now + timedelta(seconds=seconds))
        state.values["cursor/own/detect"] = (now + timedelta(hours=1)).isoformat()
        await asyncio.to_thread(crm.create, "Contacts", FIRST_NAME="A")
        await until(lambda: len(triggerer.events[0]) == 2)
        await until(lambda: state.values["watched"] > before)
        await asyncio.sleep(0.5)
        assert [len(triggerer.events[i]) for i in range(3)] == [2, 1, 1]
        del state.values[ANNOUNCED]
        await asyncio.to_thread(crm.create, "Contacts", FIRST_NAME="B")
        await until(lambda: [len(triggerer.events[i]) for i in range(3)] == [3, 2, 2])
        await triggerer.stop()
        assert triggerer.failures == {}

    asyncio.run(play())
