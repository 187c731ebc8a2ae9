"""Which records a run may let through; ``test_criteria_operator.py`` has the crashes and histories."""

from __future__ import annotations

import pytest

from airflow_insightly_hooks.core.errors import InvalidState
from airflow_insightly_hooks.core.state.trigger_once import TriggerOnce
from tests.conftest import StateStore

KEY = "triggered/w"


def run(memory: StateStore, name: str, state: StateStore | None = None) -> TriggerOnce:
    return TriggerOnce(memory, state or StateStore(), KEY, name)


def test_a_large_batch_is_committed_in_parts() -> None:
    """No value is too large for the store, whatever the ids; a retry admits the same."""
    memory, state = StateStore(), StateStore()
    ids = range(2**62, 2**62 + 30_000, 5)
    assert run(memory, "r1", state).admit(ids) == set(ids)
    assert run(memory, "r1", state).admit(ids) == set(ids)
    assert run(memory, "r2").admit(ids) == set()


def test_a_small_batch_costs_a_few_calls() -> None:
    """Where nothing new triggers: no write."""
    memory, state = StateStore(), StateStore()
    run(memory, "r1", state).admit([1, 2, 3])
    assert len(memory.writes) <= 7
    assert len(state.writes) <= 4
    before = list(memory.writes)
    assert run(memory, "r2").admit([1, 2, 3]) == set()
    assert memory.writes == before


def test_what_another_run_has_committed_counts() -> None:
    """A run that was stopped right after it had decided, and given up, has decided."""
    memory = StateStore()
    memory.set(f"{KEY}/open/r1", [1, 2])
    memory.set(f"{KEY}/open", {"r1": False})
    assert run(memory, "r2").admit([2, 3]) == {3}
    assert run(memory, "r3").admit([1, 4]) == {4}
    assert run(memory, "r1").admit([1, 2, 3]) == {1, 2}  # cleared, it lets through what it had decided
    assert memory.get(f"{KEY}/open") == {}
    assert memory.get(f"{KEY}/open/r1") is None


def test_what_was_not_committed_was_never_decided() -> None:
    """The ids alone commit nothing."""
    memory = StateStore()
    memory.set(f"{KEY}/open/r1", [1, 2])
    assert run(memory, "r2").admit([1]) == {1}
    assert run(memory, "r1").admit([1, 2]) == {2}


@pytest.mark.parametrize(("key", "value"), [("open", "text"), ("open", {"r1": False}), ("open/r1", "text")])
def test_state_that_cannot_be_read_is_an_error(key: str, value: object) -> None:
    """Not an empty memory."""
    memory = StateStore()
    memory.set(f"{KEY}/open", {"r1": False})
    memory.set(f"{KEY}/{key}", value)
    with pytest.raises(InvalidState):
        run(memory, "r2").admit([1])


@pytest.mark.parametrize("key", ["triggered/w", "triggered/w/open"])
def test_a_lost_head_is_no_empty_memory(key: str) -> None:
    """Else every record would trigger once more."""
    memory = StateStore()
    run(memory, "r1").admit([1, 2])
    memory.delete(key)
    with pytest.raises(InvalidState) as caught:
        run(memory, "r2").admit([1])
    assert caught.value.key == key
