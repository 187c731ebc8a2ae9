"""An Airflow with the stored state of an earlier release."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_insightly_hooks.testing.dag_sources import dags_in
from airflow_insightly_hooks.testing.task_loop import TaskLoop
from tests.compatibility.flows import FLOWS
from tests.compatibility.stored import load

HERE = Path(__file__).parent


class Upgraded:
    """An Airflow with what an earlier release has left of a flow.

    :ivar found: the contents of the file of state.
    :ivar out: the receiver, which acknowledges every message.
    """

    def __init__(self, name: str, edit: Any, sandbox: Any, connections: Any, run_dag: Any) -> None:
        (file,) = HERE.glob(f"state-*/{name}.json")  # of the first release that has this state
        self.found = json.loads(file.read_text(encoding="utf-8"))
        edit(self.found)
        self.flow, self.sandbox = FLOWS[name], sandbox
        self.out = connections.receiver("out")
        self.run = lambda: run_dag(self.flow.workflow)
        behind = datetime.fromisoformat(self.found["written_at"]) - sandbox.now()
        sandbox.advance(seconds=max(behind.total_seconds(), 0) + 3600)
        _, dags = dags_in(self.flow.workflow, None)
        self._loop = TaskLoop({dag.dag_id: dag for dag in dags}, 60)
        self._loop.store_dags()
        load(self.found, {dag.dag_id: self._loop._serialized(dag.dag_id) for dag in dags})

    def add_records(self) -> None:
        """Add the contacts from before the upgrade to the CRM, under their ids."""
        for fields, kept in zip(self.flow.records, self.found["records"], strict=True):
            times = {name: value for name, value in kept.items() if name != "CONTACT_ID"}
            assert self.sandbox.create("Contacts", **fields, **times).items() >= kept.items()

    def finish(self, dag_id: str, run_id: str) -> Any:
        return self._loop.finish(dag_id, run_id)

    def finish_queued(self) -> Any:
        (run,) = self._loop.queued()
        return self.finish(run.dag_id, run.run_id)

    def sent(self) -> list[str]:
        return [body["entity"]["FIRST_NAME"] for body in self.out.bodies]

    def ids(self) -> list[str]:
        return [request["headers"]["webhook-id"] for request in self.out.requests]


@pytest.fixture
def upgraded(insightly_sandbox, insightly_connections, run_dag) -> Callable[..., Upgraded]:
    """Return a function that loads a flow's state, after ``edit`` has changed it."""
    return lambda name, edit=lambda found: None: Upgraded(
        name, edit, insightly_sandbox, insightly_connections, run_dag
    )
