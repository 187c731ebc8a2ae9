"""DAGs that Insightly's webhooks wake: which requests and runs there are, and that no change is missed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import Logged
from tests.triggers.virtual_time import World, live

HOUR = 3600.0
HISTORIES = 25
CURSORS = pytest.mark.parametrize("cursor", ["woken/detect", None], ids=["own", "shared"])


async def settled(world: World, seconds: float = 120) -> None:
    await asyncio.sleep(seconds)


def whys(world: World) -> list[str]:
    return [why for _, why in world.runs]


@CURSORS
def test_nothing_is_asked_between_polls(cursor: str | None) -> None:
    """There is a poll at the start and every 15 minutes, whatever webhooks come."""

    async def scene(world: World) -> None:
        world.start()
        for _ in range(60):
            await asyncio.sleep(30)
            world.change()
        await asyncio.sleep(1)
        assert world.polls == [0, 900, 1800]

    live(scene, cursor=cursor)


@CURSORS
def test_a_webhook_makes_one_run(cursor: str | None, logged: Logged) -> None:
    """No event is repeated, and polls find nothing new."""

    async def scene(world: World) -> None:
        world.start()
        await settled(world)
        for _ in range(20):
            world.change()
            await asyncio.sleep(200)
        assert world.cursor() > world.changes[-1]
        assert whys(world) == ["watcher", *["webhook"] * 20]
        assert len(world.polls) == 5

    live(scene, cursor=cursor)
    assert "polling only" not in logged.text


@CURSORS
def test_an_event_that_airflow_has_lost_is_said_again(cursor: str | None) -> None:
    """It is repeated within half a minute, not only at the next poll."""

    async def scene(world: World) -> None:
        world.start()
        await settled(world)
        world.is_losing_events = True
        world.change()
        await asyncio.sleep(2)
        world.is_losing_events = False
        await asyncio.sleep(30)
        assert world.cursor() > world.changes[-1]
        assert whys(world) == ["watcher", "watcher"]
        await asyncio.sleep(HOUR)
        assert whys(world) == ["watcher", "watcher"]

    live(scene, cursor=cursor)


@CURSORS
def test_a_run_that_fails_is_followed_by_another_one(cursor: str | None) -> None:
    """The intervals get longer and longer, as without webhooks."""

    async def scene(world: World) -> None:
        world.start()
        await settled(world)
        world.is_failing = True
        world.change()
        await asyncio.sleep(HOUR)
        failed = len(world.runs)
        assert 7 <= failed <= 12
        world.is_failing = False
        await asyncio.sleep(HOUR + 60)
        assert len(world.runs) == failed + 1
        assert world.cursor() > world.changes[-1]

    live(scene, cursor=cursor)


@CURSORS
def test_a_run_that_the_first_event_of_a_watch_has_made_may_fail(cursor: str | None) -> None:
    """It is followed by another run, though no webhook has announced a change, and no poll finds it again."""

    async def scene(world: World) -> None:
        world.is_failing = True
        world.change(webhook_after=None)
        for _ in range(2):
            await asyncio.sleep(10)
            world.start()
            await asyncio.sleep(10)
            await world.stop()
        world.start()
        await asyncio.sleep(10)
        world.is_failing = False
        await asyncio.sleep(60)
        assert world.cursor() > world.changes[-1]

    live(scene, cursor=cursor)


@CURSORS
def test_what_no_webhook_has_told_of_is_found_by_a_poll(cursor: str | None, logged: Logged) -> None:
    """The poll wakes the DAG, and a warning says how many changes were missed."""

    async def scene(world: World) -> None:
        world.start()
        await settled(world)
        world.change()
        await asyncio.sleep(60)
        for _ in range(3):
            world.change(webhook_after=None)
            await asyncio.sleep(10)
        await asyncio.sleep(15 * 60)
        assert world.cursor() > world.changes[-1]
        assert whys(world) == ["watcher", "webhook", "watcher"]

    live(scene, cursor=cursor)
    assert logged.text.count("polling only") == 1
    assert "3 changes of Contacts (connection 'insightly_default') between" in logged.text
    assert "Insightly's webhooks should have announced them" in logged.text


def test_a_webhook_that_was_never_set_up(logged: Logged) -> None:
    """The DAG still runs, but rarely. Each poll that finds changes says what is missing."""

    async def scene(world: World) -> None:
        world.start()
        for _ in range(3):
            await asyncio.sleep(16 * 60)
            world.change(webhook_after=None)
        await asyncio.sleep(16 * 60)
        assert whys(world) == ["watcher"] * 4

    live(scene)
    assert logged.text.count("No webhook has announced a change yet") == 3


def test_a_webhook_that_comes_within_a_minute_is_no_missed_one(logged: Logged) -> None:
    """A poll may be faster than the webhook."""

    async def scene(world: World) -> None:
        world.start()
        await asyncio.sleep(890)
        world.change(webhook_after=50)
        await asyncio.sleep(HOUR)

    live(scene)
    assert "polling only" not in logged.text


def test_a_webhook_that_comes_late_and_whose_event_is_lost() -> None:
    """The run of a later change has skipped its change."""

    async def scene(world: World) -> None:
        world.start()
        await settled(world)
        world.change(webhook_after=40)
        await asyncio.sleep(10)
        world.change()
        await asyncio.sleep(29)
        runs = len(world.runs)
        world.is_losing_events = True
        await asyncio.sleep(3)
        world.is_losing_events = False
        await asyncio.sleep(40)
        assert len(world.runs) == runs + 1
        await asyncio.sleep(HOUR)
        assert len(world.runs) == runs + 1

    live(scene)


@CURSORS
def test_insightly_is_down(cursor: str | None) -> None:
    """Polls are repeated within minutes. Announced changes are still reported meanwhile."""

    async def scene(world: World) -> None:
        world.start()
        await asyncio.sleep(890)
        world.is_down = True
        world.change()
        await asyncio.sleep(200)
        assert len(world.polls) in range(4, 7)
        assert len(world.runs) > 3
        world.is_down = False
        await asyncio.sleep(HOUR)
        assert world.cursor() > world.changes[-1]

    live(scene, cursor=cursor)


def test_a_state_that_fails_ends_nothing(logged: Logged) -> None:
    """The watch continues, and reports the failure once."""

    async def scene(world: World) -> None:
        world.start()
        await settled(world)
        world.has_no_state = True
        world.change()
        await asyncio.sleep(HOUR)
        world.has_no_state = False
        await asyncio.sleep(HOUR)
        assert world.cursor() > world.changes[-1]

    live(scene)
    assert logged.text.count("The changes of Contacts that webhooks have announced") == 1


def test_the_state_is_read_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is read from Airflow, as long as the DAG has read everything."""
    read: list[str] = []

    async def scene(world: World) -> None:
        world.start()
        await settled(world)
        world.change()
        await settled(world)
        real = world.aget
        monkeypatch.setattr(world, "aget", lambda key: (read.append(key), real(key))[1])
        await asyncio.sleep(600)

    live(scene)
    assert read == ["announced"] * 120


# --- whatever happens ------------------------------------------------------------------------------------


ACTIONS = st.one_of(
    st.tuples(st.just("change"), st.sampled_from([0.2, 1.0, 3.0, 30.0, 200.0, None])),
    st.tuples(st.sampled_from(["is_losing_events", "is_failing", "is_down", "has_no_state"]), st.booleans()),
    st.tuples(st.just("restart"), st.none()),
)
STEPS = st.lists(st.tuples(st.sampled_from([0.3, 2.0, 7.0, 40.0, 700.0]), ACTIONS), max_size=25)


@CURSORS
@given(history=STEPS)
@settings(max_examples=HISTORIES, deadline=None)
def test_each_change_wakes_the_dag_until_its_cursor_has_passed_it(
    cursor: str | None, history: list[tuple[float, tuple[str, Any]]]
) -> None:
    """Whatever webhooks, events, runs, polls and the state do, and whenever the triggerer is restarted."""

    async def scene(world: World) -> None:
        world.start()
        for seconds, (what, how) in history:
            if what == "change":
                world.change(how)
            elif what == "restart":
                await world.stop()
                world.start()
            else:
                setattr(world, what, how)
            await asyncio.sleep(seconds)
        world.is_losing_events = world.is_failing = world.is_down = world.has_no_state = False
        await asyncio.sleep(2 * HOUR)
        assert all(world.cursor() > change for change in world.changes)
        runs = len(world.runs)
        await asyncio.sleep(2 * HOUR)
        assert len(world.runs) == runs

    live(scene, cursor=cursor)


CALLS = st.lists(st.tuples(st.floats(0.1, 900), st.floats(0, 3)), max_size=20)


@given(calls=CALLS)
@settings(max_examples=HISTORIES, deadline=None)
def test_where_nothing_goes_wrong_only_webhooks_make_runs(calls: list[tuple[float, float]]) -> None:
    """The only exception is a change that a poll finds within seconds, before its webhook comes."""

    async def scene(world: World) -> None:
        world.start()
        await settled(world)
        seen_early = 0
        for seconds, webhook_after in calls:
            world.change(webhook_after)
            before = len(world.polls)
            await asyncio.sleep(webhook_after)
            seen_early += len(world.polls) - before
            await asyncio.sleep(seconds)
        await settled(world)
        assert whys(world).count("watcher") <= 1 + seen_early

    live(scene)
