"""Many webhooks make few events, and a webhook is only acknowledged if its event is stored."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.detection.changes import ChangeWindow
from airflow_insightly_hooks.incoming import announcer as announcer_module
from airflow_insightly_hooks.incoming import threads as threads_module
from airflow_insightly_hooks.incoming.announcer import MOST_ANNOUNCERS, Announcer, Announcers
from airflow_insightly_hooks.incoming.answers import Refusal
from airflow_insightly_hooks.incoming.threads import Threads
from tests.conftest import Logged

START = datetime(2026, 1, 31, 8, tzinfo=timezone.utc)


def span(second: int) -> ChangeWindow:
    start = START + timedelta(seconds=second)
    return ChangeWindow(start, start + timedelta(seconds=2))


class Store:
    """A store of events. It can fail, be slow, or hang.

    :ivar spans: the spans of the stored events.
    """

    def __init__(self, assets: int = 1) -> None:
        self.assets = assets
        self.spans: list[ChangeWindow] = []
        self.calls = 0
        self.failures = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, span: ChangeWindow) -> int:
        self.calls += 1
        assert self.may_go_on.wait(20)
        if self.failures:
            self.failures -= 1
            raise OSError("contents of a statement")
        self.spans.append(span)
        return self.assets

    def covers(self, wanted: ChangeWindow) -> bool:
        return any(one.start <= wanted.start and wanted.end <= one.end for one in self.spans)


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store()
    yield store
    store.may_go_on.set()


def with_announcer(store: Store, check: Callable[[Announcer], Awaitable[None]], count: int = 4) -> None:
    async def run() -> None:
        await check(Announcer(store, Threads(count)))

    asyncio.run(run())


def test_at_once(store: Store) -> None:
    """Webhooks that come while an event is being stored share the next one, for any times of change."""

    async def check(announcer: Announcer) -> None:
        store.may_go_on.clear()
        tasks = [asyncio.create_task(announcer.announce(span(0)))]
        await asyncio.sleep(0.05)
        tasks += [asyncio.create_task(announcer.announce(span(second))) for second in range(1, 200)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in tasks)
        store.may_go_on.set()
        assert await asyncio.gather(*tasks) == [True] * 200

    with_announcer(store, check)
    assert len(store.spans) == 2
    assert store.spans[1] == ChangeWindow(START, START + timedelta(seconds=201))


def test_meanwhile(store: Store) -> None:
    """An event covers all changes in its span whose webhooks come while it is being stored."""

    async def check(announcer: Announcer) -> None:
        store.may_go_on.clear()
        tasks = [asyncio.create_task(announcer.announce(span(0)))]
        await asyncio.sleep(0.05)
        tasks += [
            asyncio.create_task(announcer.announce(span(n % 2), new_event=n % 3 == 0)) for n in range(50)
        ]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in tasks)
        store.may_go_on.set()
        assert await asyncio.gather(*tasks) == [True] * 51

    with_announcer(store, check)
    assert store.spans == [span(0)]


def test_within_a_second(store: Store) -> None:
    """A change that an event of the last second covers needs no other event. A second later it does."""

    async def check(announcer: Announcer) -> None:
        assert await announcer.announce(span(0))
        assert await announcer.announce(span(0))
        assert await announcer.announce(span(1))  # its first second is in the event's span
        assert len(store.spans) == 1
        assert await announcer.announce(span(2))
        assert store.spans[1:] == [ChangeWindow(START, START + timedelta(seconds=4))]
        assert await announcer.announce(span(0))
        assert len(store.spans) == 2
        await asyncio.sleep(1.05)
        assert await announcer.announce(span(3))
        assert store.spans[2:] == [span(3)]

    with_announcer(store, check)


def test_anew(store: Store) -> None:
    """A webhook that needs a new event gets one. Webhooks that come meanwhile share it."""

    async def check(announcer: Announcer) -> None:
        assert await announcer.announce(span(0))
        assert await announcer.announce(span(0), new_event=True)
        assert len(store.spans) == 2
        store.may_go_on.clear()
        tasks = [asyncio.create_task(announcer.announce(span(0), new_event=True))]
        await asyncio.sleep(0.05)
        tasks += [asyncio.create_task(announcer.announce(span(0), new_event=True)) for _ in range(50)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in tasks)
        store.may_go_on.set()
        assert await asyncio.gather(*tasks) == [True] * 51
        assert len(store.spans) == 3

    with_announcer(store, check)


def test_by_turns(store: Store) -> None:
    """Changes of several seconds by turns make few events, too."""

    async def check(announcer: Announcer) -> None:
        started = time.monotonic()
        for number in range(100):
            assert await announcer.announce(span(number % 5 * 10))
        assert time.monotonic() - started < 1, "else it says nothing"

    with_announcer(store, check)
    assert len(store.spans) == 5


def test_without_a_pause(store: Store) -> None:
    """If webhooks come without a pause, an event covers at most the last 15 minutes."""

    async def check(announcer: Announcer) -> None:
        for minute in range(60):
            assert await announcer.announce(span(minute * 60))
        assert len(store.spans) == 60

    with_announcer(store, check)
    assert store.spans[10].start == START
    assert max(one.end - one.start for one in store.spans) <= timedelta(minutes=15)


def test_no_asset(store: Store) -> None:
    """If no DAG waits, each answer says so. A new DAG counts at once."""

    async def check(announcer: Announcer) -> None:
        store.assets = 0
        assert not await announcer.announce(span(0))
        store.assets = 1
        assert await announcer.announce(span(0))

    with_announcer(store, check)
    assert store.calls == 2


def test_failure(store: Store, logged: Logged) -> None:
    """A failure concerns all webhooks that waited for the event, and no others. The log has its type only."""

    async def check(announcer: Announcer) -> None:
        store.failures = 1
        store.may_go_on.clear()
        first = asyncio.create_task(announcer.announce(span(0)))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(announcer.announce(span(0))) for _ in range(5)]
        await asyncio.sleep(0.05)
        store.may_go_on.set()
        with pytest.raises(Refusal) as refused:
            await first
        assert refused.value.status == 503
        assert await asyncio.gather(*others) == [True] * 5
        store.failures = 1
        with pytest.raises(Refusal):
            await announcer.announce(span(9))
        assert await announcer.announce(span(9))

    with_announcer(store, check)
    assert "An event can't be stored: OSError" in logged.text
    assert "contents" not in logged.text


def test_hanging(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Webhooks wait for a hanging store up to the limit only, and later webhooks are not stopped."""
    monkeypatch.setattr(announcer_module, "TIMEOUT", 0.2)
    monkeypatch.setattr(threads_module, "TIMEOUT", 0.2)

    async def check(announcer: Announcer) -> None:
        store.may_go_on.clear()
        started = time.monotonic()
        ended = await asyncio.gather(*(announcer.announce(span(0)) for _ in range(5)), return_exceptions=True)
        assert [getattr(result, "status", result) for result in ended] == [503] * 5
        assert time.monotonic() - started < 1
        hanging, store.may_go_on = store.may_go_on, threading.Event()
        store.may_go_on.set()
        assert await announcer.announce(span(0)), "in another thread"
        hanging.set()

    with_announcer(store, check)


def test_all_hanging(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of hanging threads is limited, and afterwards everything works again."""
    monkeypatch.setattr(announcer_module, "TIMEOUT", 0.1)
    monkeypatch.setattr(threads_module, "TIMEOUT", 0.1)

    async def check(announcer: Announcer) -> None:
        store.may_go_on.clear()
        for _ in range(5):
            with pytest.raises(Refusal):
                await announcer.announce(span(0))
        assert store.calls == 2
        store.may_go_on.set()
        await asyncio.sleep(0.3)
        assert await announcer.announce(span(50))

    with_announcer(store, check, count=2)


def test_client_that_goes_away(store: Store) -> None:
    """A client that goes away does not affect the others."""

    async def check(announcer: Announcer) -> None:
        store.may_go_on.clear()
        first, second, third = (asyncio.create_task(announcer.announce(span(n))) for n in (0, 5, 5))
        await asyncio.sleep(0.05)
        first.cancel()
        second.cancel()
        await asyncio.sleep(0.05)
        store.may_go_on.set()
        assert await third
        assert first.cancelled()
        assert store.covers(span(5))

    with_announcer(store, check)


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), min_size=1, max_size=40), st.integers(0, 4))
def test_every_answer_is_true(calls: list[tuple[int, bool]], failures: int) -> None:
    """In every order of webhooks, an answer that an event covers a change is true."""
    store = Store()
    store.failures = failures

    async def call(announcer: Announcer, second: int) -> None:
        try:
            assert await announcer.announce(span(second))
        except Refusal:
            return
        first = ChangeWindow(span(second).start, span(second).start + timedelta(seconds=1))
        assert store.covers(first), "the second in which it changed is in no event"

    async def check(announcer: Announcer) -> None:
        tasks = []
        for second, waits in calls:
            tasks.append(asyncio.create_task(call(announcer, second)))
            if waits:
                await tasks[-1]
        await asyncio.gather(*tasks)

    with_announcer(store, check)


def test_many_record_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender may name any number of custom objects. Types without waiting webhooks are forgotten."""
    monkeypatch.setattr(
        announcer_module, "_announce", lambda _conn_id, record_type, _span: record_type == "Kept__c"
    )

    async def check() -> None:
        announcers = Announcers()
        kept = announcers.of("crm", "Kept__c")
        assert await kept.announce(span(0))
        for number in range(MOST_ANNOUNCERS + 5):
            one = announcers.of("crm", f"Object{number}__c")
            if number % 100 == 0:
                assert not await one.announce(span(0))
        assert announcers.of("crm", "Kept__c") is kept
        assert len(announcers._known) < 20

    asyncio.run(check())
