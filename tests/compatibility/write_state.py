"""Writes files of state with the checked-out release (README.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from airflow_insightly_hooks import __version__
from airflow_insightly_hooks.core.detection.changes import ChangeWindow
from airflow_insightly_hooks.core.incoming.kept_entity import KeptEntity, KeptName
from airflow_insightly_hooks.runs.names_memory import NamesMemory, ToldNames
from tests.compatibility.flows import FLOWS
from tests.compatibility.stored import send_again, stored
from tests.conftest import StateStore

KEPT = ("CONTACT_ID", "DATE_CREATED_UTC", "DATE_UPDATED_UTC")
RECEIVED_AT = datetime(2026, 1, 31, 8, tzinfo=timezone.utc)


@pytest.mark.parametrize("name", FLOWS)
def test_write(name, insightly_sandbox, insightly_connections, run_dag):
    flow = FLOWS[name]
    out = insightly_connections.receiver("out")
    records = iter(flow.records)
    created = []
    flow.before(
        lambda: created.append(insightly_sandbox.create("Contacts", **next(records))),
        out,
        lambda: run_dag(flow.workflow),
    )
    assert next(records, None) is None
    if flow.asks_again:
        send_again(flow.workflow.dag_id)
    found = {
        "written_by": __version__,
        "written_at": insightly_sandbox.now().isoformat(),
        "records": [{name: record[name] for name in KEPT} for record in created],
        **stored(),
    }
    write(name, found)


def test_write_received():
    """Write the webhooks that the endpoint keeps, and the names of those that a task has read."""
    entity = KeptEntity(RECEIVED_AT, "Contacts", 7, {"CONTACT_ID": 7, "FIRST_NAME": "Ada"})
    name = KeptName.of_message(RECEIVED_AT, 7, "message")
    store = StateStore()
    end = RECEIVED_AT + timedelta(minutes=1)
    NamesMemory(store, "cursor/dag/task").keep([name], RECEIVED_AT, end, None, "run")
    store.set("cursor/dag/task", "2026-01-31T08:01:00Z")
    ToldNames(store).keep(ChangeWindow(RECEIVED_AT, end), [name])
    values = {key: json.loads(text) for key, text in store.values.items()}
    write("received", {"name": str(name), "object": entity.as_bytes().decode(), "state": values})


def write(name: str, found: Mapping[str, Any]) -> None:
    folder = Path(os.environ["STATE_FOLDER"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
