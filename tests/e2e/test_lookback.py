"""Changes that become visible late, on a real Airflow."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta, timezone

import pytest
import requests

from tests.e2e.conftest import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

DAGS = ("late", "late_in_one_task")


@pytest.mark.scale
def test_a_late_import_is_delivered_once(stack: Stack, started: datetime) -> None:
    """Its records have times that were read before. The next run delivers each once, and again if cleared."""

    def run_both() -> dict[str, str]:
        runs = {dag_id: stack.start_run(dag_id) for dag_id in DAGS}
        for dag_id, run in runs.items():
            assert stack.wait_for_run(dag_id, run) == "success"
        return runs

    at = started - timedelta(minutes=5)
    made: list[int] = []
    runs = []
    for number in range(3):
        if number == 1:
            text = at.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
            times = {"DATE_CREATED_UTC": text, "DATE_UPDATED_UTC": text}
            answer = requests.post(
                f"{stack.sandbox}/_sandbox/records/Milestones?answer=ids",
                json=[{"TITLE": f"e2e late {n}", **times} for n in range(20)],
                timeout=10,
            )
            made = answer.json()
        runs.append(run_both())
    for dag_id in DAGS:
        assert Counter(stack.received_ids(dag_id, "MILESTONE_ID")) == dict.fromkeys(made, 1)
    changes = stack.xcom("late", runs[1]["late"], "detect")
    assert [(c["record_id"], c["event"]) for c in changes] == [(i, "added") for i in made]
    assert {c["changed_at"] for c in changes} == {at.strftime("%Y-%m-%dT%H:%M:%SZ")}

    stack.clear("late", runs[1]["late"], "detect")
    assert stack.wait_for_run("late", runs[1]["late"]) == "success"
    assert stack.xcom("late", runs[1]["late"], "detect") == changes
