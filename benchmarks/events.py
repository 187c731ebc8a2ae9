"""Waiting in the triggerer, on a real Airflow: how late a triggered task starts, and what many sensors cost.

``latency`` measures the time from a change to the start of the task that reads it. Record changes trigger the
DAGs (polls every 5 s, ``settle`` of 2 s).

``deferred`` measures the memory and processor time of the triggerer with sensors that wait for a change, and
poll every 60 s. Airflow's scheduler defers them itself, so starting them takes no time. ``airflows-own`` does
the same with one of Airflow's own triggers, for comparison.

``pause`` pauses one of two DAGs for some seconds while a record changes. It measures how soon after unpausing
the DAG reads the change, and how often the other DAG runs meanwhile. It does this with a watcher that both
share, and with a watcher for each.

Usage: python benchmarks/events.py latency|deferred|airflows-own|pause [count] [postgresql]
"""

from __future__ import annotations

import os
import random
import re
import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

from postgresql import temporary_database

from airflow_insightly_hooks.demo.airflow_stack import AirflowStack, step, wait_for
from airflow_insightly_hooks.sandbox.server import RunningSandbox, running_sandbox

COUNTS = {"latency": 50, "deferred": 500, "airflows-own": 500, "pause": 85}
MEASURED = 60.0
ENOUGH = {"requests_per_second": 1000, "requests_per_day": 10**9}
_BLOCKED = re.compile(r"was blocked for ([\d.]+) seconds")
TICKS = os.sysconf("SC_CLK_TCK")

LATENCY = """
from airflow.sdk import DAG
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor
from airflow_insightly_hooks.triggers.record_change import changes_asset

with DAG("woken", schedule=[changes_asset("Tasks", poll_interval=5, settle=2)], max_active_runs=1):
    InsightlyRecordChangeSensor(task_id="detect", record_type="Tasks", settle=2, deferrable=True)
"""

PAUSE = """
from airflow.sdk import DAG
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor
from airflow_insightly_hooks.triggers.record_change import changes_asset, changes_schedule

for name in ("shared_awake", "shared_paused", "own_awake", "own_paused"):
    record_type = "Tasks" if name.startswith("shared") else "Contacts"
    if name.startswith("shared"):
        schedule = [changes_asset(record_type, poll_interval=5, settle=2)]
    else:
        schedule = changes_schedule(record_type, f"{name}/detect", poll_interval=5, settle=2)
    with DAG(name, schedule=schedule, max_active_runs=1):
        InsightlyRecordChangeSensor(task_id="detect", record_type=record_type, settle=2, deferrable=True)
"""

DEFERRED = """
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import DAG, timezone
from airflow.triggers.base import StartTriggerArgs
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor
from airflow_insightly_hooks.triggers.record_change import InsightlyRecordChangeTrigger

class Deferred(InsightlyRecordChangeSensor):
    start_from_trigger = True

    def __init__(self, **arguments):
        super().__init__(**arguments)
        if {is_ours}:
            trigger = InsightlyRecordChangeTrigger(
                insightly_conn_id="insightly_default", record_type="Tasks", events=["added"], settle=5.0,
                look_at="{now}", until="2100-01-01T00:00:00Z", open_since="{now}", poll_interval=60.0,
            )
        else:
            trigger = DateTimeTrigger(moment=timezone.datetime(2100, 1, 1))
        path, kwargs = trigger.serialize()
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=path, trigger_kwargs=kwargs, next_method="execute_complete",
            next_kwargs={{"until": "2100-01-01T00:00:00Z"}}, timeout=None,
        )

with DAG("deferred", schedule=None, max_active_runs=10_000):
    Deferred(task_id="wait", record_type="Tasks", on_empty="wait", deferrable=True)
"""


def latency(airflow: AirflowStack, sandbox: RunningSandbox, count: int) -> None:
    """Print the median and the worst time from a change to its task's start."""
    with step("first run"):
        wait_for("the first run", lambda: _ended(airflow, "woken"), 120)
    changed = {}
    with step(f"{count} changes"):
        for _ in range(count):
            time.sleep(random.uniform(6, 10))
            at = datetime.now(timezone.utc)
            changed[sandbox.create("Tasks", TITLE="changed")["TASK_ID"]] = at
    started: dict[int, datetime] = {}

    def all_read() -> bool:
        for run in _ended(airflow, "woken"):
            path = f"/dags/woken/dagRuns/{quote(run['dag_run_id'])}/taskInstances/detect"
            entries = airflow.api(f"{path}/xcomEntries")["xcom_entries"]
            if any(entry["key"] == "return_value" for entry in entries):
                at = datetime.fromisoformat(airflow.api(path)["start_date"].replace("Z", "+00:00"))
                found = airflow.api(f"{path}/xcomEntries/return_value?deserialize=true")["value"]
                started.update({change["record_id"]: at for change in found})
        return set(changed) <= set(started)

    wait_for("all changes", all_read, 120, 5)
    seconds = sorted((started[record] - at).total_seconds() for record, at in changed.items())
    print(f"{count} changes: median {statistics.median(seconds):.1f} s, worst {seconds[-1]:.1f} s")


def pause(airflow: AirflowStack, sandbox: RunningSandbox, count: int) -> None:
    """Print how soon a DAG that was paused for so many seconds reads the changes that it missed."""
    names = ("shared_awake", "shared_paused", "own_awake", "own_paused")
    for name in names:
        airflow.wait_for_dag(name)
        airflow.unpause(name)
    for name in names:
        wait_for(f"the first run of {name}", lambda n=name: _ended(airflow, n), 120)
    time.sleep(30)
    for kind, record_type in (("shared", "Tasks"), ("own", "Contacts")):
        airflow.api(f"/dags/{kind}_paused", "PATCH", {"is_paused": True})
        time.sleep(2)
        runs = len(_ended(airflow, f"{kind}_awake"))
        made = sandbox.create(record_type, **{"TITLE" if kind == "shared" else "FIRST_NAME": "changed"})
        record = next(iter(made.values()))
        time.sleep(count)
        woken = len(_ended(airflow, f"{kind}_awake")) - runs
        airflow.unpause(f"{kind}_paused")
        began = time.monotonic()
        wait_for("the record", lambda k=kind, r=record: r in _found(airflow, f"{k}_paused"), 3600, 0.5)
        seconds = time.monotonic() - began
        print(f"{kind}: read {seconds:.1f} s after unpausing; the other DAG ran {woken} times", flush=True)


def _found(airflow: AirflowStack, dag_id: str) -> set[int]:
    """Return the records that a DAG's latest runs have found."""
    found: set[int] = set()
    for run in airflow.api(f"/dags/{dag_id}/dagRuns?limit=5&order_by=-run_after")["dag_runs"]:
        path = f"/dags/{dag_id}/dagRuns/{quote(run['dag_run_id'])}/taskInstances/detect/xcomEntries"
        if any(entry["key"] == "return_value" for entry in airflow.api(path)["xcom_entries"]):
            value = airflow.api(f"{path}/return_value?deserialize=true")["value"]
            found.update(change["record_id"] for change in value)
    return found


def _ended(airflow: AirflowStack, dag_id: str) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = []
    while True:
        path = f"/dags/{dag_id}/dagRuns?state=success&limit=100&offset={len(runs)}"
        page = airflow.api(path)["dag_runs"]
        runs += page
        if len(page) < 100:
            return runs


def deferred(airflow: AirflowStack, sandbox: RunningSandbox, count: int) -> None:
    """Print the triggerer's memory and processor time without sensors, and with so many that wait."""
    _measure(airflow, sandbox, 0)
    with step(f"{count} sensors"):
        # Each sensor has its own run. The triggerer loads the whole DAG of a task that the scheduler defers.
        for _ in range(count):
            airflow.api("/dags/deferred/dagRuns", "POST", {"logical_date": None})
        path = "/dags/deferred/dagRuns/~/taskInstances?state=deferred&limit=1"
        wait_for("the sensors", lambda: airflow.api(path)["total_entries"] == count, 600, 2)
        time.sleep(15)  # until the triggerer has them all
    _measure(airflow, sandbox, count)


def _measure(airflow: AirflowStack, sandbox: RunningSandbox, count: int) -> None:
    asked, before = _searches(sandbox), _processor(airflow)
    time.sleep(MEASURED)
    seconds = _processor(airflow) - before
    log = (airflow.home / "triggerer.log").read_text(errors="replace")
    print(
        f"{count} sensors: {_memory(airflow):.0f} MB, {100 * seconds / MEASURED:.1f} % of a processor, "
        f"{_searches(sandbox) - asked} requests in {MEASURED:g} s; warnings of a blocked loop since the "
        f"triggerer's start: {', '.join(f'{s} s' for s in _BLOCKED.findall(log)) or 'none'}"
    )


def _searches(sandbox: RunningSandbox) -> int:
    return int(sandbox.configure()["requests"].get("GET /v3.1/Tasks/Search", 0))


def _processes(airflow: AirflowStack) -> list[Path]:
    """Return the triggerer's processes. It starts another one that runs the triggers, in our session."""
    session = str(airflow.processes.pid("triggerer"))
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if fields[3] == session:
            found.append(path)
    return found


def _processor(airflow: AirflowStack) -> float:
    """Return the triggerer's processor time in seconds."""
    stats = [(path / "stat").read_text().rpartition(")")[2].split() for path in _processes(airflow)]
    return sum(int(fields[11]) + int(fields[12]) for fields in stats) / TICKS


def _memory(airflow: AirflowStack) -> float:
    """Return the triggerer's memory in MB. Memory that its processes share is counted once."""
    rollups = [(path / "smaps_rollup").read_text().splitlines() for path in _processes(airflow)]
    return sum(int(line.split()[1]) for lines in rollups for line in lines if line[:4] == "Pss:") / 1024


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COUNTS:
        sys.exit(__doc__)
    count = int(sys.argv[2]) if len(sys.argv) > 2 else COUNTS[name]
    database = temporary_database() if sys.argv[3:] == ["postgresql"] else nullcontext(None)
    with running_sandbox() as sandbox, tempfile.TemporaryDirectory() as folder, database as address:
        dags = Path(folder, "dags")
        dags.mkdir()
        now = (datetime.now(timezone.utc) - timedelta(minutes=1)).isoformat(timespec="seconds")
        texts = {"latency": LATENCY, "pause": PAUSE}
        text = texts.get(name) or DEFERRED.format(now=now, is_ours=name == "deferred")
        (dags / "events.py").write_text(text)
        connections = {
            "insightly_default": {
                "conn_type": "insightly",
                "host": sandbox.api_url,
                "password": "sandbox-key",
            }
        }
        requests.put(f"{sandbox.url}/_sandbox", json=ENOUGH, timeout=10)
        settings = {"AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30"}  # Airflow's default
        airflow = AirflowStack(Path(folder, "airflow"), dags, connections, address, settings)
        try:
            with step("Airflow"):
                airflow.migrate()
                airflow.start()
                airflow.wait_until_healthy(240)
                if name != "pause":
                    dag_id = "woken" if name == "latency" else "deferred"
                    airflow.wait_for_dag(dag_id)
                    airflow.unpause(dag_id)
            {"latency": latency, "pause": pause}.get(name, deferred)(airflow, sandbox, count)
        finally:
            airflow.stop()


if __name__ == "__main__":
    main()
