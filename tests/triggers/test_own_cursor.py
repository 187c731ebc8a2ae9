"""When a DAG with its own watcher is woken again: this depends on its cursor and its runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_insightly_hooks.hooks.assets import cursor_list
from airflow_insightly_hooks.triggers import own_cursor
from airflow_insightly_hooks.triggers.own_cursor import OwnCursor, Runs
from tests.triggers.conftest import AssetState

KEY = "cursor/woken/detect"
EIGHT = datetime(2031, 3, 10, 8, tzinfo=timezone.utc)
NINE = EIGHT + timedelta(hours=1)
REPORTED = (EIGHT, NINE)


class Airflow:
    """The clock, and the runs of the DAG."""

    def __init__(self) -> None:
        self.now = 0.0
        self.runs: Runs | None = Runs(7, 0)
        self.asked: list[str] = []

    async def count_runs(self, dag_id: str, task_id: str) -> Runs:
        self.asked.append(f"{dag_id}.{task_id}")
        if self.runs is None:
            raise RuntimeError("no answer")
        return self.runs


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Airflow:
    made = Airflow()
    monkeypatch.setattr(own_cursor, "count_runs", made.count_runs)
    monkeypatch.setattr(own_cursor, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


@pytest.fixture
def state() -> AssetState:
    """The DAG's cursor is before the reported changes."""
    return AssetState(
        **{
            cursor_list(KEY): {KEY: {"dag": "woken", "task": "detect", "woken": False}},
            KEY: "2031-03-10T08:00:00Z",
        }
    )


def play(state: AssetState, scene: Callable[[OwnCursor], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scene(OwnCursor(state, "woken/detect", interval=15)))  # type: ignore[arg-type]


def test_a_dag_that_has_had_no_run_is_woken_again_at_each_poll(state: AssetState, airflow: Airflow) -> None:
    """It is paused, or the event was lost. An event makes no run of a paused DAG, and wakes no other DAG."""

    async def scene(own: OwnCursor) -> None:
        assert await own.due_repeat() is None
        await own.reported(*REPORTED)
        for _ in range(20):
            assert await own.due_repeat() == REPORTED
        state.values[KEY] = "2031-03-10T09:00:00Z"
        assert await own.due_repeat() is None
        airflow.runs = Runs(8, 0)
        assert await own.due_repeat() is None

    play(state, scene)
    assert set(airflow.asked) == {"woken.detect"}


def test_a_run_that_ends_while_it_is_looked_at(
    state: AssetState, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a run has read everything by the time its DAG's runs are counted, it is not followed by another."""

    async def ends(dag_id: str, task_id: str) -> Runs:
        state.values[KEY] = "2031-03-10T09:00:00Z"
        return Runs(8, 0)

    async def scene(own: OwnCursor) -> None:
        await own.reported(*REPORTED)
        airflow.now = 20
        monkeypatch.setattr(own_cursor, "count_runs", ends)
        assert await own.due_repeat() is None

    play(state, scene)


def test_a_dag_that_runs_is_woken_again_ever_more_rarely(state: AssetState, airflow: Airflow) -> None:
    """It is running, or it fails."""

    async def scene(own: OwnCursor) -> None:
        await own.reported(*REPORTED)
        repeated = []
        for second in range(0, 4 * 3600, 15):
            airflow.now = second
            airflow.runs = Runs(8 + len(repeated), 0)
            if await own.due_repeat():
                repeated.append(second)
        assert repeated[:4] == [15, 45, 105, 225]
        assert [b - a for a, b in zip(repeated[-3:], repeated[-2:], strict=False)] == [3600, 3600]

    play(state, scene)


def test_a_dag_whose_sensor_is_at_work_is_left_alone_for_a_while(state: AssetState, airflow: Airflow) -> None:
    """Its run may have begun before the event. Another event would only wait behind it."""
    airflow.runs = Runs(7, 1)

    async def scene(own: OwnCursor) -> None:
        await own.reported(*REPORTED)
        assert await own.due_repeat() is None
        airflow.now = 15
        assert await own.due_repeat() == REPORTED
        assert await own.due_repeat() is None

    play(state, scene)


@pytest.mark.parametrize("how", ["no cursor", "no answer", "no state"])
def test_what_cannot_be_known_is_said_once_more_or_rarely(
    state: AssetState, airflow: Airflow, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A DAG without a cursor has not run yet, or uses another DAG's cursor name."""
    if how == "no cursor":
        state.values.clear()
    elif how == "no answer":
        airflow.runs = None
    else:
        monkeypatch.setattr(state, "aget", no_answer)

    async def scene(own: OwnCursor) -> None:
        await own.reported(*REPORTED)
        assert await own.due_repeat() is None
        airflow.now = 15
        assert await own.due_repeat() == REPORTED
        airflow.now = 30
        assert await own.due_repeat() is None

    play(state, scene)


def test_what_was_not_read_yet_is_said_again_with_what_is_new(state: AssetState, airflow: Airflow) -> None:
    """The event covers the time from the first unread change to the last new one."""

    async def scene(own: OwnCursor) -> None:
        await own.reported(*REPORTED)
        await own.reported(NINE, NINE + timedelta(minutes=1))
        assert await own.due_repeat() == (EIGHT, NINE + timedelta(minutes=1))

    play(state, scene)


async def no_answer(*_of: Any) -> Any:
    raise RuntimeError("no answer")


# --- woken by webhooks -----------------------------------------------------------------------------------


def pushed(state: AssetState, scene: Callable[[OwnCursor], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scene(OwnCursor(state, "woken/detect", 15, is_pushed=True)))  # type: ignore[arg-type]


async def looks(own: OwnCursor, airflow: Airflow, seconds: int) -> list[float]:
    """Return when the event is repeated within so many seconds, if the watch looks every five."""
    repeated = []
    for _ in range(0, seconds, 5):
        airflow.now += 5
        if await own.due_repeat():
            repeated.append(airflow.now)
    return repeated


def test_a_webhooks_event_gets_an_interval(state: AssetState, airflow: Airflow) -> None:
    """The run that it makes reads. Before that, nothing is repeated, and Airflow isn't asked."""

    async def scene(own: OwnCursor) -> None:
        own.announced(*REPORTED)
        assert await looks(own, airflow, 10) == []
        assert airflow.asked == []
        state.values[KEY] = "2031-03-10T09:00:00Z"
        assert await looks(own, airflow, 3600) == []

    pushed(state, scene)
    assert airflow.asked == []


def test_a_webhooks_event_that_was_lost_is_said_again(state: AssetState, airflow: Airflow) -> None:
    """It is repeated after an interval, and then at each interval until there is a run."""

    async def scene(own: OwnCursor) -> None:
        own.announced(*REPORTED)
        assert await looks(own, airflow, 60) == [15, 30, 45, 60]

    pushed(state, scene)


def test_a_run_that_reads_what_a_webhook_has_told_of_is_let_alone(
    state: AssetState, airflow: Airflow
) -> None:
    """It is left alone for five minutes. After that it may be another run, such as a backfill's."""

    async def scene(own: OwnCursor) -> None:
        airflow.runs = Runs(8, 1)
        own.announced(*REPORTED)
        assert await looks(own, airflow, 295) == []
        assert await looks(own, airflow, 60) == [300, 330]

    pushed(state, scene)


def test_a_run_that_has_failed_is_followed_by_another_one(state: AssetState, airflow: Airflow) -> None:
    """The intervals get longer and longer."""

    async def scene(own: OwnCursor) -> None:
        own.announced(*REPORTED)
        repeated: list[float] = []
        while airflow.now < 3600:
            airflow.runs = Runs(8 + len(repeated), 0)
            repeated += await looks(own, airflow, 5)
        assert repeated[:4] == [15, 45, 105, 225]

    pushed(state, scene)


def test_a_later_webhook_begins_anew(state: AssetState, airflow: Airflow) -> None:
    """Its event has woken the DAG. The span of unread changes is kept."""

    async def scene(own: OwnCursor) -> None:
        own.announced(EIGHT, EIGHT + timedelta(minutes=1))
        assert await looks(own, airflow, 10) == []
        own.announced(EIGHT + timedelta(minutes=1), NINE)
        assert await looks(own, airflow, 10) == []
        assert await looks(own, airflow, 5) == [25]
        airflow.now += 15
        assert await own.due_repeat() == REPORTED

    pushed(state, scene)


def test_a_state_that_fails_drops_nothing(
    state: AssetState, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No poll would report the changes again."""

    async def scene(own: OwnCursor) -> None:
        own.announced(*REPORTED)
        with monkeypatch.context() as patch:
            patch.setattr(state, "aget", no_answer)
            assert await looks(own, airflow, 45) == [15, 45]
        assert await looks(own, airflow, 3600)

    pushed(state, scene)
