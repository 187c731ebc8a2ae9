"""When a DAG with a watcher of its own is woken again: by its cursor, and by whether it has had runs."""

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
SAID = (EIGHT, NINE)


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
    """The DAG's cursor stands before what is said."""
    return AssetState(
        **{
            cursor_list(KEY): {KEY: {"dag": "woken", "task": "detect", "woken": False}},
            KEY: "2031-03-10T08:00:00Z",
        }
    )


def play(state: AssetState, scene: Callable[[OwnCursor], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scene(OwnCursor(state, "woken/detect", poll_interval=15)))  # type: ignore[arg-type]


def test_a_dag_that_has_had_no_run_is_woken_again_at_each_poll(state: AssetState, airflow: Airflow) -> None:
    """It is paused, or the event was lost: an event makes no run of a paused DAG, and wakes no other."""

    async def scene(own: OwnCursor) -> None:
        assert await own.to_repeat() is None
        await own.said(*SAID)
        for _ in range(20):
            assert await own.to_repeat() == SAID
        state.values[KEY] = "2031-03-10T09:00:00Z"
        assert await own.to_repeat() is None
        airflow.runs = Runs(8, 0)
        assert await own.to_repeat() is None

    play(state, scene)
    assert set(airflow.asked) == {"woken.detect"}


def test_a_dag_that_runs_is_woken_again_ever_more_rarely(state: AssetState, airflow: Airflow) -> None:
    """It is at work, or it fails."""

    async def scene(own: OwnCursor) -> None:
        await own.said(*SAID)
        repeated = []
        for second in range(0, 4 * 3600, 15):
            airflow.now = second
            airflow.runs = Runs(8 + len(repeated), 0)
            if await own.to_repeat():
                repeated.append(second)
        assert repeated[:4] == [15, 45, 105, 225]
        assert [b - a for a, b in zip(repeated[-3:], repeated[-2:], strict=False)] == [3600, 3600]

    play(state, scene)


def test_a_dag_whose_sensor_is_at_work_is_left_alone_for_a_while(state: AssetState, airflow: Airflow) -> None:
    """It may have begun before the event; an event more would only wait behind it."""
    airflow.runs = Runs(7, 1)

    async def scene(own: OwnCursor) -> None:
        await own.said(*SAID)
        assert await own.to_repeat() is None
        airflow.now = 15
        assert await own.to_repeat() == SAID
        assert await own.to_repeat() is None

    play(state, scene)


@pytest.mark.parametrize("how", ["no cursor", "no answer", "no state"])
def test_what_cannot_be_known_is_said_once_more_or_rarely(
    state: AssetState, airflow: Airflow, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A DAG without a cursor has yet to run for the first time, or is given another one's name."""
    if how == "no cursor":
        state.values.clear()
    elif how == "no answer":
        airflow.runs = None
    else:
        monkeypatch.setattr(state, "aget", no_answer)

    async def scene(own: OwnCursor) -> None:
        await own.said(*SAID)
        assert await own.to_repeat() is None
        airflow.now = 15
        assert await own.to_repeat() == SAID
        airflow.now = 30
        assert await own.to_repeat() is None

    play(state, scene)


def test_what_was_not_read_yet_is_said_again_with_what_is_new(state: AssetState, airflow: Airflow) -> None:
    """From the first of it to the last."""

    async def scene(own: OwnCursor) -> None:
        await own.said(*SAID)
        await own.said(NINE, NINE + timedelta(minutes=1))
        assert await own.to_repeat() == (EIGHT, NINE + timedelta(minutes=1))

    play(state, scene)


async def no_answer(*_of: Any) -> Any:
    raise RuntimeError("no answer")
