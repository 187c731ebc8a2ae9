"""This release reads the state of release 0.1.0, and continues from it (README.md)."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from airflow_insightly_hooks.core.detection.changes import ChangeWindow
from airflow_insightly_hooks.core.incoming.kept_entity import KeptEntity, KeptName
from airflow_insightly_hooks.runs.names_memory import NamesMemory, ToldNames
from tests.compatibility.stored import asset_state, clear
from tests.conftest import StateStore

pytestmark = pytest.mark.slow

STATE = Path(__file__).parent / "state-0.1.0"
CONTACTS = "insightly/insightly_default/Contacts"


def of_task(found: dict[str, Any], task_id: str, what: str) -> Any:
    return next(t[what] for run in found["runs"] for t in run["tasks"] if t["task_id"] == task_id)


def test_cursor(upgraded):
    """A task continues from its stored cursor, and moves it."""
    state = upgraded("tasks")
    cursor = state.found["assets"][CONTACTS]["cursor/tasks/detect"]
    state.sandbox.create("Contacts", FIRST_NAME="Dora")
    outcome = state.run()
    assert outcome.xcom("detect", "window")["start"] == cursor
    # The sandbox begins with contacts of the last hours: how many are new depends on the day.
    assert "Dora" in state.sent()
    assert asset_state(CONTACTS)["cursor/tasks/detect"] == outcome.xcom("detect", "window")["end"]


def test_ledger(upgraded):
    """A cleared task POSTs only unacknowledged messages, under the same ids."""
    state = upgraded("tasks")
    (undelivered,) = of_task(state.found, "deliver", "xcoms")["return_value"]["undelivered"]
    assert state.finish("tasks", clear("tasks", "deliver")).state == "success"
    assert state.ids() == [undelivered["message_id"]]


def test_ledger_of_one_task(upgraded):
    """A cleared workflow in one task continues from its checkpoint, and POSTs the missing messages."""
    state = upgraded("one_task")
    state.add_records()
    (undelivered,) = of_task(state.found, "detect_and_deliver", "xcoms")["return_value"]["undelivered"]
    assert state.finish("one_task", clear("one_task", "detect_and_deliver")).state == "success"
    assert state.ids() == [undelivered["message_id"]]


def test_resend(upgraded):
    """Messages that a user asked to send again are sent under their ids, although acknowledged."""
    state = upgraded("resend")
    (payload,) = of_task(state.found, "build", "xcoms")["return_value"]
    assert state.finish("again", state.found["runs"][0]["run_id"]).state == "success"
    assert state.ids() == [payload["message_id"]]


def test_until_triggered(upgraded):
    """A record that has triggered does not trigger again."""
    state = upgraded("until_triggered")
    state.add_records()
    state.sandbox.update("Contacts", state.found["records"][0]["CONTACT_ID"], LAST_NAME="Lovelace")
    state.sandbox.create("Contacts", FIRST_NAME="Bob")
    outcome = state.run()
    detected = {change["record_id"] for change in outcome.xcom("detect")}
    assert state.found["records"][0]["CONTACT_ID"] in detected
    assert "Bob" in state.sent()
    assert "Ada" not in state.sent()


def test_pending_webhooks(upgraded):
    """A message that is due after the upgrade is sent then."""
    state = upgraded("pending")
    state.add_records()
    state.sandbox.advance(days=3)
    assert state.finish_queued().state == "success"
    assert state.sent() == ["Ada"]


def test_retry_queue(upgraded):
    """The retry DAG sends the messages that were left to it. The waiting task sends its own when cleared."""
    state = upgraded("retry_queue")
    assert state.finish_queued().state == "success"
    assert state.sent() == ["Bob"]
    assert state.finish("down", clear("down", "deliver")).state == "success"
    assert state.sent() == ["Bob", "Ada"]


def test_received_webhooks():
    """A kept webhook can be read, and a task knows which ones it has read."""
    found = json.loads((STATE / "received.json").read_text(encoding="utf-8"))
    entity = KeptEntity.of(found["object"].encode())
    assert (entity.record_id, entity.record) == (7, {"CONTACT_ID": 7, "FIRST_NAME": "Ada"})
    store = StateStore()
    for key, value in found["state"].items():
        store.set(key, value)
    name = KeptName.parse(found["name"])
    end = datetime(2026, 1, 31, 8, 1, tzinfo=timezone.utc)
    remembered = NamesMemory(store, "cursor/dag/task").of(end)
    told = ToldNames(store).of(ChangeWindow(end - timedelta(minutes=1), end))
    assert remembered is not None
    assert name in remembered.names
    assert told is not None
    assert name in told.names
