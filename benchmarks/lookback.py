"""The cost of a lookback: the requests, time and state of a run, by the number of changes a second.

``python benchmarks/lookback.py [seconds between runs]``
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from airflow.sdk.exceptions import AirflowSkipException

from airflow_insightly_hooks.hooks.assets import records_asset
from airflow_insightly_hooks.sandbox.server import running_sandbox
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor
from tests.conftest import TaskInstance, run_context

CHANGES_A_SECOND = (0.1, 1, 10)
EVERY = 60
LOOKBACK = 900
IMPORT = 100_000
ASSET = records_asset("insightly_default", "Contacts")


def text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def measured(sandbox, moments: list[datetime], start: datetime, every: int, lookback: int) -> tuple:
    """Return the requests, seconds and bytes of state of a run, the second one after these changes."""
    sandbox.reset()
    sandbox.configure(requests_per_second=100_000)
    context = run_context()
    context["asset_state_store"][ASSET].set("cursor/dag/task", text(start - timedelta(seconds=every)))
    sensor = InsightlyRecordChangeSensor(task_id="task", record_type="Contacts", lookback=lookback)
    for number in range(2):
        clock = start + timedelta(seconds=number * every + 6)
        sandbox.configure(clock_offset=(clock - datetime.now(timezone.utc)).total_seconds())
        begin = clock - timedelta(seconds=every if number else 10 * LOOKBACK)
        new = [at for at in moments if begin <= at < clock]
        sandbox.create_many(
            "Contacts", [{"DATE_CREATED_UTC": text(at), "DATE_UPDATED_UTC": text(at)} for at in new]
        )
        before = sum(sandbox.configure()["requests"].values())
        context = run_context(
            ti=TaskInstance(run_id=f"run{number}"), asset_state_store=context["asset_state_store"]
        )
        began = time.perf_counter()
        with suppress(AirflowSkipException):
            sensor.execute(context)
        seconds = time.perf_counter() - began
    requests = sum(n for path, n in sandbox.configure()["requests"].items()) - before
    state = context["asset_state_store"][ASSET].values
    seen = [len(value) for key, value in state.items() if "~" in key]
    return requests, seconds, len(seen), sum(seen)


def main(every: int = EVERY) -> None:
    """Print what a run costs."""
    start = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=400)
    chosen = random.Random(1)
    with running_sandbox() as sandbox:
        os.environ["AIRFLOW_CONN_INSIGHTLY_DEFAULT"] = json.dumps(
            {
                "conn_type": "insightly",
                "host": sandbox.api_url,
                "login": "sandbox-key",
                "extra": {"requests_per_second": 10_000},
            }
        )
        cases = []
        for rate in CHANGES_A_SECOND:
            span = LOOKBACK + 3 * every
            moments = [
                start + timedelta(seconds=chosen.uniform(-span, every + 5)) for _ in range(int(span * rate))
            ]
            cases.append((f"{rate} changes a second", moments))
        cases.append((f"an import of {IMPORT}", [start - timedelta(seconds=300)] * IMPORT))
        for name, moments in cases:
            for lookback in (0, LOOKBACK):
                requests, seconds, keys, size = measured(sandbox, moments, start, every, lookback)
                print(
                    f"{name}, a run every {every} s, lookback {lookback} s: {requests} requests, "
                    f"{seconds:.2f} s, {keys} values of state with {size} bytes"
                )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
