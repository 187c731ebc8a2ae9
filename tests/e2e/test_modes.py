"""A workflow in the mode ``one_task``, on a real Airflow."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import pytest
import requests

from airflow_insightly_hooks.demo.airflow_stack import wait_for
from tests.e2e.conftest import CANARY, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ONE_TASK = {"detect_and_deliver"}


def add(stack: Stack, name: str) -> int:
    made = {"ORGANISATION_NAME": name, "BACKGROUND": CANARY}
    return int(stack.crm("POST", "/Organisations", made)["ORGANISATION_ID"])


def run(stack: Stack, dag_id: str) -> str:
    """Start a run one second after the last action, since the workflows' ``settle`` is one second."""
    time.sleep(2.1)
    return stack.start_run(dag_id)


def finish(stack: Stack, dag_id: str, expected: str = "success") -> str:
    started = run(stack, dag_id)
    state = stack.wait_for_run(dag_id, started)
    failed = [name for name, found in states(stack, dag_id, started).items() if found == "failed"]
    assert state == expected, [stack.log(dag_id, started, name)[-3000:] for name in failed]
    return started


def posts(stack: Stack, name: str) -> Counter[int]:
    return Counter(stack.received_ids(name, "ORGANISATION_ID"))


def states(stack: Stack, dag_id: str, run_id: str) -> dict[str, Any]:
    return {name: task["state"] for name, task in stack.tasks(dag_id, run_id).items()}


def page(stack: Stack, path: str) -> str:
    """Return one of this package's pages, as an operator sees it."""
    stack.airflow.dags()  # logs in
    token = str(stack.airflow._session.headers["Authorization"]).removeprefix("Bearer ")
    answer = requests.get(f"{stack.airflow.url}/insightly{path}", cookies={"_token": token}, timeout=60)
    answer.raise_for_status()
    assert CANARY not in answer.text
    return answer.text


@pytest.mark.scale
def test_in_one_task(stack: Stack) -> None:
    """A retry after a 503, a resend and a time trigger work, and pages and commands know the task."""
    dag_id = "switched"
    finish(stack, dag_id)
    first, second = (add(stack, f"e2e switched {n}") for n in (1, 2))
    stack.bin_answers("switched", status=503, times=1, match=f'"ORGANISATION_ID":{second},')
    started = finish(stack, dag_id)
    assert stack.tasks(dag_id, started).keys() == ONE_TASK
    assert stack.tasks(dag_id, started)["detect_and_deliver"]["try_number"] == 2
    assert posts(stack, "switched") == {first: 1, second: 2}
    report = stack.xcom(dag_id, started, "detect_and_deliver")
    assert (report["total"], report["delivered"], report["attempts"]) == (2, 2, 3)

    assert 'value="switched/detect_and_deliver" selected' in page(stack, f"/preview?dag_id={dag_id}")
    assert "detect_and_deliver" in page(stack, f"/deliveries?dag_id={dag_id}")
    assert "Switched" in page(stack, "/")
    of_run = ("--dag-id", dag_id, "--run-id", started)  # and not of the pending DAG's
    stack.command("resend", *of_run, "--record", str(first), "--yes")
    wait_for("what is sent again", lambda: posts(stack, "switched")[first] == 2, 240)
    assert stack.wait_for_run(dag_id, started) == "success"

    found = json.loads(stack.command("deliveries", *of_run, "--output", "json"))
    assert {(one["task_id"], one["record"], one["state"]) for one in found} == {
        ("detect_and_deliver", f"Organisations:{record}", "delivered") for record in (first, second)
    }

    wait_for("what was scheduled", lambda: len(stack.received("switched_later")) == 2, 240)
    assert posts(stack, "switched_later") == {first: 1, second: 1}
