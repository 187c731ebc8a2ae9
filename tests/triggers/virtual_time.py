"""An event loop whose time passes at once, and an Airflow and an Insightly that live in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_insightly_hooks.core.dates import api_time, iso_time
from airflow_insightly_hooks.core.detection.changes import ChangeWindow
from airflow_insightly_hooks.core.incoming.announced import AnnouncedSpans, span_of
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.hooks.assets import ANNOUNCED, cursor_list
from airflow_insightly_hooks.triggers import (
    announcements,
    late_polls,
    own_cursor,
    polls,
    shared_cursors,
    watcher,
    watcher_events,
)
from airflow_insightly_hooks.triggers.own_cursor import Runs
from airflow_insightly_hooks.triggers.polls import Poll
from airflow_insightly_hooks.triggers.record_change import InsightlyRecordChangeEventTrigger
from tests.triggers.conftest import AssetState

SETTLE = timedelta(seconds=5)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that doesn't wait: if all tasks wait, its time jumps to the first one's end."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.now = max(self.now, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class World:
    """Insightly, the endpoint for its webhooks, and Airflow with one DAG that record changes wake.

    :ivar changes: when each change was.
    :ivar polls: when Insightly was asked.
    :ivar runs: when a run was made, and why.
    :ivar is_losing_events: an event makes no run until the next one comes.
    :ivar is_failing: runs end without having read anything.
    :ivar is_down: Insightly doesn't answer.
    :ivar has_no_state: the state store doesn't answer the watch.
    """

    def __init__(self, loop: VirtualLoop, cursor: str | None) -> None:
        self._loop = loop
        self._start = datetime.now(timezone.utc).replace(microsecond=0)
        self.state = AssetState(watched=iso_time(self._start))
        self._key = "cursor/woken/detect"
        self.state.values[self._key] = iso_time(self._start)
        entry = {"dag": "woken", "task": "detect", "woken": cursor is None}
        self.state.values[cursor_list(self._key)] = {self._key: entry}
        self._trigger = {"cursor": cursor}
        self.changes: list[datetime] = []
        self.polls: list[float] = []
        self.runs: list[tuple[float, str]] = []
        self._reading = 0
        self._queued: list[dict[str, str]] = []
        self._makes_run: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._watch: asyncio.Task[None] | None = None
        self.is_losing_events = self.is_failing = self.is_down = self.has_no_state = False

    # --- the clock, and the state store ---------------------------------------------------------------------

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._loop.now)

    def cursor(self) -> datetime:
        return api_time(self.state.values[self._key], "cursor")

    async def aget(self, key: str) -> Any:
        if self.has_no_state:
            raise RuntimeError("no answer")
        return await self.state.aget(key)

    async def aset(self, key: str, value: Any) -> None:
        if self.has_no_state:
            raise RuntimeError("no answer")
        await self.state.aset(key, value)

    # --- Insightly, and its webhooks ------------------------------------------------------------------------

    def change(self, webhook_after: float | None = 0.5) -> None:
        """Change a record. Its webhook comes so many seconds later, or never."""
        at = self.now()
        self.changes.append(at)
        if webhook_after is not None:
            self._loop.call_later(webhook_after, self._announce, at)

    def _announce(self, at: datetime) -> None:
        """Do what the endpoint does."""
        span = span_of(at, self.now())
        known = AnnouncedSpans.of(self.state.values.get(ANNOUNCED)) or AnnouncedSpans.from_now_on(span)
        known.add(span)
        self.state.values[ANNOUNCED] = known.as_value()
        self._store_event({"since": iso_time(span.start), "until": iso_time(span.end)}, "webhook")

    async def server_time(self) -> datetime:
        self._ask()
        return self.now()

    async def poll(self, record_type: str, _since: datetime, first: datetime) -> Poll:
        self._ask()
        window = ChangeWindow(first, max(first, self.now() + timedelta(seconds=60)))
        found = tuple(
            {"CONTACT_ID": number, "DATE_CREATED_UTC": f"{at:%Y-%m-%d %H:%M:%S}"}
            for number, at in enumerate(self.changes, 1)
            if at.replace(microsecond=0) in window
        )
        return Poll(RECORD_TYPES[record_type], first, self.now(), self._loop.now, found, True, 1)

    def _ask(self) -> None:
        self.polls.append(self._loop.now)
        if self.is_down:
            raise ConnectionError("down")

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    def spaced(self, interval: float, _requests: int = 0) -> float:
        return interval

    # --- Airflow --------------------------------------------------------------------------------------------

    def _store_event(self, payload: dict[str, str], why: str) -> None:
        """Queue an event. All queued events make one run, which takes a second."""
        self._queued.append(payload)
        if self.is_losing_events:
            return
        if self._makes_run is None or self._makes_run.done():
            self._makes_run = self._begin(self._make_run(why))

    async def _make_run(self, why: str) -> None:
        await asyncio.sleep(1)
        events, self._queued = self._queued, []
        self.runs.append((self._loop.now, why))
        self._begin(self._run(max(api_time(event["until"], "until") for event in events)))

    async def _run(self, until: datetime) -> None:
        """Read up to the watermark, or up to the settled changes."""
        await asyncio.sleep(1)
        self._reading += 1
        try:
            await asyncio.sleep(max((until + SETTLE - self.now()).total_seconds(), 1))
            end = (self.now() - SETTLE).replace(microsecond=0)
            await asyncio.sleep(2)
            if not self.is_failing and not self.is_down and end > self.cursor():
                self.state.values[self._key] = iso_time(end)
        finally:
            self._reading -= 1

    async def count_runs(self, *_of: str) -> Runs:
        if self.has_no_state:
            raise RuntimeError("no answer")
        return Runs(len(self.runs), self._reading)

    def _begin(self, what: Any) -> asyncio.Task[Any]:
        task = self._loop.create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- the triggerer --------------------------------------------------------------------------------------

    def start(self, **arguments: Any) -> None:
        """Start the watcher."""
        self._trigger |= arguments
        self._watch = self._begin(self._run_watcher())

    async def _run_watcher(self) -> None:
        trigger = InsightlyRecordChangeEventTrigger("Contacts", push=True, **self._trigger)
        async for event in trigger.run():
            self._store_event(event.payload, "watcher")
        raise AssertionError("the watcher has ended")

    async def stop(self) -> None:
        """Stop the watcher, as the triggerer does when it ends."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            assert self._watch.cancelled(), "the watcher has ended by itself"

    async def end(self) -> None:
        await self.stop()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def live(scene: Callable[[World], Any], *, cursor: str | None = "woken/detect") -> World:
    """Play a scene in a new world, and return the world."""
    loop = VirtualLoop()
    world = World(loop, cursor)
    clock = SimpleNamespace(monotonic=loop.time)

    async def play() -> None:
        try:
            await scene(world)
        finally:
            await world.end()

    with pytest.MonkeyPatch.context() as patch:
        for module in (announcements, late_polls, own_cursor, polls, shared_cursors, watcher_events, watcher):
            patch.setattr(module, "time", clock)
        for module in (own_cursor, shared_cursors):
            patch.setattr(module, "count_runs", world.count_runs)
        patch.setattr(watcher, "random", SimpleNamespace(uniform=lambda least, most: (least + most) / 2))
        patch.setattr(watcher, "state_of", lambda *_of: world)
        patch.setattr(watcher, "poller", lambda _conn_id: world)
        try:
            loop.run_until_complete(play())
        finally:
            loop.close()
    return world
