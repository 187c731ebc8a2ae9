"""A workflow with two receivers on a real Airflow (PostgreSQL): how a dead receiver affects the good one.

A record changes every ten seconds (``schedule: {watch: 5s}``). At first, both receivers work. Then one of
them answers 503 with ``Retry-After`` until the end. The benchmark measures the time from a change to its POST
at the good receiver in both parts. It also measures the costs of the dead receiver: the most active runs and
queued tasks, rows of Airflow's database, and the assets' state. At the end, each message to the dead receiver
must have had its three attempts, and be in a report.

Usage: python benchmarks/dead_receiver.py [minutes dead] [seconds of Retry-After] [minutes well]

The defaults are 120, 3600 and 20, and take five hours. With 12, 360 and 10, a smaller version takes an hour.
"""

from __future__ import annotations

import collections
import statistics
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

from postgresql import temporary_database

from airflow_insightly_hooks.demo.airflow_stack import AirflowStack, step, wait_for
from airflow_insightly_hooks.sandbox.server import RunningSandbox, running_sandbox

EVERY = 10.0
TABLES = ("dag_run", "task_instance", "xcom", "asset_state_store", "log")
ACTIVE = ("running", "queued")
DAGS = """
from airflow_insightly_hooks import Schedule, Webhook, Workflow

Workflow(
    name="Two", record_type="Tasks", evaluate="created", schedule=Schedule(watch="5s"), settle=1,
    webhooks=[Webhook(name="good", conn_id="good"), Webhook(name="dead", conn_id="dead")],
).to_dag()
"""


class Changes:
    """Creates a record every ten seconds, and keeps the times."""

    def __init__(self, sandbox: RunningSandbox) -> None:
        self._sandbox = sandbox
        self.made: dict[int, datetime] = {}

    def make(self, minutes: float, sample: Any = lambda: None) -> list[int]:
        """Make changes for a time, and return the records."""
        ids = []
        start = time.monotonic()
        for number in range(int(minutes * 60 / EVERY)):
            time.sleep(max(0.0, start + number * EVERY - time.monotonic()))
            at = datetime.now(timezone.utc)
            ids.append(self._sandbox.create("Tasks", TITLE="made")["TASK_ID"])
            self.made[ids[-1]] = at
            sample()
        return ids

    def latencies(self, ids: list[int]) -> list[float]:
        """Return the seconds from each change to its POST at the good receiver."""
        at = {}
        for kept in self._sandbox.received("good"):
            record = int(kept["body"].split('"TASK_ID":')[1].split(",")[0].strip("}"))
            at.setdefault(record, datetime.fromisoformat(kept["received_at"].replace("Z", "+00:00")))
        return sorted((at[record] - self.made[record]).total_seconds() for record in ids)


class Load:
    """The contents of Airflow's database, and their largest numbers so far."""

    def __init__(self, address: str) -> None:
        self._engine = sqlalchemy.create_engine(address)
        self.most: collections.Counter[str] = collections.Counter()

    def sample(self) -> None:
        """Count the active runs and the waiting tasks."""
        with self._engine.connect() as connection:
            runs = connection.execute(
                sqlalchemy.text("select dag_id, state, count(*) from dag_run group by 1, 2")
            ).all()
            tasks = connection.execute(
                sqlalchemy.text("select dag_id, state, count(*) from task_instance group by 1, 2")
            ).all()
        now: collections.Counter[str] = collections.Counter()
        for dag_id, state, count in runs:
            if state in ACTIVE:
                now[f"active runs of {dag_id}"] += count
        for dag_id, state, count in tasks:
            if state in ("queued", "scheduled", "up_for_retry"):
                now[f"tasks {state} of {dag_id}"] += count
        self.most |= now

    def rows(self) -> dict[str, int]:
        """Return the rows of Airflow's tables, and the bytes of the assets' state."""
        with self._engine.connect() as connection:
            found = {
                table: connection.execute(
                    sqlalchemy.select(sqlalchemy.func.count()).select_from(sqlalchemy.table(table))
                ).scalar_one()
                for table in TABLES
            }
            state = connection.execute(
                sqlalchemy.text("select count(*), sum(length(value::text)) from asset_state_store")
            ).one()
        return {**found, "keys of assets' state": state[0], "bytes of assets' state": state[1]}


def percentiles(seconds: list[float]) -> str:
    return (
        f"{len(seconds)} changes: median {statistics.median(seconds):.1f} s, "
        f"95th percentile {seconds[int(0.95 * (len(seconds) - 1))]:.1f} s, worst {seconds[-1]:.1f} s"
    )


def measure(airflow: AirflowStack, sandbox: RunningSandbox, address: str, arguments: list[float]) -> None:
    minutes_dead, retry_after, minutes_well = arguments
    changes, load = Changes(sandbox), Load(address)
    with step(f"{minutes_well:g} minutes, both receivers well"):
        well = changes.make(minutes_well, load.sample)
        wait_for("the good receiver", lambda: len(sandbox.received("good")) >= len(well), 120)
    before, most_well = load.rows(), load.most
    load.most = collections.Counter()
    sandbox.answer_with("dead", status=503, headers={"Retry-After": f"{retry_after:g}"})
    with step(f"{minutes_dead:g} minutes, one of them dead"):
        dead = changes.make(minutes_dead, load.sample)
        wait_for("the good receiver", lambda: len(sandbox.received("good")) >= len(well + dead), 120)
    after = load.rows()
    print(f"both well   {percentiles(changes.latencies(well))}")
    print(f"one dead    {percentiles(changes.latencies(dead))}")
    p95 = [(found := changes.latencies(ids))[int(0.95 * (len(found) - 1))] for ids in (well, dead)]
    print(f"ratio of the 95th percentiles: {p95[1] / p95[0]:.2f}")
    for name in sorted(most_well | load.most):
        print(f"{name}: at most {most_well[name]} while both were well, {load.most[name]} with one dead")
    for name, count in after.items():
        more = count - before[name]
        print(
            f"{name}: {before[name]} after {len(well)} changes, {more} more after {len(dead)} with one dead"
        )

    def attempts() -> collections.Counter[str]:
        kept = [k for k in sandbox.received("dead") if k["acknowledged_with"] == 503]
        return collections.Counter(k["headers"]["webhook-id"] for k in kept)

    with step("three attempts for each message of the dead one"):
        wait_for(
            "the attempts",
            lambda: len(found := attempts()) == len(dead) and min(found.values()) == 3,
            4 * 1.3 * retry_after + 600,
            10,
        )
    print(f"attempts of each message of the dead one: {sorted(set(attempts().values()))}")

    def reported() -> int:
        found = 0
        for dag_id in ("two", "two__retry"):
            path = f"/dags/{dag_id}/dagRuns/~/taskInstances?state=failed&limit=100"
            for task in airflow.api(path)["task_instances"]:
                entry = f"/dags/{dag_id}/dagRuns/{quote(task['dag_run_id'])}/taskInstances/{task['task_id']}"
                report = airflow.api(f"{entry}/xcomEntries/return_value?deserialize=true")["value"]
                found += report["total"] - report["delivered"]
        return found

    with step("reports"):
        wait_for("the reports", lambda: reported() == len(dead), 300, 5)
    print(f"reported as undelivered: {reported()} of {len(dead)}")


def main() -> None:
    given = [float(argument) for argument in sys.argv[1:]]
    arguments = given + [120.0, 3600.0, 20.0][len(given) :]
    with (
        running_sandbox() as sandbox,
        tempfile.TemporaryDirectory() as folder,
        temporary_database() as address,
    ):
        dags = Path(folder, "dags")
        dags.mkdir()
        (dags / "two.py").write_text(DAGS)
        insightly = {"conn_type": "insightly", "host": sandbox.api_url, "password": "sandbox-key"}
        receivers = {
            name: {"conn_type": "insightly_webhook", "host": sandbox.bin_url(name)}
            for name in ("good", "dead")
        }
        sandbox.configure(requests_per_second=1000, requests_per_day=10**9)
        airflow = AirflowStack(
            Path(folder, "airflow"), dags, {"insightly_default": insightly, **receivers}, address
        )
        try:
            with step("Airflow"):
                airflow.migrate()
                airflow.start()
                airflow.wait_until_healthy(240)
                airflow.wait_for_dag("two")
                airflow.unpause("two")
                time.sleep(30)  # until the watch runs, and its first run has marked where it begins
            measure(airflow, sandbox, address, arguments)
        finally:
            airflow.stop()


if __name__ == "__main__":
    main()
