"""The time from one of Insightly's webhooks to the task that it triggers, on a real Airflow, by step.

A webhook is POSTed every 10 to 13 seconds, just after a record has changed. For each step, the benchmark
shows the median and the longest time since the POST: until its answer, until the run exists, until its first
task is queued, until this task starts, and until it has read the change. The last step includes ``settle``, 5
s. The task isn't deferrable, because for a deferrable task, Airflow doesn't keep the time at which it was
first queued.

Usage: python benchmarks/incoming_latency.py [count] [postgresql] [AIRFLOW__SECTION__OPTION=value …]
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import requests

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

from postgresql import temporary_database

from airflow_insightly_hooks.core.payload import build_body
from airflow_insightly_hooks.demo.airflow_stack import AirflowStack, step, wait_for
from airflow_insightly_hooks.sandbox.server import RunningSandbox, running_sandbox

COUNT = 20
DAG = """
from airflow.sdk import DAG
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor
from airflow_insightly_hooks.triggers.record_change import changes_schedule

with DAG("woken", schedule=changes_schedule("Tasks", "woken/detect", push=True), max_active_runs=1):
    InsightlyRecordChangeSensor(task_id="detect", record_type="Tasks", deferrable=False)
"""
CREDENTIALS = ("insightly", "insightly-password")
CALM = 8.0
DEFAULTS = {
    # Airflow's own; the stack's are those of a demo.
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "300",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
}
STEPS = ("the POST's answer", "the run", "its task is queued", "its task starts", "it has read the change")


class Webhook(NamedTuple):
    """A webhook that was POSTed: its record, its time, and the time of its answer."""

    record_id: int
    posted_at: datetime
    answered_at: datetime


def post_all(airflow: AirflowStack, sandbox: RunningSandbox, count: int) -> list[Webhook]:
    """Change records, and send Airflow a webhook for each. A run ends before the next change."""
    sent = []
    with requests.Session() as session:
        session.trust_env = False
        session.auth = CREDENTIALS
        for _ in range(count):
            time.sleep(random.uniform(10, 13))
            record = sandbox.create("Tasks", TITLE="changed")
            body = build_body(record, record_type="Tasks")
            posted_at = datetime.now(timezone.utc)
            headers = {"Content-Type": "application/json"}
            url = f"{airflow.url}/insightly/hooks/insightly_incoming"
            session.post(url, data=body, headers=headers, timeout=60).raise_for_status()
            sent.append(Webhook(record["TASK_ID"], posted_at, datetime.now(timezone.utc)))
    return sent


def show(airflow: AirflowStack, sent: list[Webhook]) -> None:
    """Print the time of each step since the beginning of the POST."""
    seen: dict[int, list[datetime]] = {}

    def all_read() -> bool:
        seen.update(_read(airflow))
        return all(webhook.record_id in seen for webhook in sent)

    wait_for("all changes", all_read, 120, 5)
    times = [
        [(at - webhook.posted_at).total_seconds() for at in (webhook.answered_at, *seen[webhook.record_id])]
        for webhook in sent
    ]
    print(f"{len(sent)} webhooks, {len({tuple(seen[webhook.record_id]) for webhook in sent})} runs:")
    for name, seconds in zip(STEPS, zip(*times, strict=True), strict=True):
        print(f"  {name:<24} median {statistics.median(seconds):6.2f} s, worst {max(seconds):6.2f} s")


def _read(airflow: AirflowStack) -> dict[int, list[datetime]]:
    """Return the times of the run that has read each record."""
    found: dict[int, list[datetime]] = {}
    for run in _runs(airflow):
        if run["state"] != "success":
            continue
        path = f"/dags/woken/dagRuns/{quote(run['dag_run_id'])}/taskInstances/detect"
        entries = airflow.api(f"{path}/xcomEntries")["xcom_entries"]
        if any(entry["key"] == "return_value" for entry in entries):
            task = airflow.api(path)
            texts = (run["queued_at"], task["queued_when"], task["start_date"], task["end_date"])
            times = [datetime.fromisoformat(text.replace("Z", "+00:00")) for text in texts]
            value = airflow.api(f"{path}/xcomEntries/return_value?deserialize=true")["value"]
            found.update({change["record_id"]: times for change in value})
    return found


def _runs(airflow: AirflowStack) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = airflow.api("/dags/woken/dagRuns?limit=500")["dag_runs"]
    return runs


def _wait_until_calm(airflow: AirflowStack) -> None:
    """Wait until the DAG has begun, and no run is active."""
    seen, since = None, time.monotonic()

    def is_calm() -> bool:
        nonlocal seen, since
        state = [(run["dag_run_id"], run["state"]) for run in _runs(airflow)]
        if state != seen:
            seen, since = state, time.monotonic()
        return bool(state) and time.monotonic() - since >= CALM

    wait_for("a DAG that has begun", is_calm, 240)


def main() -> None:
    arguments = sys.argv[1:]
    settings = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    count = next((int(argument) for argument in arguments if argument.isdigit()), COUNT)
    database = temporary_database() if "postgresql" in arguments else nullcontext(None)
    with running_sandbox() as sandbox, tempfile.TemporaryDirectory() as folder, database as address:
        dags = Path(folder, "dags")
        dags.mkdir()
        (dags / "woken.py").write_text(DAG)
        login, password = CREDENTIALS
        connections = {
            "insightly_default": {
                "conn_type": "insightly",
                "host": sandbox.api_url,
                "password": sandbox.api_key,
            },
            "insightly_incoming": {"conn_type": "insightly_incoming", "login": login, "password": password},
        }
        airflow = AirflowStack(Path(folder, "airflow"), dags, connections, address, {**DEFAULTS, **settings})
        try:
            with step("Airflow"):
                airflow.migrate()
                airflow.start()
                airflow.wait_until_healthy()
                airflow.wait_for_dag("woken")
                airflow.unpause("woken")
            with step("the DAG's beginning"):
                _wait_until_calm(airflow)
            with step(f"{count} webhooks"):
                sent = post_all(airflow, sandbox, count)
            show(airflow, sent)
        finally:
            airflow.stop()


if __name__ == "__main__":
    main()
