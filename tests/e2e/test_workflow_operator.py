"""A workflow in one task, on a real Airflow."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime

import pytest

from tests.e2e.conftest import CANARY, TO_SAVE_TIME, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_a_retry_sends_what_is_missing(stack: Stack, started: datetime) -> None:
    """Of five records one fails and arrives with the retry; XCom, rendered fields and logs hold none."""
    stack.skip_on_sqlite(TO_SAVE_TIME)
    stack.bin_answers("one_task", status=503, times=1, match="one task 3")
    tasks = [stack.add_task(f"one task {number}") for number in range(5)]
    run = stack.start_run_since(started, "one task", dag_id="one_task")
    assert stack.wait_for_run("one_task", run) == "success"

    posts = Counter(stack.received_ids("one_task"))
    assert posts == {task["TASK_ID"]: 1 + (task is tasks[3]) for task in tasks}
    assert len({kept["headers"]["webhook-id"] for kept in stack.received("one_task")}) == 5
    report = stack.xcom("one_task", run, "flow")
    assert (report["total"], report["delivered"], report["attempts"]) == (5, 5, 6)
    task = stack.tasks("one_task", run)["flow"]
    assert task["try_number"] == 2
    assert set(task["rendered_fields"]) == {"window"}
    logs = "".join(stack.log("one_task", run, "flow", number) for number in (1, 2))
    assert "4 of 5 payloads delivered" in logs
    assert CANARY not in logs + json.dumps(task)

    stack.clear("one_task", run, "flow")
    assert stack.wait_for_run("one_task", run) == "success"
    assert len(stack.received("one_task")) == 6
