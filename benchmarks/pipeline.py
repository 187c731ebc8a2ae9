"""The time and peak memory of the four tasks, for 1,000 changes by default.

Each task runs in its own process against the sandbox, as in Airflow. The figures don't include the time of
Airflow itself, a second or two for each task. Memory is the process's peak, and the difference to its peak at
the end of the imports. (Memory of a task below that earlier peak doesn't show.)

Usage: python benchmarks/pipeline.py [changes]
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import requests

from airflow_insightly_hooks.sandbox.server import running_sandbox

KEY = ("sandbox-key", "")


class Store(dict):
    """A state store in memory."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value


class TaskInstance:
    """The part of a task instance that the operators use."""

    dag_id = "benchmark"
    task_id = "task"
    run_id = "manual__1"
    max_tries = 2

    def xcom_push(self, key: str, value: Any) -> None:
        pass


def operator(name: str, given: Any, window: dict[str, str]) -> Any:
    from airflow_insightly_hooks.operators.criteria import EvaluateCriteriaOperator
    from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
    from airflow_insightly_hooks.operators.webhook import WebhookOperator
    from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor

    criteria = {"all": [{"field": "FIRST_NAME", "operator": "is_not_blank"}]}
    return {
        "detect": lambda: InsightlyRecordChangeSensor(
            task_id=name, record_type="Contacts", window=window, settle=0, deferrable=False
        ),
        "evaluate": lambda: EvaluateCriteriaOperator(task_id=name, changes=given, criteria=criteria),
        "build": lambda: BuildPayloadOperator(task_id=name, changes=given),
        "deliver": lambda: WebhookOperator(task_id=name, payloads=given),
    }[name]()


def run(name: str, source: Path, target: Path, window: dict[str, str], results: Any) -> None:
    given = json.loads(source.read_text()) if source.exists() else None
    task = operator(name, given, window)
    import airflow_insightly_hooks.hooks.insightly
    import airflow_insightly_hooks.hooks.webhook  # noqa: F401 — loaded before the measuring begins

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    result = task.execute({"ti": TaskInstance(), "task_state_store": Store()})
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    target.write_text(json.dumps(result))
    results.put((name, seconds, peak / 1024, (peak - before) / 1024))


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    spawn = multiprocessing.get_context("spawn")
    with running_sandbox() as sandbox, tempfile.TemporaryDirectory() as folder:
        requests.put(f"{sandbox.url}/_sandbox", json={"requests_per_second": 10_000}, timeout=10)
        start = datetime.now(timezone.utc) - timedelta(seconds=1)
        with requests.Session() as session:
            for i in range(count):
                person = {"FIRST_NAME": f"Person {i}", "LAST_NAME": "Example", "BACKGROUND": "x" * 500}
                session.post(f"{sandbox.api_url}/Contacts", json=person, auth=KEY, timeout=10)
        time.sleep(1.1)
        window = {"start": start.isoformat(), "end": datetime.now(timezone.utc).isoformat()}
        time.sleep(1.1)
        os.environ["AIRFLOW_CONN_INSIGHTLY_DEFAULT"] = json.dumps(
            {"conn_type": "insightly", "host": sandbox.api_url, "password": KEY[0]}
        )
        os.environ["AIRFLOW_CONN_WEBHOOK_DEFAULT"] = json.dumps(
            {"conn_type": "insightly_webhook", "host": f"{sandbox.url}/bin/benchmark"}
        )
        results = spawn.Queue()
        print(f"{count} changes\n{'task':10} {'seconds':>8} {'peak MB':>8} {'over imports':>12}")
        source = Path(folder) / "none"
        for name in ("detect", "evaluate", "build", "deliver"):
            target = Path(folder) / f"{name}.json"
            process = spawn.Process(target=run, args=(name, source, target, window, results))
            process.start()
            process.join()
            name, seconds, megabytes, over = results.get(timeout=1)
            print(f"{name:10} {seconds:8.2f} {megabytes:8.1f} {over:12.1f}")
            source = target
        report = json.loads(source.read_text())
        print(f"delivered {report['delivered']} of {report['total']}")


if __name__ == "__main__":
    main()
