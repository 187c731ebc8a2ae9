"""Which records a run may pass on. ``test_criteria_operator.py`` tests crashes and histories."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from airflow_insightly_hooks.core.errors import InvalidState
from airflow_insightly_hooks.core.state.trigger_once import TriggerOnce
from tests.conftest import StateStore

KEY = "triggered/w"
NOW = datetime(2026, 3, 1, 8, tzinfo=timezone.utc)


def run(
    memory: StateStore,
    name: str,
    state: StateStore | None = None,
    now: datetime = NOW,
) -> TriggerOnce:
    return TriggerOnce(memory, state or StateStore(), KEY, name, now)


def test_a_large_batch_is_committed_in_parts() -> None:
    """No value is too large for the store, whatever the ids are. A retry passes on the same records."""
    memory, state = StateStore(), StateStore()
    ids = range(2**62, 2**62 + 30_000, 5)
    assert run(memory, "r1", state).admit(ids) == set(ids)
    assert run(memory, "r1", state).admit(ids) == set(ids)
    assert run(memory, "r2").admit(ids) == set()


def test_a_small_batch_costs_a_few_calls() -> None:
    """If no new record triggers, nothing is written."""
    memory, state = StateStore(), StateStore()
    run(memory, "r1", state).admit([1, 2, 3])
    assert len(memory.writes) <= 7
    assert len(state.writes) <= 4
    before = list(memory.writes)
    assert run(memory, "r2").admit([1, 2, 3]) == set()
    assert memory.writes == before


def test_what_another_run_has_committed_counts() -> None:
    """If a run was stopped right after it had decided, and is never tried again, its decision counts."""
    memory = StateStore()
    memory.set(f"{KEY}/decided", {"run": "r1", "ids": [1, 2]})
    assert run(memory, "r2").admit([2, 3]) == {3}
    assert run(memory, "r3").admit([1, 4]) == {4}
    assert run(memory, "r1").admit([1, 2, 3]) == {1, 2}  # once cleared, it passes on what it had decided
    assert memory.get(f"{KEY}/open") == {}
    assert memory.get(f"{KEY}/open/r1") is None


@pytest.mark.parametrize("is_remembered", [False, True])
def test_what_an_earlier_version_has_committed_counts(is_remembered: bool) -> None:
    """They kept a decision under ``open``, and marked there whether it was remembered."""
    memory = StateStore()
    memory.set(f"{KEY}/open/r1", [1, 2])
    memory.set(f"{KEY}/open", {"r1": is_remembered})
    assert run(memory, "r2").admit([2, 3]) == ({2, 3} if is_remembered else {3})
    assert run(memory, "r1").admit([1, 2]) == {1, 2}
    assert memory.get(f"{KEY}/open") == {}


def test_runs_that_are_never_tried_again_leave_nothing() -> None:
    """A killed run's decision is kept for 30 days, for its next try. The memory keeps the ids."""
    memory = StateStore()
    for number in range(50):
        memory.set(f"{KEY}/decided", {"run": f"killed{number}", "ids": [number + 1]})
        run(memory, "r", now=NOW + timedelta(days=number)).admit([])
    open_runs = memory.get(f"{KEY}/open")
    assert len(open_runs) == 31
    assert set(memory.values) == {
        KEY,
        f"{KEY}/0",
        f"{KEY}/kept",
        f"{KEY}/open",
        *(f"{KEY}/open/{r}" for r in open_runs),
    } | {key for key in memory.values if key.removeprefix(f"{KEY}/").isdigit()}
    assert run(memory, "later", now=NOW + timedelta(days=200)).admit(range(1, 52)) == {51}
    assert not [key for key in memory.values if key.startswith(f"{KEY}/open/")]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("open", "text"),
        ("open", {"r1": False}),
        ("open/r1", "text"),
        ("open", {"r1": "yesterday"}),
        ("decided", [1]),
    ],
)
def test_state_that_cannot_be_read_is_an_error(key: str, value: object) -> None:
    """It is not taken for an empty memory."""
    memory = StateStore()
    memory.set(f"{KEY}/open", {"r1": False})
    memory.set(f"{KEY}/{key}", value)
    with pytest.raises(InvalidState):
        run(memory, "r2").admit([1])


def test_a_lost_head_is_no_empty_memory() -> None:
    """Otherwise every record would trigger once more."""
    memory = StateStore()
    run(memory, "r1").admit([1, 2])
    memory.delete(KEY)
    with pytest.raises(InvalidState) as caught:
        run(memory, "r2").admit([1])
    assert caught.value.key == KEY
