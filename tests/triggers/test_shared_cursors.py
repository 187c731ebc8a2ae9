"""When DAGs that share a watcher are woken again for changes that webhooks have announced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_insightly_hooks.hooks.assets import cursor_list
from airflow_insightly_hooks.triggers import shared_cursors
from airflow_insightly_hooks.triggers.own_cursor import Runs
from airflow_insightly_hooks.triggers.shared_cursors import SharedCursors
from tests.triggers.conftest import AssetState

EIGHT = datetime(2031, 3, 10, 8, tzinfo=timezone.utc)
REPORTED = (EIGHT, EIGHT + timedelta(hours=1))


class Airflow:
    """The clock, and how many tasks are reading, by DAG."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reading: dict[str, int] = {}

    async def count_runs(self, dag_id: str, _task_id: str) -> Runs:
        return Runs(1, self.reading.get(dag_id, 0))


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Airflow:
    made = Airflow()
    monkeypatch.setattr(shared_cursors, "count_runs", made.count_runs)
    monkeypatch.setattr(shared_cursors, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


@pytest.fixture
def state() -> AssetState:
    """Two DAGs, whose cursors are before the reported changes."""
    made = AssetState()
    for dag in ("a", "b"):
        key = f"cursor/{dag}/detect"
        made.values[key] = "2031-03-10T08:00:00Z"
        part = made.values.setdefault(cursor_list(key), {})
        part[key] = {"dag": dag, "task": "detect", "woken": True}
    return made


def play(state: AssetState, scene: Callable[[SharedCursors], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scene(SharedCursors(state)))  # type: ignore[arg-type]


async def looks(cursors: SharedCursors, airflow: Airflow, seconds: int) -> list[float]:
    repeated = []
    for _ in range(0, seconds, 5):
        airflow.now += 5
        if await cursors.due_repeat():
            repeated.append(airflow.now)
    return repeated


def test_what_all_have_read_is_not_said_again(state: AssetState, airflow: Airflow) -> None:
    """Their cursors show it within the interval that they get."""

    async def scene(cursors: SharedCursors) -> None:
        cursors.reported(*REPORTED, 15, is_announced=True)
        assert await looks(cursors, airflow, 10) == []
        state.values |= {f"cursor/{dag}/detect": "2031-03-10T09:00:00Z" for dag in ("a", "b")}
        assert await looks(cursors, airflow, 3600) == []

    play(state, scene)


def test_what_one_has_not_read_is_said_again_ever_more_rarely(state: AssetState, airflow: Airflow) -> None:
    """The event was lost, or its run has failed."""

    async def scene(cursors: SharedCursors) -> None:
        cursors.reported(*REPORTED, 15, is_announced=True)
        state.values["cursor/a/detect"] = "2031-03-10T09:00:00Z"
        assert await looks(cursors, airflow, 240) == [15, 30, 60, 120, 240]

    play(state, scene)


def test_a_run_that_reads_is_let_alone(state: AssetState, airflow: Airflow) -> None:
    """It is left alone for five minutes, or until it ends without having moved its cursor."""

    async def scene(cursors: SharedCursors) -> None:
        airflow.reading = {"a": 1, "b": 1}
        cursors.reported(*REPORTED, 15, is_announced=True)
        assert await looks(cursors, airflow, 60) == []
        airflow.reading["b"] = 0
        assert await looks(cursors, airflow, 15) == [75]
        airflow.reading["b"] = 1
        state.values["cursor/b/detect"] = "2031-03-10T09:00:00Z"
        assert await looks(cursors, airflow, 220) == []
        assert await looks(cursors, airflow, 10) == [300]
        assert await looks(cursors, airflow, 60) == [315, 345], "its reading has cost no patience"

    play(state, scene)


def test_what_polls_say_is_repeated_as_without_webhooks(state: AssetState, airflow: Airflow) -> None:
    """Whether a run is reading is not checked."""

    async def scene(cursors: SharedCursors) -> None:
        airflow.reading = {"a": 1, "b": 1}
        cursors.reported(*REPORTED, 15)
        assert await looks(cursors, airflow, 30) == [15, 30]

    play(state, scene)


def test_cursors_of_a_newer_release(
    state: AssetState, airflow: Airflow, caplog: pytest.LogCaptureFixture
) -> None:
    """They are not read; the log says why, and the changes are said again."""
    caplog.set_level("INFO")
    of_newer = {"version": 2, "tasks": {"cursor/a/detect": {"woken": True}}}
    state.values[cursor_list("cursor/a/detect")] = of_newer

    async def scene(cursors: SharedCursors) -> None:
        cursors.reported(*REPORTED, 15, is_announced=True)
        assert await looks(cursors, airflow, 30) == [15, 30]

    play(state, scene)
    assert "The cursors of DAGs can't be read: NewerState" in caplog.text


def test_a_state_that_fails_drops_nothing(
    state: AssetState, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The changes are reported again without a look at the state, which is read again later."""

    async def no_answer(*_of: Any) -> Any:
        raise RuntimeError("no answer")

    async def scene(cursors: SharedCursors) -> None:
        cursors.reported(*REPORTED, 15, is_announced=True)
        with monkeypatch.context() as patch:
            patch.setattr(state, "aget", no_answer)
            assert await looks(cursors, airflow, 30) == [15, 30]
        state.values |= {f"cursor/{dag}/detect": "2031-03-10T09:00:00Z" for dag in ("a", "b")}
        assert await looks(cursors, airflow, 3600) == []

    play(state, scene)
