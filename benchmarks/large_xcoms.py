"""The cost of windows with many changes for an Airflow that passes them through XComs.

The four tasks run on a real Airflow (LocalExecutor) over windows with more and more contacts of 2.5 kB, and
deliver them to a receiver that answers at once. For each window, the benchmark shows:

- the seconds and peak memory (MB) of each task: the most memory of one process, with shared pages;
- the slowest request of a task for an XCom. A worker ends a request after ``[workers]
  execution_api_timeout``, 5 s by default, and tries again, up to five times in all. Then the task fails;
- the most memory of the API server, and the time of ``GET /api/v2/version``, every 0.1 s;
- the growth of the database, by table, and of the files in the object storage.

``one`` is ``InsightlyWorkflowOperator`` over the same window. ``chunks`` are ten mapped deliver tasks. Each
of them gets a tenth of an XCom, but reads all of it. With ``separate``, each of them reads its own XCom.

Usage: python benchmarks/large_xcoms.py [postgresql|sqlite] [database|storage] [kind …] [changes …]

By default: all four kinds, on PostgreSQL, with XComs in the database.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

import psutil
import requests
import sqlalchemy

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

from postgresql import temporary_database
from receiver import receiving

from airflow_insightly_hooks.demo.airflow_stack import AirflowStack, StackError, step, wait_for
from airflow_insightly_hooks.sandbox.server import RunningSandbox, running_sandbox

CHANGES = (10, 1_000, 5_000, 10_000, 20_000)
CHUNKS = 10
BACKEND = "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend"
BATCH = 1_000
START = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0) - timedelta(days=20)
HOUR = timedelta(hours=1)
EVERY = 0.1
MB = 1_000_000
XCOM_REQUEST = re.compile(r"duration_us=(?P<us>\d+) .*method=(?P<method>\w+) path=/execution/xcoms/")
"""A line of the API server's log."""
NOTE_WORDS = 160
LETTERS = "abcdefghijklmnop"
LEFT_OUT = ("CONTACT_ID", "LINKS", "DATES", "TAGS")
KINDS = {"four": "four_tasks", "chunks": "in_chunks", "separate": "in_separate_chunks", "one": "one_task"}
DAGS = """
from airflow.sdk import DAG

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.operators.criteria import EvaluateCriteriaOperator
from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor

WINDOW = {"start": "{{ dag_run.conf['start'] }}", "end": "{{ dag_run.conf['end'] }}"}
CRITERIA = {"field": "BACKGROUND", "operator": "is_not_blank"}

def payloads(**arguments):
    changes = InsightlyRecordChangeSensor(task_id="detect", record_type="Contacts", window=WINDOW)
    matching = EvaluateCriteriaOperator(task_id="evaluate", changes=changes.output, criteria=CRITERIA)
    return BuildPayloadOperator(task_id="build", changes=matching.output, **arguments).output

with DAG("four_tasks", schedule=None):
    WebhookOperator(task_id="deliver", webhook_conn_id="receiver", payloads=payloads())

for size in SIZES:
    for name, separate in (("in_chunks", False), ("in_separate_chunks", True)):
        with DAG(f"{name}_{size}", schedule=None):
            WebhookOperator.partial(task_id="deliver", webhook_conn_id="receiver").expand(
                payloads=payloads(chunk_size=max(1, size // CHUNKS), separate_chunks=separate)
            )

with DAG("one_task", schedule=None):
    InsightlyWorkflowOperator(
        task_id="flow", window=WINDOW,
        workflow=Workflow(
            name="One task", record_type="Contacts", evaluate="created", criteria=CRITERIA,
            webhooks=[Webhook(name="receiver", conn_id="receiver")],
        ),
    )
"""


class Watch:
    """Measures the memory of Airflow's processes and the time of a request, ten times a second."""

    def __init__(self, airflow: AirflowStack) -> None:
        self._airflow = airflow
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=look, daemon=True) for look in (self._memory, self._ask)]
        self.tasks: list[tuple[float, int]] = []
        self.server: list[tuple[float, int]] = []
        self.answers: list[tuple[float, float]] = []

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _memory(self) -> None:
        scheduler, server = (
            psutil.Process(self._airflow.processes.pid(n)) for n in ("scheduler", "api-server")
        )
        while not self._ended.wait(EVERY):
            now = time.time()
            self.tasks.append(
                (now, max((_held(one) for one in scheduler.children(recursive=True)), default=0))
            )
            self.server.append((now, sum(_held(one) for one in [server, *server.children(recursive=True)])))

    def _ask(self) -> None:
        with requests.Session() as session:
            while not self._ended.wait(EVERY):
                began = time.time()
                with contextlib.suppress(requests.RequestException):
                    session.get(f"{self._airflow.url}/api/v2/version", timeout=60)
                self.answers.append((began, time.time() - began))


def _held(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


class Tables:
    """The sizes of the database's tables, including indexes and large values."""

    def __init__(self, address: str) -> None:
        self._engine = None if address.startswith("sqlite") else sqlalchemy.create_engine(address)
        self._file = address.removeprefix("sqlite:///").split("?")[0]

    def sizes(self) -> dict[str, int]:
        if self._engine is None:
            statement = (
                "SELECT tbl_name, sum(pgsize) FROM dbstat JOIN sqlite_master USING (name) GROUP BY tbl_name"
            )
            with contextlib.closing(sqlite3.connect(f"file:{self._file}?mode=ro", uri=True)) as connection:
                return dict(connection.execute(statement).fetchall())
        statement = (
            "SELECT relname, pg_total_relation_size(oid) AS size FROM pg_class "
            "WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        with self._engine.connect() as connection:
            return {row.relname: row.size for row in connection.execute(sqlalchemy.text(statement))}


class Benchmark:
    """One Airflow, and the runs on it."""

    def __init__(self, airflow: AirflowStack, sandbox: RunningSandbox, address: str, files: Path) -> None:
        self._airflow, self._sandbox, self._files = airflow, sandbox, files
        self._tables = Tables(address)
        self._window = 0
        self._contact = _contact(sandbox)
        self._random = Random(1)

    def run(self, kind: str, changes: int) -> None:
        """Make a window of so many changes, run a DAG over it, and print what it took."""
        start = START + HOUR * self._window
        self._window += 1  # later than the windows before, because a search finds all records after its start
        self._make_records(start, changes)
        dag_id = KINDS[kind] + (f"_{changes}" if "chunks" in KINDS[kind] else "")
        before, files = self._tables.sizes(), _size(self._files)
        log = self._airflow.home / "api-server.log"
        read = log.stat().st_size
        with Watch(self._airflow) as watch:
            time.sleep(1)
            tasks = self._ended(dag_id, start)
            time.sleep(1)
        after = self._tables.sizes()
        grown = {name: size - before.get(name, 0) for name, size in after.items()}
        with log.open("rb") as text:
            text.seek(read)
            slowest = _slowest_xcom(text.read().decode(errors="replace"))
        print(f"\n{kind}: {changes:,} changes")
        for name, task in tasks.items():
            print(f"  {name:9} {task['state']:8} {task['seconds']:7.1f} s {_peak(watch.tasks, task):6.0f} MB")
        began, ended = (f(t[k] for t in tasks.values()) for f, k in ((min, "began"), (max, "ended")))
        answers = [taken for at, taken in watch.answers if began <= at <= ended]
        print(f"  from the first task's start to the last one's end: {ended - began:.1f} s")
        print(f"  slowest request for an XCom: {slowest}")
        print(
            f"  API server: {watch.server[0][1] / MB:.0f} MB before, at most {_most(watch.server):.0f} MB",
            end="; ",
        )
        print(f"GET version: median {statistics.median(answers) * 1000:.0f} ms, slowest {max(answers):.2f} s")
        largest = sorted(grown.items(), key=lambda item: -item[1])[:3]
        print(f"  database: +{sum(grown.values()) / MB:.2f} MB", end=": ")
        print(", ".join(f"{name} +{size / MB:.2f} MB" for name, size in largest), end="; ")
        print(f"files: +{(_size(self._files) - files) / MB:.2f} MB", flush=True)

    def _make_records(self, start: datetime, changes: int) -> None:
        moment = (start + HOUR / 2).strftime("%Y-%m-%d %H:%M:%S")
        for first in range(0, changes, BATCH):
            numbers = range(first, min(first + BATCH, changes))
            self._sandbox.create_many("Contacts", [self._record(number, moment) for number in numbers])

    def _record(self, number: int, moment: str) -> dict[str, Any]:
        """Return a contact with unique texts, because the database compresses repeated texts."""
        random = self._random
        words = ("".join(random.choices(LETTERS, k=random.randint(2, 9))) for _ in range(NOTE_WORDS))
        return {
            **self._contact,
            "LAST_NAME": f"Number {number}",
            "EMAIL_ADDRESS": f"{random.randrange(10**12)}@example.com",
            "PHONE": f"+1 {random.randrange(10**10)}",
            "BACKGROUND": " ".join(words),
            "DATE_CREATED_UTC": moment,
            "DATE_UPDATED_UTC": moment,
        }

    def _ended(self, dag_id: str, start: datetime) -> dict[str, dict[str, Any]]:
        """Run a DAG, and return its tasks by name. The instances of a mapped task have the same name."""
        self._airflow.unpause(dag_id)
        conf = {"start": start.isoformat(), "end": (start + HOUR).isoformat()}
        body = {"logical_date": None, "conf": conf}
        run_id = self._airflow.api(f"/dags/{dag_id}/dagRuns", "POST", body)["dag_run_id"]
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}"

        def ended() -> bool:
            with contextlib.suppress(StackError, requests.RequestException):
                return self._airflow.api(path)["state"] in ("success", "failed")
            return False

        wait_for(f"the end of {dag_id}", ended, 1_200, 1)
        tasks: dict[str, dict[str, Any]] = {}
        for one in self._airflow.api(f"{path}/taskInstances?limit=100")["task_instances"]:
            if one["start_date"] is None or one["end_date"] is None:
                continue
            began, ended_at = (datetime.fromisoformat(one[k]).timestamp() for k in ("start_date", "end_date"))
            task = tasks.setdefault(
                one["task_id"], {"state": one["state"], "seconds": 0.0, "began": began, "ended": ended_at}
            )
            task["state"] = one["state"] if task["state"] == "success" else task["state"]
            task["seconds"] += ended_at - began
            task["began"], task["ended"] = min(began, task["began"]), max(ended_at, task["ended"])
        return dict(sorted(tasks.items(), key=lambda item: item[1]["began"]))


def _contact(sandbox: RunningSandbox) -> dict[str, Any]:
    """Return a contact in the sandbox's form."""
    url = f"{sandbox.api_url}/Contacts/Search?top=1"
    contact = requests.get(url, auth=(sandbox.api_key, ""), timeout=10).json()[0]
    return {name: value for name, value in contact.items() if name not in LEFT_OUT}


def _peak(samples: list[tuple[float, int]], task: dict[str, Any]) -> float:
    return max((held for at, held in samples if task["began"] <= at <= task["ended"]), default=0) / MB


def _most(samples: list[tuple[float, int]]) -> float:
    return max(held for _, held in samples) / MB


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _slowest_xcom(log: str) -> str:
    """Return the slowest request for an XCom, by the API server's own log."""
    found = [(int(match["us"]) / 1e6, match["method"]) for match in XCOM_REQUEST.finditer(log)]
    if not found:
        return "none"
    posts, gets = (sum(taken for taken, one in found if one == method) for method in ("POST", "GET"))
    seconds, method = max(found)
    return (
        f"{seconds:.2f} s ({method}); all POSTs {posts:.1f} s, all GETs {gets:.1f} s, {len(found)} requests"
    )


@contextlib.contextmanager
def database(kind: str, home: Path) -> Iterator[str]:
    """Yield the address of a database."""
    if kind == "postgresql":
        with temporary_database() as address:
            yield address
    else:
        yield f"sqlite:///{home / 'airflow.db'}?timeout=60"


def main() -> None:
    given = sys.argv[1:]
    kind = "sqlite" if "sqlite" in given else "postgresql"
    is_stored = "storage" in given
    dags = [name for name in KINDS if name in given] or list(KINDS)
    numbers = [int(text) for text in given if text.isdigit()] or list(CHANGES)
    with (
        running_sandbox() as sandbox,
        receiving() as receiver,
        tempfile.TemporaryDirectory() as folder,
        database(kind, Path(folder, "airflow")) as address,
    ):
        files = Path(folder, "xcoms")
        files.mkdir(mode=0o700)
        Path(folder, "dags").mkdir()
        Path(folder, "dags", "windows.py").write_text(f"SIZES, CHUNKS = {numbers!r}, {CHUNKS}\n{DAGS}")
        connections: dict[str, dict[str, Any]] = {
            "insightly_default": {
                "conn_type": "insightly",
                "host": sandbox.api_url,
                "password": sandbox.api_key,
                "extra": {"requests_per_second": 1_000},
            },
            "receiver": {"conn_type": "insightly_webhook", "host": receiver.url},
        }
        settings = {}
        if is_stored:
            settings = {
                "AIRFLOW__CORE__XCOM_BACKEND": BACKEND,
                "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": files.as_uri(),
                "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "65536",
            }
        sandbox.configure(requests_per_second=10_000, requests_per_day=10**9)
        airflow = AirflowStack(Path(folder, "airflow"), Path(folder, "dags"), connections, address, settings)
        try:
            with step(f"Airflow on {kind}, XComs in {'object storage' if is_stored else 'the database'}"):
                airflow.migrate()
                airflow.start()
                airflow.wait_until_healthy()
                airflow.wait_for_dag("one_task")
            benchmark = Benchmark(airflow, sandbox, address, files)
            for number in numbers:
                for name in dags:
                    benchmark.run(name, number)
        finally:
            airflow.stop()


if __name__ == "__main__":
    main()
