"""A day of a busy CRM on a real Airflow with Celery and PostgreSQL. Finds lost changes, and growth.

The day is played fast: an hour by day takes 3,600 / speed real seconds, and an hour at night takes a sixth of
this. All clocks show the real time. Rates, schedules, time triggers and outages are in simulated time, so
they are faster. Airflow's own times, such as a task's start, don't change. So the load is ``speed`` times the
load of such a CRM. With a speed of more than 20, more than a hundred records of a type change in a second at
the peaks. Then a search of the API can't be read to its end any more (docs/explanation/detection.md).

Users create, edit and delete contacts, leads, tasks and organisations by Insightly's API. At the peaks in the
morning and in the afternoon, there are up to 10 changes in a simulated second, and few at night. At night
there are imports: 20,000 tasks with the same update time, and 2,000 contacts. Four workflows run. Contacts go
to two receivers when they change. Leads go to one receiver, every 15 minutes, once they are rated 4 or
better. Tasks use the mode with one task. Organisations are sent an hour after their creation, unless they
were deleted by then. Receivers sometimes answer 503, also for longer times, or are down.

At the end, each change in the journal is looked up at its receivers, and the database is cleaned with
``airflow db clean``. The exit code is 1 if a change is missing, or if a received change is not in the
journal.

Usage: python benchmarks/soak.py [--hours 24] [--speed 15] [--peak 10] [--workers 2] [--durable]

The defaults take 56 minutes for the day, and some minutes before and after. ``--hours 3`` is a day with the
same curve in seven minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

from celery_stack import CeleryStack, celery_stack
from postgresql import temporary_database
from soak_checks import Expected, Result, check
from soak_crm import Crm, Day, Sandbox
from soak_measures import Database, Memory, Sizes, kept_slots, rows_text
from soak_receiver import RunningReceivers, posts_in, receivers

from airflow_insightly_hooks.demo.airflow_stack import (
    COMPONENTS,
    AirflowStack,
    Processes,
    StackError,
    free_port,
    step,
    wait_for,
)

SAMPLED_EVERY = 10.0
SLOTS = 2
TABLES = "dag_run,asset_event,log,job"
"""The tables for ``airflow db clean``. Their tasks, XComs and tasks' state are cleaned, too."""
IMPORTS = ((2.0, "Tasks", 20_000), (3.5, "Contacts", 2_000))
"""The imports: hour of the day, record type, and the number of records in a day of 24 hours."""
OUTAGES = ((10.2, "contacts_b", "503", 15), (14.0, "organisations", "503", 5), (15.6, "leads", "down", 10))
OUTAGES += ((17.0, "tasks", "503", 10), (19.0, "contacts_a", "down", 5))
"""The outages: hour of the day, receiver, its behaviour, and the simulated minutes."""
RECEIVERS = ("contacts_a", "contacts_b", "leads", "tasks", "organisations")
DAG_IDS = ("contacts", "leads", "tasks", "organisations", "organisations__pending")
SETTINGS = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "300",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "600",
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "86400",
}
"""Airflow's own defaults. The stack has shorter times for tests of failures."""
DAGS = """
from airflow_insightly_hooks import Schedule, Webhook, Workflow

retrying = {{"retries": 6, "retry_delay": "15s", "lookback": {lookback}}}
Workflow(
    name="Contacts", record_type="Contacts", schedule=Schedule(watch="{watch}s"), **retrying,
    webhooks=[Webhook(name="a", conn_id="contacts_a"), Webhook(name="b", conn_id="contacts_b")],
).to_dag()
Workflow(
    name="Leads", record_type="Leads", schedule=Schedule(every="{every}s"), evaluate="until_triggered",
    criteria={{"field": "LEAD_RATING", "operator": "greater_or_equal", "value": 4}},
    webhooks=[Webhook(name="leads", conn_id="leads")], **retrying,
).to_dag()
Workflow(
    name="Organisations", record_type="Organisations", schedule=Schedule(watch="{watch}s"),
    evaluate="created",
    webhooks=[Webhook(name="later", conn_id="organisations", after="{after}s")], **retrying,
).to_dag()
Workflow(
    name="Tasks", record_type="Tasks", schedule=Schedule(watch="{watch}s"), mode="one_task",
    webhooks=[Webhook(name="tasks", conn_id="tasks")], **retrying,
).to_dag()
"""


class Soak:
    """All parts of one soak, running.

    :param options: the options of the command line.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        airflow: AirflowStack,
        sandbox: Sandbox,
        endpoints: RunningReceivers,
        file: Path,
        sandbox_pid: int,
    ) -> None:
        self.options = options
        self.day = Day(options.hours, options.speed, options.peak)
        # Simulated: a watch each 18 minutes, leads every 15 minutes, organisations an hour later.
        self.watch, self.every, self.after = intervals(options.speed)
        self.airflow, self.sandbox = airflow, sandbox
        self._endpoints, self._file = endpoints, file
        self.database = Database(airflow.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
        self._others = {"sandbox": sandbox_pid, "receivers": endpoints.pid}
        self.memory = Memory(self._roots)

    def _roots(self) -> dict[str, int]:
        names = (*COMPONENTS, *worker_names(self.options.workers))
        return {name: self.airflow.processes.pid(name) for name in names} | self._others

    def deliveries(self) -> int:
        """Return the acknowledged POSTs so far."""
        return sum(post.status == 204 for post in posts_in(self._file))

    def sizes(self) -> Sizes:
        """Return the sizes of the database's tables now, and of Celery's results and the tasks' logs."""
        sizes = self.database.sizes(self.deliveries())
        others = {"(log files of tasks)": task_logs(self.airflow.home)}
        if (results := self._results()) is not None:
            found = results.sizes(0)
            others |= {name: (found.rows[name], found.bytes[name]) for name in found.rows}
        return Sizes(
            {**sizes.rows, **{name: rows for name, (rows, _) in others.items()}},
            {**sizes.bytes, **{name: size for name, (_, size) in others.items()}},
            sizes.deliveries,
        )

    def _results(self) -> Database | None:
        """Return the database with Celery's results."""
        address = self.airflow.env.get("AIRFLOW__CELERY__RESULT_BACKEND")
        return None if address is None else Database(address.removeprefix("db+"))

    def play(self, crm: Crm) -> list[Sizes]:
        """Play the day, and return the database's sizes at its beginning and at noon."""
        plan = self._plan(crm)
        sizes = [self.sizes()]
        crm.start()
        sampled = told = -60.0
        while crm.is_working():
            self.airflow.processes.check()
            elapsed = crm.elapsed()
            while plan and plan[0][0] <= elapsed:
                plan.pop(0)[2]()
            if elapsed - sampled >= SAMPLED_EVERY:
                sampled = elapsed
                self.memory.sample()
            if len(sizes) == 1 and elapsed >= self.day.seconds / 2:
                sizes.append(self.sizes())
            if elapsed - told >= 60:
                told = elapsed
                self.database.asset_state()
                hour = self.day.hour(elapsed)
                print(
                    f"    hour {hour:4.1f}: {len(crm.journal)} changes, {self.deliveries()} deliveries, "
                    f"{self.database.tasks()} tasks; driver {crm.late:.1f} s late at most",
                    flush=True,
                )
                crm.late = 0.0
            time.sleep(0.2)
        if crm.failed:
            raise crm.failed[0]
        for _, what, act in plan:
            print(f"    at the end: {what}")
            act()
        return sizes

    def _plan(self, crm: Crm) -> list[tuple[float, str, Callable[[], None]]]:
        plan: list[tuple[float, str, Callable[[], None]]] = []
        share = min(1.0, self.options.hours / 24)
        for hour, kind, count in IMPORTS:
            so_many = int(count * share)
            plan.append((self.day.at(hour), f"import of {kind}", partial(crm.import_records, kind, so_many)))
        for hour, name, how, minutes in OUTAGES:
            begin = self.day.at(hour)
            end = begin + max(10.0, minutes * 60 / self.day.speed)
            plan.append((begin, f"{name} {how}", partial(self._endpoints.answer, name, how)))
            plan.append((end, f"{name} ok", partial(self._endpoints.answer, name, "ok")))
        return sorted(plan, key=lambda entry: entry[0])

    def drain(self, within: float, quiet: float) -> None:
        """Wait until no run was active, and no POST came, for so many seconds."""
        quiet_since, before = time.monotonic(), -1

        def is_quiet() -> bool:
            nonlocal quiet_since, before
            self.airflow.processes.check()
            now = self.deliveries()
            if now != before or not self.database.is_idle():
                quiet_since, before = time.monotonic(), now
            return time.monotonic() - quiet_since > quiet

        wait_for("the end of all runs", is_quiet, within, 3)

    def check(self, crm: Crm) -> list[Result]:
        """Compare the journal with the received POSTs."""
        expectations = [
            Expected("contacts_a", "contacts", "Contacts", "each"),
            Expected("contacts_b", "contacts", "Contacts", "each"),
            Expected("leads", "leads", "Leads", "once"),
            Expected("tasks", "tasks", "Tasks", "each"),
            Expected("organisations", "organisations", "Organisations", "later", self.after),
        ]
        return check(crm.journal, posts_in(self._file), expectations, self.database.readings())

    def clean(self, crm: Crm) -> None:
        """Clean the database, print what is left, and check that changes still arrive."""
        # Not up to now: this would delete the jobs of all components, and these would then end.
        at = (datetime.now(timezone.utc) - timedelta(minutes=1)).isoformat()
        before = self.sizes()
        with step("airflow db clean"):
            options = ("--tables", TABLES, "--skip-archive", "--yes")
            self.airflow.cli("db", "clean", "--clean-before-timestamp", at, *options)
            self.database.ask("vacuum full")
        if (results := self._results()) is not None:
            results.ask("delete from celery_taskmeta where date_done < now()")
            results.ask("vacuum full")
        after = self.sizes()
        for name in sorted(before.bytes, key=lambda name: -before.bytes[name])[:14]:
            print(
                f"{name:30}{before.rows[name]:10d} rows {before.bytes[name] / 1e6:8.1f} MB -> "
                f"{after.rows.get(name, 0):8d} rows {after.bytes.get(name, 0) / 1e6:8.1f} MB"
            )
        total = [sum(sizes.bytes.values()) / 1e6 for sizes in (before, after)]
        print(f"{'all of it':30}{total[0]:24.1f} MB -> {total[1]:22.1f} MB")
        with step("a change after the cleaning"):
            number = crm.create("Contacts").number
            wait_for(
                "its POST",
                lambda: any(post.number == number for post in posts_in(self._file)),
                180,
                2,
            )


def task_logs(home: Path) -> tuple[int, int]:
    """Return the number of the tasks' log files in all homes, also the workers', and their bytes."""
    sizes = [file.stat().st_size for file in home.rglob("logs/dag_id=*/**/*.log")]
    return len(sizes), sum(sizes)


def intervals(speed: float) -> tuple[int, int, int]:
    """Return the real seconds between polls, between runs of leads, and until a time trigger."""
    return max(15, round(1080 / speed)), max(30, round(900 / speed)), max(30, round(3600 / speed))


def lookback(speed: float) -> int:
    """Return the real seconds of the workflows' lookback, which is a quarter of an hour."""
    return max(15, round(900 / speed))


def worker_names(count: int) -> list[str]:
    return [f"worker-{number}" for number in range(1, count + 1)]


@contextlib.contextmanager
def airflow_stack(
    options: argparse.Namespace, folder: Path, connections: dict[str, dict[str, Any]]
) -> Iterator[AirflowStack]:
    """Run an Airflow with Celery, or with the LocalExecutor for 0 workers."""
    settings = SETTINGS | {"AIRFLOW__CORE__PARALLELISM": str(SLOTS * max(2, options.workers))}
    home, dags = folder / "airflow", folder / "dags"
    with contextlib.ExitStack() as cleanup:
        if options.workers:
            stack: AirflowStack = cleanup.enter_context(
                celery_stack(home, dags, connections, settings, is_durable=options.durable)
            )
        else:
            database = cleanup.enter_context(temporary_database(is_durable=options.durable))
            stack = AirflowStack(home, dags, connections, database, settings)
            cleanup.callback(stack.stop)
            stack.migrate()
        stack.start()
        for name in worker_names(options.workers):
            assert isinstance(stack, CeleryStack)
            stack.start_worker(name, SLOTS)
            stack.wait_for_worker(name)
        stack.wait_until_healthy()
        yield stack


@contextlib.contextmanager
def soaking(options: argparse.Namespace, folder: Path) -> Iterator[Soak]:
    """Run everything that a soak takes."""
    port = free_port()
    sandbox = Sandbox(port)
    own = Processes(folder)
    watch, every, after = intervals(options.speed)
    (folder / "dags").mkdir()
    (folder / "dags" / "soak.py").write_text(
        DAGS.format(watch=watch, every=every, after=after, lookback=lookback(options.speed))
    )
    file = folder / "posts"
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(own.stop)
        command = [sys.executable, "-m", "airflow_insightly_hooks.sandbox", "--port", str(port)]
        own.start("sandbox", command, dict(os.environ))
        wait_for("the sandbox", sandbox.is_up, 30)
        sandbox.configure(requests_per_second=10**6, requests_per_day=10**9)
        endpoints = cleanup.enter_context(receivers(file, *RECEIVERS, in_a_thousand=1.0, delay=0.02))
        connections = {
            name: {"conn_type": "insightly_webhook", "host": url} for name, url in endpoints.urls.items()
        }
        insightly: dict[str, Any] = {
            "conn_type": "insightly",
            "host": sandbox.api_url,
            "password": "sandbox-key",
            "extra": {"requests_per_second": 10 * options.speed},  # Insightly's limit, in simulated time
        }
        with step("Airflow"):
            airflow = cleanup.enter_context(
                airflow_stack(options, folder, {"insightly_default": insightly, **connections})
            )
        yield Soak(options, airflow, sandbox, endpoints, file, own.pid("sandbox"))


def soak(options: argparse.Namespace, folder: Path) -> bool:
    """Play a day, and return whether all changes arrived."""
    with soaking(options, folder) as played:
        crm = Crm(played.sandbox, played.day, played.after)
        quiet = max(played.watch, played.every) + 20
        with step("DAGs, and their first runs"):
            for dag_id in DAG_IDS:
                played.airflow.wait_for_dag(dag_id)
            for dag in played.airflow.dags():
                played.airflow.unpause(dag["dag_id"])
            time.sleep(30)
            played.drain(240, 10)
        print(
            f"  a day of {options.hours:g} hours in {played.day.seconds / 60:.1f} minutes, about "
            f"{played.day.expected()} changes and imports"
        )
        try:
            sizes = played.play(crm)
            begun = time.monotonic()
            try:
                with step("what is left to deliver"):
                    played.drain(1200, quiet)
            except StackError as error:  # the check tells what has not come
                print(f"\n  {error}; {played.airflow.unfinished()}")
        finally:
            crm.stop()
        drained = time.monotonic() - begun - quiet
        sizes.append(played.sizes())
        results = played.check(crm)
        print(f"\n{len(crm.journal)} changes; all was quiet {drained:.0f} s after the day's end")
        for result in results:
            print(result.text())
        print(f"failed tasks: {', '.join(played.database.failed()) or '0'}")
        print(f"{kept_slots(folder / 'airflow' / 'scheduler.log')}\n")
        first, noon, end = sizes
        print(rows_text([("1st half", first, noon), ("2nd half", noon, end)]))
        print(f"\n{played.memory.text(0, played.day.seconds)}\n")
        now = played.database.asset_state()
        for kind, (keys, size) in sorted(played.database.most.items()):
            left = now.get(kind, (0, 0))
            print(
                f"state of assets, {kind}: at most {keys} keys, {size} bytes; at the end {left[0]}, {left[1]}"
            )
        print()
        played.clean(crm)
    return not any(result.missing or result.problems for result in results)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--hours", type=float, default=24, help="length of the simulated day")
    parser.add_argument("--speed", type=float, default=15, help="simulated seconds in a real one, by day")
    parser.add_argument("--peak", type=float, default=10, help="changes in a simulated second at the peaks")
    parser.add_argument("--workers", type=int, default=2, help="Celery workers; 0 for the LocalExecutor")
    parser.add_argument("--durable", action="store_true", help="have commits wait for the disk")
    parser.add_argument("--folder", type=Path, help="where to keep logs and what was received")
    options = parser.parse_args()
    with contextlib.ExitStack() as cleanup:
        folder = options.folder or Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        return 0 if soak(options, folder.resolve()) else 1


if __name__ == "__main__":
    sys.exit(main())
