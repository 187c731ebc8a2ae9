"""The messages that wait for a receiver: none is lost or taken twice, wherever a task stops."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_insightly_hooks.core.errors import InvalidPayload, InvalidState
from airflow_insightly_hooks.core.state.retry_queue import BLOCK_SIZE, MessageSource, RetryQueue
from tests.conftest import StateStore
from tests.core.state.test_id_set import Crash, CrashingStore

KEY = "retry/flow/webhook"
NOON = datetime(2026, 11, 1, 12, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)


def source(number: int, messages: int = 1) -> MessageSource:
    return MessageSource("flow", f"run_{number}", "deliver", -1, "build", messages)


def queue(store: StateStore) -> RetryQueue:
    return RetryQueue(store, KEY)


def filled(count: int) -> StateStore:
    store = StateStore()
    for number in range(count):
        assert queue(store).enter(source(number), f"enter_{number}", NOON)
    return store


def test_what_is_due_is_taken_once():
    """From the earliest due time on, everything is taken, in the order in which it came."""
    store = StateStore()
    queue(store).enter(source(1, 2), "a", NOON + MINUTE)
    queue(store).enter(source(2, 3), "b", NOON)
    assert (queue(store).due, queue(store).waiting) == (NOON, 5)
    assert queue(store).take("taker", NOON - timedelta(seconds=1)) == []
    assert queue(store).take("taker", NOON) == [source(1, 2), source(2, 3)]
    assert (queue(store).due, queue(store).waiting) == (None, 0)
    assert queue(store).take("another", NOON + MINUTE) == []


def test_a_run_takes_the_same_until_it_has_noted_it():
    """Messages that arrive meanwhile belong to the next run."""
    store = filled(2)
    taken = queue(store).take("taker", NOON)
    queue(store).enter(source(9), "late", NOON)
    assert queue(store).take("taker", NOON) == taken
    queue(store).forget("taker")
    queue(store).forget("taker")  # however often it is tried
    assert queue(store).take("taker", NOON) == [source(9)]


def test_a_run_enters_once():
    """Its retry notices that the messages are already entered, even after they were taken."""
    store = filled(1)
    assert not queue(store).enter(source(0), "enter_0", NOON)
    queue(store).take("taker", NOON)
    queue(store).forget("taker")
    assert not queue(store).enter(source(0), "enter_0", NOON)
    assert queue(store).due is None


def test_the_store_stays_small():
    """However many messages have waited, two blocks are left. Each value fits into Airflow's store."""
    store = CrashingStore()
    long = MessageSource("d" * 250, "r" * 250, "t" * 250, 10**6, "b" * 250, 10**9)
    for number in range(5 * BLOCK_SIZE // 2):
        queue(store).enter(long, f"{number:0250}", NOON)
        if number % 40 == 0:
            queue(store).take(f"taker_{number}", NOON)
            queue(store).forget(f"taker_{number}")
    assert len(store.values) <= 4


def test_a_run_that_never_notes_what_it_took_keeps_that_alone():
    """Its messages stay for its next try. Blocks before and after them are deleted."""
    store = filled(3 * BLOCK_SIZE)
    first = queue(store).take("killed", NOON)
    for number in range(1, 11):
        for entry in range(BLOCK_SIZE):
            queue(store).enter(source(entry), f"{number}_{entry}", NOON)
        queue(store).take(f"taker_{number}", NOON)
        queue(store).forget(f"taker_{number}")
    blocks = {int(key.rpartition("/")[2]) for key in store.values if key.rpartition("/")[2].isdigit()}
    assert blocks == {0, 1, 2, 12}
    assert queue(store).take("killed", NOON) == first
    queue(store).forget("killed")
    assert len([key for key in store.values if key.rpartition("/")[2].isdigit()]) == 1


def test_a_part_that_is_missing_is_an_error():
    """It is then unknown what waits."""
    store = filled(3)
    store.delete(f"{KEY}/0")
    with pytest.raises(InvalidState, match="it is not known what waits"):
        queue(store).take("taker", NOON)
    with pytest.raises(InvalidState, match="it is not known what waits"):
        queue(store).enter(source(4), "enter_4", NOON)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "an object is needed"),
        ({"dag_id": "a"}, "it lacks 'run_id'"),
        ({**source(1)._asdict(), "map_index": "0"}, "its map_index must be of type int"),
        ({**source(1)._asdict(), "messages": True}, "its messages must be of type int"),
        ({**source(1)._asdict(), "run_id": None}, "its run_id must be of type str"),
    ],
)
def test_what_is_no_source_is_refused(value, reason):
    """A run's conf may be made by hand."""
    with pytest.raises(InvalidPayload, match=reason):
        MessageSource.of(value)


steps = st.lists(st.sampled_from(["enter", "take", "crash in enter", "crash in take"]), max_size=40)


def test_a_lost_head_is_not_taken_for_nothing_waiting():
    """Otherwise messages that a task has left would never be sent."""
    store = filled(1)
    store.delete(KEY)
    with pytest.raises(InvalidState, match="it is missing"):
        queue(store)


@settings(max_examples=200)
@given(steps, st.randoms())
def test_nothing_is_lost_or_taken_twice(steps, random):
    """A task that is killed at any call, and tried again, leaves the same state as an undisturbed one."""
    store = CrashingStore()
    entered: list[MessageSource] = []
    taken: list[MessageSource] = []
    for number, step in enumerate(steps):
        if step.endswith("enter"):

            def act(store=store, number=number):
                queue(store).enter(source(number), f"enter_{number}", NOON)

            entered.append(source(number))
        else:
            noted: list[list[MessageSource]] = []

            def act(store=store, number=number, noted=noted):
                if not noted:
                    noted.append(queue(store).take(f"take_{number}", NOON))
                queue(store).forget(f"take_{number}")

        for _ in range(random.randint(1, 3) if step.startswith("crash") else 0):
            store.calls.clear()
            store.crash_at, store.done = random.randint(0, 4), random.random() < 0.5
            with suppress(Crash):
                act()
        store.crash_at = None
        act()
        if not step.endswith("enter"):
            taken += noted[0]
    assert taken + queue(store).take("last", NOON) == entered


@pytest.mark.parametrize(
    "damage",
    [
        {"due": "soon"},
        {"due": 7},
        {"waiting": "many"},
        {"being_taken": ["run"]},
        {"being_taken": {"run": 3}},
        {"being_taken": {"run": [0, "1"]}},
        {"first": None},
    ],
)
def test_a_damaged_head(damage):
    """It is refused as state that can't be read: then the task goes on with the queues of other receivers."""
    store = filled(1)
    store.set(KEY, {**store.get(KEY), **damage})
    with pytest.raises(InvalidState, match=KEY):
        queue(store)
