"""How many requests to Insightly a backfill of a month of hourly windows takes.

The real detect task runs for each of the 720 windows against the sandbox with 50,000 records by default.
Eight tasks run at a time and in order, as ``airflow backfill create`` starts them. The asset's state and the
XComs are in this process, so the figures don't include Airflow's own time. Each window is checked to have
exactly its changes.

"Naive" means that each window is read separately, up to now. The sum is computed from how many records were
updated since the start of each window. Three windows are really read in this way, to check the computed
numbers.

Usage: python benchmarks/backfill.py [records]
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import requests

from airflow_insightly_hooks.core.detection.scan import OVERLAP
from airflow_insightly_hooks.sandbox.server import RunningSandbox, running_sandbox

START = datetime(2024, 5, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
WINDOWS = 30 * 24
PARALLEL = 8
PAGE = 500


class Store:
    """The state of the asset or of a task: texts, as in Airflow."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.calls = self.largest = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.calls += 1
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any) -> None:
        self.calls += 1
        self.values[key] = json.dumps(value)
        self.largest = max(self.largest, len(self.values[key]))

    def delete(self, key: str) -> None:
        self.calls += 1
        self.values.pop(key, None)


class Airflow:
    """The parts of Airflow that the runs of the detect task share."""

    def __init__(self) -> None:
        self.state = Store()
        self.xcoms: dict[tuple[str, str], str] = {}
        self.pushed = Counter[str]()

    def context(self, hour: int, run_type: str = "backfill") -> dict[str, Any]:
        run_id = f"{run_type}__{hour}"

        def push(key: str, value: Any) -> None:
            self.xcoms[run_id, key] = text = json.dumps(value)
            if key.startswith("nearby_"):
                self.pushed.update({"slices": 1, "bytes": len(text)})

        def pull(*, run_id: str, key: str, **_: Any) -> Any:
            text = self.xcoms.get((run_id, key))
            return None if text is None else json.loads(text)

        ti = SimpleNamespace(
            dag_id="dag",
            task_id="detect",
            run_id=run_id,
            map_index=-1,
            max_tries=0,
            xcom_push=push,
            xcom_pull=pull,
        )
        state = self.state
        return {
            "ti": ti,
            "dag_run": SimpleNamespace(run_type=run_type, clear_number=0),
            "task_state_store": Store(),
            "asset_state_store": type("Stores", (), {"__getitem__": lambda *_: state})(),
            "data_interval_start": START + hour * HOUR,
            "data_interval_end": START + (hour + 1) * HOUR,
        }


def make_records(sandbox: RunningSandbox, number: int) -> list[tuple[datetime, datetime]]:
    """Make contacts that were updated within the month, half of them also created. Return the times."""
    random = Random(1)
    times = []
    for _ in range(number):
        updated = START + timedelta(seconds=random.randrange(WINDOWS * 3600))
        created = START + (updated - START) * random.random() if random.random() < 0.5 else START - 99 * HOUR
        times.append((created.replace(microsecond=0), updated))
    names = ("DATE_CREATED_UTC", "DATE_UPDATED_UTC")
    for first in range(0, number, 1_000):
        body = [
            {"FIRST_NAME": "x" * 20, "LAST_NAME": "y" * 20}
            | {name: moment.strftime("%Y-%m-%d %H:%M:%S") for name, moment in zip(names, pair, strict=True)}
            for pair in times[first : first + 1_000]
        ]
        url = f"{sandbox.url}/_sandbox/records/Contacts"
        requests.post(url, json=body, timeout=60).raise_for_status()
    return times


def detect(context: dict[str, Any]) -> list[Any]:
    from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor

    sensor = InsightlyRecordChangeSensor(task_id="detect", record_type="Contacts", on_empty="succeed")
    found: list[Any] = sensor.execute(context)
    return found


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Print nothing: each run logs a few lines."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def asked(sandbox: RunningSandbox) -> int:
    return sum(number for path, number in sandbox.configure()["requests"].items() if " /v3.1/" in path)


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    with tempfile.TemporaryDirectory() as home, running_sandbox() as sandbox:
        os.environ["AIRFLOW_HOME"] = home
        connection = {"conn_type": "insightly", "host": sandbox.api_url, "password": "sandbox-key"}
        os.environ["AIRFLOW_CONN_INSIGHTLY_DEFAULT"] = json.dumps(
            {**connection, "extra": {"requests_per_second": 10_000}}
        )
        sandbox.configure(requests_per_second=100_000, requests_per_day=10_000_000)
        measure(sandbox, make_records(sandbox, number))


def measure(sandbox: RunningSandbox, times: list[tuple[datetime, datetime]]) -> None:
    from airflow.sdk.bases.operator import ExecutorSafeguard
    from airflow.sdk.execution_time.xcom import XCom

    ExecutorSafeguard.test_mode = True
    expected = Counter((created - START) // HOUR for created, _ in times if created >= START)
    for created, updated in times:
        if (hour := (updated - START) // HOUR) != (created - START) // HOUR:
            expected[hour] += 1

    seeded = sandbox.configure()["records"]["Contacts"] - len(times)
    since = [sum(updated >= START + hour * HOUR for _, updated in times) + seeded for hour in range(WINDOWS)]
    naive = [1 if n < PAGE else (n - PAGE) // (PAGE - OVERLAP) + 2 for n in since]
    for hour in (0, WINDOWS // 2, WINDOWS - 1):
        before = asked(sandbox)
        with silence():
            detect(Airflow().context(hour, "manual"))
        assert asked(sandbox) - before == naive[hour], (hour, asked(sandbox) - before, naive[hour])

    airflow = Airflow()
    XCom.delete = lambda *, run_id, key, **_: airflow.xcoms.pop((run_id, key), None)
    before, started = asked(sandbox), time.monotonic()
    with silence(), ThreadPoolExecutor(PARALLEL) as pool:
        found = list(pool.map(lambda hour: len(detect(airflow.context(hour))), range(WINDOWS)))
    spent = asked(sandbox) - before
    assert found == [expected[hour] for hour in range(WINDOWS)]
    print(f"{len(times):,} records, {sum(found):,} changes in {WINDOWS} windows, each in exactly its own")
    print(f"requests, naive:  {sum(naive):,}")
    print(f"requests, shared: {spent:,}")
    print(f"{time.monotonic() - started:.0f} s; {airflow.state.calls:,} calls of the asset's state", end="; ")
    print(f"its largest value: {airflow.state.largest:,} bytes")
    print(
        f"XComs besides the runs' own: {airflow.pushed['slices']}, {airflow.pushed['bytes']:,} bytes",
        end="; ",
    )
    kept = sum(len(text) for (_, key), text in airflow.xcoms.items() if key.startswith("nearby_"))
    print(f"left at the end: {kept:,} bytes")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"peak memory of all of this, the sandbox included: {peak} MB")


if __name__ == "__main__":
    main()
