"""The window of a run, depending on how it was started, on a real Airflow."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

import pytest

from airflow_insightly_hooks.demo.airflow_stack import wait_for
from tests.e2e.conftest import API_KEY, CANARY, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def organisation(stack: Stack, created: datetime | None = None, city: str = "Rome") -> int:
    times = {"DATE_CREATED_UTC": created.strftime("%Y-%m-%d %H:%M:%S")} if created else {}
    record = {"ORGANISATION_NAME": CANARY, "ADDRESS_BILLING_CITY": city, **times}
    made: int = stack.put_record("Organisations", record)["ORGANISATION_ID"]
    return made


def run(stack: Stack, dag_id: str) -> str:
    run_id = stack.start_run(dag_id)
    assert stack.wait_for_run(dag_id, run_id) == "success"
    return run_id


def ids(changes: list[dict[str, Any]]) -> list[int]:
    return [change["record_id"] for change in changes]


def of_map_index(stack: Stack, run_id: str, map_index: int) -> list[int]:
    path = f"/dags/cities/dagRuns/{quote(run_id)}/taskInstances/of_city.detect/xcomEntries/return_value"
    return ids(stack.airflow.api(f"{path}?map_index={map_index}&deserialize=true")["value"])


def test_a_backfill_of_a_plain_cron_line_reads_the_past(stack: Stack) -> None:
    """Each run reads from the schedule's previous time, although Airflow gives it no interval."""
    base = datetime(2024, 3, 5, 10, tzinfo=timezone.utc)
    minutes = (-61, -60, -1, 0, 59, 60)
    made = {organisation(stack, base + timedelta(minutes=minute)): minute for minute in minutes}
    dates = ("--from-date", base.isoformat(), "--to-date", (base + timedelta(hours=1)).isoformat())
    stack.unpause("plain_cron")
    stack.airflow.cli("backfill", "create", "--dag-id", "plain_cron", *dates)

    def ended() -> list[dict[str, Any]]:
        path = "/dags/plain_cron/dagRuns?state=success&state=failed&order_by=logical_date"
        runs: list[dict[str, Any]] = stack.airflow.api(path)["dag_runs"]
        return runs if len(runs) == 2 else []

    runs = wait_for("the backfill's two runs", ended, 240)
    assert {run["state"] for run in runs} == {"success"}
    assert {run["data_interval_start"] == run["data_interval_end"] for run in runs} == {True}
    found = [stack.xcom("plain_cron", run["dag_run_id"], "detect") for run in runs]
    assert [sorted(made[i] for i in ids(changes)) for changes in found] == [[-60, -1], [0, 59]]


@pytest.mark.scale
def test_airflow_tasks_test_takes_nothing(stack: Stack) -> None:
    """It shows the changes that the next run still finds. Before a DAG's first run it stores no window."""
    stack.pause("tested")  # else the scheduler may start the task first
    stack.airflow.cli("tasks", "test", "tested", "detect")
    first = stack.xcom("tested", run(stack, "tested"), "detect", "window")
    time.sleep(2)
    made = organisation(stack)
    time.sleep(2)
    stack.pause("tested")
    shown = stack.airflow.cli("tasks", "test", "tested", "detect")
    assert "1 added" in shown, shown
    assert "This run is a test and takes no window" in shown
    second = run(stack, "tested")
    assert ids(stack.xcom("tested", second, "detect")) == [made]
    assert stack.xcom("tested", second, "detect", "window")["start"] == first["end"]


@pytest.mark.on_sqlite
def test_each_map_index_of_a_task_group_has_a_cursor(stack: Stack) -> None:
    """Each index has a cursor by its own name, so each city's records are found by its own task."""
    run(stack, "cities")
    time.sleep(2)
    made = [organisation(stack, city=city) for city in ("Berlin", "Paris")]
    time.sleep(2)
    second = run(stack, "cities")
    assert [of_map_index(stack, second, index) for index in (0, 1)] == [[made[0]], [made[1]]]


def test_a_first_run_that_was_marked_by_hand_is_no_run_before(stack: Stack) -> None:
    """It never took a window, so no cursor is lost."""
    run_id = stack.start_run("marked")
    assert stack.wait_for_run("marked", run_id) == "failed"  # its connection is not there yet
    path = f"/dags/marked/dagRuns/{quote(run_id)}/taskInstances/detect"
    stack.airflow.api(path, "PATCH", {"new_state": "success"})
    stack.airflow.api(
        "/connections",
        "POST",
        {
            "connection_id": "insightly_later",
            "conn_type": "insightly",
            "host": f"{stack.sandbox}/v3.1",
            "password": API_KEY,
            "extra": json.dumps({}),
        },
    )
    second = run(stack, "marked")  # it would fail for a lost cursor
    assert stack.xcom("marked", second, "detect", "window")
