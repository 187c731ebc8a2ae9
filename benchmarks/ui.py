"""The time of each page on a real API server with 100,000 deliveries. Also checks that no page scans XCom.

``benchmarks/deliveries.py`` fills the metadata database (PostgreSQL): 5,000 runs of 20 messages in 30 days,
and 10,000 pending webhooks. The database also has the runs' task instances, and their payloads in XCom. An
administrator who is logged in requests the pages. Each time is the median of 11 requests, in turns with
Airflow's own ``/api/v2/version``, which shows the time of an empty answer.

Run: ``python benchmarks/ui.py``
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import requests
import sqlalchemy

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

from deliveries import DAG_IDS, fill
from postgresql import temporary_database

from airflow_insightly_hooks.demo.airflow_stack import AirflowStack, step

TIMES = 11
TARGET, RECORD_TARGET = 0.3, 1.0
"""The limits in seconds for a page, and for a page that searches for a record."""
BASELINE = "/api/v2/version"
DAG_FILE = """# airflow dag
from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.workflows.dag import workflow_dags

for number in range(40):
    dag_id = f"workflow_{number}"
    common = {"name": dag_id, "dag_id": dag_id, "record_type": "Contacts", "schedule": None}
    common["insightly_conn_id"] = "insightly_0"
    Workflow(webhooks=[Webhook(name="out", conn_id=f"receiver_{number % 4}")], **common).to_dag()
    if number < 4:  # these have something pending
        later = Webhook(name="later", conn_id=f"receiver_{number}", after="3d")
        for dag in workflow_dags(Workflow(webhooks=[later], **common)):
            if dag.dag_id.endswith("__pending"):
                globals()[dag.dag_id] = dag
"""


class Page(NamedTuple):
    """An address, and its time limit in seconds."""

    name: str
    path: str
    query: dict[str, Any]
    target: float = TARGET
    shows: str = ""
    """A text that the page has if it has found something."""


def pages(a: dict[str, Any]) -> Iterator[Page]:
    """Yield the pages to measure.

    :param a: an existing delivery, from ``filled``.
    """
    deliveries, ever = "/insightly/deliveries", {"period": "all"}
    one = {name: a[name] for name in ("dag_id", "run_id", "task_id", "message_id")}
    yield Page("overview", "/insightly/", {}, shows=">2,500<")  # delivered by a workflow in 30 days
    yield Page("deliveries of 7 days", deliveries, {}, shows="receiver_3")
    yield Page("deliveries", deliveries, ever, shows="receiver_3")
    yield Page("deliveries of a workflow", deliveries, {"workflow": a["dag_id"], **ever})
    yield Page("deliveries to a receiver", deliveries, {"receiver": a["conn_id"], **ever})
    yield Page("deliveries that failed", deliveries, {"state": "failed", **ever})
    yield Page("deliveries of a week", deliveries, {"from": a["since"], "to": a["until"]})
    yield Page("deliveries, page 10", deliveries, {**ever, "page": 10})
    yield Page("deliveries of a record", deliveries, {"record": a["record_id"], **ever}, RECORD_TARGET)
    yield Page("deliveries of no record", deliveries, {"record": 999_999, **ever}, RECORD_TARGET)
    yield Page("one delivery", "/insightly/delivery", one)
    yield Page("pending, 10,000", "/insightly/pending", {})
    yield Page("pending of a workflow, 2,500", "/insightly/pending", {"workflow": DAG_IDS[0]})
    yield Page("preview, its form", "/insightly/preview", {})


# --- the database ------------------------------------------------------------------------------------------


def filled(stack: AirflowStack, dags: Path) -> dict[str, Any]:
    """Fill the database, and return one of its deliveries."""
    from airflow.utils.session import create_session

    from airflow_insightly_hooks.database.deliveries import DeliveryFilter, search_deliveries

    with step("100,000 deliveries"):
        fill()
    with step(f"the DAGs of {len(DAG_IDS)} workflows"):
        (dags / "workflows.py").write_text(DAG_FILE)
        stack.cli("dags", "reserialize")
    with step("task instances and XCom"):
        _add_tasks()
    with create_session() as session:
        (row,) = search_deliveries(session, DeliveryFilter(), limit=1, offset=5_000).rows
    assert row.message.about is not None
    return {
        "dag_id": row.key.dag_id,
        "run_id": row.key.run_id,
        "task_id": row.key.task_id,
        "conn_id": row.conn_id,
        "record_id": row.message.about.record_id,
        "message_id": row.message.message_id,
        "since": (row.at - timedelta(days=7)).strftime("%Y-%m-%dT%H:%M:00Z"),
        "until": row.at.strftime("%Y-%m-%dT%H:%M:00Z"),
    }


def _add_tasks() -> None:
    """Give each run its task instances, and the build task its 20 payloads of 1 kB."""
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import insert, select
    from uuid6 import uuid7

    payloads = [{"message_id": f"msg_{n}", "record_id": n, "body": "x" * 1_000} for n in range(20)]
    with create_session() as session:
        runs = session.execute(select(DagRun.id, DagRun.dag_id, DagRun.run_id, DagRun.run_after)).all()
        for start in range(0, len(runs), 500):
            part = runs[start : start + 500]
            tasks = [
                {
                    "id": uuid7(),
                    "dag_id": dag_id,
                    "run_id": run_id,
                    "task_id": task_id,
                    "map_index": -1,
                    "state": "success",
                    "try_number": 1,
                    "max_tries": 2,
                    "pool": "default_pool",
                    "pool_slots": 1,
                    "start_date": at,
                    "end_date": at + timedelta(seconds=5),
                }
                for _, dag_id, run_id, at in part
                for task_id in ("detect", "evaluate", "build", "deliver")
            ]
            session.execute(insert(TaskInstance), tasks)
            xcoms = [
                {
                    "dag_run_id": number,
                    "dag_id": dag_id,
                    "run_id": run_id,
                    "task_id": "build",
                    "map_index": -1,
                    "key": "return_value",
                    "value": payloads,
                    "timestamp": at,
                }
                for number, dag_id, run_id, at in part
            ]
            session.execute(insert(XComModel), xcoms)


# --- the measurement ---------------------------------------------------------------------------------------


@contextmanager
def serving(stack: AirflowStack, password: str) -> Iterator[requests.Session]:
    """Run the API server, and yield a client of an administrator who is logged in."""
    stack.start("api-server")
    try:
        with step("the API server starts"):
            stack.wait_until_healthy()
        client = requests.Session()
        client.trust_env = False
        credentials = {"username": "admin", "password": password}
        answer = client.post(f"{stack.url}/auth/token", json=credentials, timeout=60)
        answer.raise_for_status()
        client.cookies.set("_token", answer.json()["access_token"])
        client.headers["Accept"] = "text/html"
        with client:
            yield client
    finally:
        stack.stop()


def seconds(client: requests.Session, url: str) -> tuple[float, requests.Response]:
    started = time.perf_counter()
    answer = client.get(url, timeout=120, allow_redirects=False)
    return time.perf_counter() - started, answer


def measure(client: requests.Session, url: str, wanted: list[Page]) -> bool:
    """Print the time of each page. Return whether all pages work, and are fast enough."""
    is_good = True
    print(f"\n{'median of 11':28} {'page':>8} {'slowest':>8} {'version':>8}  {'size':>8}")
    for page in wanted:
        query = f"?{urlencode(page.query)}" if page.query else ""
        taken, baseline = [], []
        answer = client.get(f"{url}{page.path}{query}", timeout=120)  # what is made only once, is now
        for _ in range(TIMES):
            baseline.append(seconds(client, f"{url}{BASELINE}")[0])
            took, answer = seconds(client, f"{url}{page.path}{query}")
            taken.append(took)
        median = statistics.median(taken)
        if answer.status_code != 200:
            is_good, verdict = False, f"  answered {answer.status_code}"
        elif page.shows not in answer.text:
            is_good, verdict = False, f"  shows no {page.shows}"
        elif median > page.target:
            is_good, verdict = False, f"  wanted: at most {page.target * 1000:.0f} ms"
        else:
            verdict = ""
        print(
            f"{page.name:28} {median * 1000:5.0f} ms {max(taken) * 1000:5.0f} ms "
            f"{statistics.median(baseline) * 1000:5.0f} ms  {len(answer.content) / 1000:5.0f} kB{verdict}",
            flush=True,
        )
    return is_good


def scans(address: str) -> tuple[int, int]:
    """Return how often ended connections have scanned XCom, and how often they have read it by an index."""
    engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        statement = "SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = 'xcom'"
        row = connection.execute(sqlalchemy.text(statement)).one()
    return int(row[0]), int(row[1] or 0)


def settle(address: str) -> None:
    """Update PostgreSQL's statistics, as it does by itself after a while, and end our connections."""
    from airflow import settings

    settings.engine.dispose()
    engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("VACUUM ANALYZE"))
    before, _ = scans(address)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT count(value) FROM xcom"))
    time.sleep(1)
    assert scans(address)[0] > before, "a scan of XCom is not seen"


def main() -> bool:
    with tempfile.TemporaryDirectory() as folder, temporary_database() as address:
        home, dags = Path(folder), Path(folder) / "dags"
        dags.mkdir()
        password = "only-for-this-benchmark"  # noqa: S105 — likewise
        (home / "passwords.json").write_text(json.dumps({"admin": password}))
        settings = {
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:ADMIN",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        }
        stack = AirflowStack(home, dags, {}, address, settings)
        with step("the metadata database"):
            stack.migrate()
        os.environ.update({k: v for k, v in stack.env.items() if k.startswith("AIRFLOW")})
        wanted = list(pages(filled(stack, dags)))
        settle(address)
        before = scans(address)
        with serving(stack, password) as client:
            is_good = measure(client, stack.url, wanted)
        time.sleep(1)
        after = scans(address)
        print(f"XCom was scanned {after[0] - before[0]} times, read by an index {after[1] - before[1]} times")
        return is_good and after[0] == before[0]


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
