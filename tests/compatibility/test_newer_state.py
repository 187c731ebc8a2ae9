"""State of a newer release is refused before anything is sent, and the error says what to do."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from airflow_insightly_hooks.core.errors import NewerState
from airflow_insightly_hooks.core.state.state_store import read_head
from airflow_insightly_hooks.core.state.versions import read_value
from tests.compatibility.stored import asset_state, clear
from tests.conftest import StateStore

NEWER = {"version": 99, "what": "a later release writes"}
CONTACTS = "insightly/insightly_default/Contacts"


def test_the_error():
    """The error can be pickled, with its key and both versions."""
    error = pickle.loads(pickle.dumps(NewerState("delivery", 3, 2)))  # noqa: S301 — our own
    assert (error.key, error.version, error.latest) == ("delivery", 3, 2)


@pytest.mark.parametrize("value", ["text", 1, True, ["a"], {"a": 1}, {"version": "x"}, {"version": 1}])
def test_a_value_without_a_newer_version_is_returned(value):
    """A value without a version is of version 1: texts, numbers, lists and objects."""
    store = StateStore()
    store.set("key", value)
    assert read_value(store, "key") == value
    assert read_value(store, "other", "default") == "default"


def test_a_newer_version_is_refused():
    """This holds for values and heads."""
    store = StateStore()
    store.set("key", {"version": 3})
    with pytest.raises(NewerState) as caught:
        read_value(store, "key", latest=2)
    assert (caught.value.version, caught.value.latest) == (3, 2)
    with pytest.raises(NewerState):
        read_head(store, "key", (1, 2))
    assert read_value(store, "key", latest=3) == {"version": 3}


def of_asset(key: str) -> Any:
    def edit(found: dict[str, Any]) -> None:
        found["assets"][CONTACTS][key] = NEWER

    return edit


def of_task(task_id: str, key: str) -> Any:
    def edit(found: dict[str, Any]) -> None:
        for run in found["runs"]:
            for task in run["tasks"]:
                if task["task_id"] == task_id:
                    task["state_store"][key] = NEWER

    return edit


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "task_id"),
    [
        ("cursor/once/detect", "detect"),
        ("cursor/once/detect~a", "detect"),
        ("cursors/0", "detect"),
        ("triggered/once", "evaluate"),
        ("triggered/once/open", "evaluate"),
        ("triggered/once/decided", "evaluate"),
    ],
)
def test_the_state_of_an_asset(upgraded, key, task_id):
    """The task that reads it fails with the key, and nothing is sent."""
    state = upgraded("until_triggered", of_asset(key))
    state.sandbox.create("Contacts", FIRST_NAME="Bob")
    outcome = state.run()
    assert isinstance(outcome.errors[task_id], NewerState)
    assert outcome.errors[task_id].key == key
    assert state.out.requests == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flow", "dag_id", "task_id", "key"),
    [
        ("tasks", "tasks", "detect", "window"),
        ("tasks", "tasks", "detect", "told"),
        ("tasks", "tasks", "deliver", "delivery"),
        ("one_task", "one_task", "detect_and_deliver", "out/delivery"),
        ("until_triggered", "once", "evaluate", "triggered"),
        ("resend", "again", "deliver", "resend"),
        ("retry_queue", "down", "deliver", "left"),
    ],
)
def test_the_state_of_a_task(upgraded, flow, dag_id, task_id, key):
    """The task, cleared, fails with the key, and nothing is sent."""
    state = upgraded(flow, of_task(task_id, key))
    state.add_records()
    outcome = state.finish(dag_id, clear(dag_id, task_id))
    assert isinstance(outcome.errors[task_id], NewerState)
    assert outcome.errors[task_id].key == key.removeprefix("out/")
    assert state.out.requests == []


@pytest.mark.slow
def test_the_window_that_is_being_read(upgraded):
    """A task that was stopped before it had taken its window can't tell which one it was reading."""

    def edit(found: dict[str, Any]) -> None:
        of_task("detect_and_deliver", "reading")(found)
        (task,) = found["runs"][0]["tasks"]
        del task["state_store"]["window"]

    state = upgraded("one_task", edit)
    outcome = state.finish("one_task", clear("one_task", "detect_and_deliver"))
    assert outcome.errors["detect_and_deliver"].key == "reading"
    assert isinstance(outcome.errors["detect_and_deliver"], NewerState)
    assert state.out.requests == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flow", "key", "task_id"),
    [("pending", "pending/later/out", "due"), ("retry_queue", "retry/down__retry", "collect")],
)
def test_what_waits(upgraded, flow, key, task_id):
    """Messages that wait for their time or a receiver stay stored, and the task fails with the key."""
    state = upgraded(flow, of_asset(key))
    outcome = state.finish_queued()
    assert outcome.errors[task_id].key == key
    assert isinstance(outcome.errors[task_id], NewerState)
    assert state.out.requests == []


@pytest.mark.slow
@pytest.mark.parametrize("key", ["taken", "entered", "decided", "looked_at", "postponed"])
def test_a_run_that_has_begun_to_send_what_waits(upgraded, key):
    """What the run has noted of itself is refused, and the entry stays where it is."""
    state = upgraded("pending", of_task("due", key))
    before = state.found["assets"][CONTACTS]["pending/later/out/0"]
    state.sandbox.advance(days=3)
    outcome = state.finish_queued()
    assert isinstance(outcome.errors["due"], NewerState)
    assert outcome.errors["due"].key == key
    assert asset_state(CONTACTS)["pending/later/out/0"] == before
    assert state.out.requests == []


@pytest.mark.slow
def test_a_run_that_has_begun_to_send_what_was_left(upgraded):
    """The task of that receiver fails, and its error names the key."""
    key = "taken/down/out"
    state = upgraded("retry_queue", of_task("collect", key))
    outcome = state.finish_queued()
    assert f"state {key!r}: a newer release" in str(outcome.errors["deliver"])
    assert state.out.requests == []


@pytest.mark.slow
def test_one_receivers_queue(upgraded):
    """Only the task of that receiver fails, and its error says why."""
    state = upgraded("retry_queue", of_asset("retry/down/out"))
    outcome = state.finish_queued()
    assert outcome.tasks["collect"] == "success"
    assert "a newer release of airflow-insightly-hooks has written it" in str(outcome.errors["deliver"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "edit",
    [
        of_task("detect_and_deliver", "checkpoint"),
        of_task("detect_and_deliver", "run_counts"),
        of_asset("receiver/one_task/out"),
    ],
)
def test_what_only_saves_work_is_passed_over(upgraded, edit):
    """Without a checkpoint, counts or a receiver's status, a task still sends all missing messages."""
    state = upgraded("one_task", edit)
    state.add_records()
    assert state.finish("one_task", clear("one_task", "detect_and_deliver")).state == "success"
    assert len(state.out.bodies) == 1
