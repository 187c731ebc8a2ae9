"""One deliver task beside mapped ``HttpOperator`` tasks, on one real Airflow with the LocalExecutor.

It measures the time from the queueing of the first task to the end of the last one, by Airflow's database.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tools"))

from postgresql import NoServerError, temporary_database  # noqa: E402 — likewise

from airflow_insightly_hooks.demo.airflow_stack import AirflowStack, wait_for  # noqa: E402 — behind the path to it

__all__ = ["Tasks", "why_not", "with_airflow"]

DAGS = """
import sys
sys.path.append({benchmarks!r})
from contestants import make_payloads
from airflow.providers.http.operators.http import HttpOperator
from airflow.sdk import DAG, task
from airflow_insightly_hooks.operators.webhook import WebhookOperator

with DAG("mapped", schedule=None, max_active_tasks=16):
    @task
    def bodies():
        return [payload["body"] for payload in make_payloads({mapped})]

    HttpOperator.partial(
        task_id="post", http_conn_id="mapped_receiver", method="POST", endpoint="hook",
        headers={{"Content-Type": "application/json"}},
    ).expand(data=bodies())

for number in {numbers}:
    with DAG(f"one_task_{{number}}", schedule=None):
        @task
        def payloads(number=number):
            return make_payloads(number)

        WebhookOperator(task_id="post", webhook_conn_id="receiver", payloads=payloads())
"""


def why_not() -> str | None:
    """Return what is missing, or ``None``."""
    if find_spec("airflow.providers.http") is None:
        return "the package apache-airflow-providers-http is missing: .venv/bin/uv pip install it"
    return None


class Tasks:
    """Runs of both kinds of tasks on the same Airflow."""

    def __init__(self, airflow: AirflowStack, mapped: int) -> None:
        self._airflow, self._mapped = airflow, mapped

    def mapped(self) -> float:
        """Return the seconds that the mapped tasks took."""
        return self._seconds("mapped", self._mapped)

    def one_task(self, payloads: int) -> float:
        """Return the seconds that a task of so many payloads took."""
        return self._seconds(f"one_task_{payloads}", 1)

    def _seconds(self, dag_id: str, tasks: int) -> float:
        run = self._airflow.api(f"/dags/{dag_id}/dagRuns", "POST", {"logical_date": None})["dag_run_id"]
        path = f"/dags/{dag_id}/dagRuns/{quote(run)}"

        def ended() -> str | None:
            self._airflow.processes.check()
            state = self._airflow.api(path)["state"]
            return state if state in ("success", "failed") else None

        state = wait_for(f"the end of {dag_id}", ended, 600, interval=0.5)
        found = self._airflow.api(f"{path}/taskInstances?limit=1000&task_id=post")["task_instances"]
        ran = [task for task in found if task["task_id"] == "post"]
        assert (state, len(ran)) == ("success", tasks), f"{dag_id}: {state}, {len(ran)} tasks"
        queued = min(datetime.fromisoformat(task["queued_when"]) for task in ran)
        return (max(datetime.fromisoformat(task["end_date"]) for task in ran) - queued).total_seconds()


@contextlib.contextmanager
def with_airflow(home: Path, url: str, mapped: int, numbers: tuple[int, ...]) -> Iterator[Tasks]:
    """Run an Airflow until the end of the block.

    :param home: an empty folder for it.
    :param url: the address of the receiver.
    :param mapped: how many mapped tasks there are.
    :param numbers: for each single task, how many payloads it sends.
    """
    dags = home / "dags"
    dags.mkdir(parents=True)
    text = DAGS.format(benchmarks=str(ROOT / "benchmarks"), mapped=mapped, numbers=numbers)
    (dags / "benchmark.py").write_text(text)
    connections: dict[str, dict[str, Any] | str] = {
        "receiver": {"conn_type": "insightly_webhook", "host": url},
        "mapped_receiver": {"conn_type": "http", "host": url.removesuffix("/hook")},
    }
    with _database() as database:
        airflow = AirflowStack(
            home,
            dags,
            connections,
            database,
            {"AIRFLOW__CORE__PARALLELISM": "32", "PYTHONPATH": str(ROOT)},  # Airflow's own default
        )
        try:
            print(f"Airflow on {'SQLite' if database is None else 'PostgreSQL'}, LocalExecutor", flush=True)
            airflow.migrate()
            airflow.start()
            airflow.wait_until_healthy()
            for dag_id in ("mapped", *(f"one_task_{number}" for number in numbers)):
                airflow.wait_for_dag(dag_id)
                airflow.unpause(dag_id)
            yield Tasks(airflow, mapped)
        finally:
            airflow.stop()


@contextlib.contextmanager
def _database() -> Iterator[str | None]:
    """Make a database on this machine's PostgreSQL, and drop it after the block. ``None`` if none answers."""
    with contextlib.ExitStack() as cleanup:
        try:
            database = cleanup.enter_context(temporary_database())
        except NoServerError:
            database = None
        yield database
