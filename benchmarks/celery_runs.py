"""An Airflow with Celery workers for a benchmark: a DAG file, workers of one slot, and runs to wait for."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tools"))

from celery_stack import CeleryStack, celery_stack, reason_to_skip  # noqa: E402 — likewise

from airflow_insightly_hooks.demo.airflow_stack import StackError, step, wait_for  # noqa: E402 — behind the path to it

__all__ = ["CeleryRuns", "StackError", "celery_runs", "instant", "reason_to_skip", "step"]

SETTINGS = {
    "PYTHONPATH": str(ROOT),
    # All tasks are queued at once, so the last ones wait for minutes. This must not fail them.
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "3600",
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "3600",
}
LONGEST = 3600.0
"""How many seconds a run may take."""


class CeleryRuns:
    """Workers and runs of one Airflow.

    :ivar stack: the Airflow.
    :ivar workers: the names of the workers that were started.
    """

    def __init__(self, stack: CeleryStack) -> None:
        self.stack = stack
        self.workers: list[str] = []

    def start_workers(self, number: int) -> None:
        """Start workers with one slot until there are ``number`` of them, and wait until they take tasks."""
        while len(self.workers) < number:
            self.workers.append(f"worker{len(self.workers)}")
            self.stack.start_worker(self.workers[-1], slots=1)
        for name in self.workers:
            self.stack.wait_for_worker(name)

    def run(self, dag_id: str, runs: int = 1, **conf: Any) -> list[dict[str, Any]]:
        """Start runs of a DAG at once, wait until they have ended, and return their task instances.

        :raises StackError: if one of them fails.
        """
        path = f"/dags/{dag_id}/dagRuns"
        body = {"logical_date": None, "conf": conf}
        started = [self.stack.api(path, "POST", body)["dag_run_id"] for _ in range(runs)]
        found: list[dict[str, Any]] = []
        for run_id in started:
            of_run = f"{path}/{quote(run_id)}"

            def ended(of_run: str = of_run) -> str | None:
                self.stack.processes.check()
                state = str(self.stack.api(of_run)["state"])
                return state if state in ("success", "failed") else None

            if (state := wait_for(f"the end of {run_id}", ended, LONGEST, interval=1)) != "success":
                raise StackError(f"{dag_id} {run_id}: {state}")
            found += self.stack.api(f"{of_run}/taskInstances?limit=500")["task_instances"]
        return found

    def xcom(self, task: Mapping[str, Any]) -> Any:
        """Return what a task instance has returned."""
        of_run = f"/dags/{task['dag_id']}/dagRuns/{quote(task['dag_run_id'])}"
        entry = f"{of_run}/taskInstances/{task['task_id']}/xcomEntries/return_value"
        return self.stack.api(f"{entry}?map_index={task['map_index']}&deserialize=true")["value"]


@contextlib.contextmanager
def celery_runs(
    dag_file: str, dag_ids: list[str], connections: Mapping[str, Mapping[str, Any] | str]
) -> Iterator[CeleryRuns]:
    """Run an Airflow on PostgreSQL with the DAGs, without workers yet. Commits wait for the disk."""
    with tempfile.TemporaryDirectory() as folder:
        dags = Path(folder) / "dags"
        dags.mkdir()
        (dags / "benchmark.py").write_text(dag_file)
        home = Path(folder) / "airflow"
        with celery_stack(home, dags, connections, SETTINGS, is_durable=True) as stack:
            stack.start()
            stack.wait_until_healthy()
            for dag_id in dag_ids:
                stack.wait_for_dag(dag_id)
                stack.unpause(dag_id)
            yield CeleryRuns(stack)


def instant(text: str) -> float:
    """Return the seconds since 1970 of a time as Airflow's API writes it."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
