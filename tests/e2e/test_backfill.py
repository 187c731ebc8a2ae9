"""Backfills of many windows, side by side, on a real Airflow."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta, timezone
from random import Random
from typing import Any

import pytest
import requests

from airflow_insightly_hooks.demo.airflow_stack import wait_for
from tests.e2e.conftest import CANARY, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

START = datetime(2024, 6, 3, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
WINDOWS = 24
RECORDS = 1_000
SEARCH = "GET /v3.1/Events/Search"


@pytest.mark.scale
def test_a_backfill_reads_once_for_all_its_windows(stack: Stack) -> None:
    """A day of hourly windows, four at a time: each window has exactly its changes, for a few scans."""
    expected = _put_events(stack)
    before = _searches(stack)
    dates = ("--from-date", START.isoformat(), "--to-date", (START + (WINDOWS - 1) * HOUR).isoformat())
    stack.unpause("backfilled")
    stack.airflow.cli("backfill", "create", "--dag-id", "backfilled", *dates, "--max-active-runs", "4")

    def ended() -> list[dict[str, Any]]:
        path = "/dags/backfilled/dagRuns?state=success&state=failed&limit=100&order_by=logical_date"
        runs: list[dict[str, Any]] = stack.airflow.api(path)["dag_runs"]
        return runs if len(runs) == WINDOWS else []

    runs = wait_for("the backfill's runs", ended, 480, interval=2)
    searches = _searches(stack) - before
    assert {run["state"] for run in runs} == {"success"}
    found = [stack.xcom("backfilled", run["dag_run_id"], "detect") for run in runs]
    events = [sorted((change["record_id"], change["event"]) for change in changes) for changes in found]
    assert events == [sorted(expected[hour]) for hour in range(WINDOWS)]

    # By itself each run would ask for one to three pages, and an empty one.
    naive = sum(_pages_since(expected, hour) for hour in range(WINDOWS))
    print(f"searches: {searches}, each run by itself: {naive}")  # noqa: T201 — a figure to give
    assert searches < naive / 4
    logs = [stack.log("backfilled", run["dag_run_id"], "detect") for run in runs]
    assert not any("can't share" in log for log in logs)
    assert sum("has read this window" in log for log in logs) > WINDOWS / 2
    assert all("were updated after it" in log for log in logs[:-3])

    # Who clears a run wants it read anew.
    before = _searches(stack)
    run = runs[WINDOWS // 2]["dag_run_id"]
    stack.clear("backfilled", run, "detect")
    wait_for("its second try", lambda: stack.tasks("backfilled", run)["detect"]["try_number"] == 2, 240)
    assert stack.wait_for_run("backfilled", run) == "success"
    assert _searches(stack) > before
    again = stack.xcom("backfilled", run, "detect")
    assert sorted((change["record_id"], change["event"]) for change in again) == events[WINDOWS // 2]


def _put_events(stack: Stack) -> dict[int, list[tuple[int, str]]]:
    """Put events into the CRM, and return the ids to be found in each hour."""
    random = Random(1)
    times = []
    for _ in range(RECORDS):
        updated = START + timedelta(seconds=random.randrange(WINDOWS * 3600))
        created = START + timedelta(seconds=int((updated - START).total_seconds() * random.random()))
        times.append((created if random.random() < 0.5 else START - HOUR, updated))
    body = [
        {
            "TITLE": CANARY,
            "DATE_CREATED_UTC": created.strftime("%Y-%m-%d %H:%M:%S"),
            "DATE_UPDATED_UTC": updated.strftime("%Y-%m-%d %H:%M:%S"),
        }
        for created, updated in times
    ]
    answer = requests.post(f"{stack.sandbox}/_sandbox/records/Events", json=body, timeout=60)
    answer.raise_for_status()
    expected = defaultdict(list)
    for record, (created, updated) in zip(answer.json(), times, strict=True):
        hours = (created - START) // HOUR, (updated - START) // HOUR
        expected[hours[0]].append((record["EVENT_ID"], "added"))
        if hours[0] != hours[1]:
            expected[hours[1]].append((record["EVENT_ID"], "updated"))
    return expected


def _searches(stack: Stack) -> int:
    return requests.get(f"{stack.sandbox}/_sandbox", timeout=10).json()["requests"].get(SEARCH, 0)


def _pages_since(expected: dict[int, list[tuple[int, str]]], hour: int) -> int:
    """Return the number of searches that read all events which changed in an hour or later."""
    ids = {record_id for later in range(hour, WINDOWS) for record_id, _ in expected[later]}
    return -(-len(ids) // 500) + 1
