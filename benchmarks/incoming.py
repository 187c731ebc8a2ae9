"""How much Insightly's webhooks slow down other requests to an API server.

A real API server runs on PostgreSQL, in one process. 16 threads of another process POST 1,000 webhooks in 10
s, each for a record that has just changed: first over kept connections, then with a new connection for each.
Then they send 10,000 webhooks with a wrong password, as fast as they can. Meanwhile, ``GET /api/v2/version``
is requested every 20 ms. Its time is compared with its time on an idle server. There is no TLS, because that
is the task of a reverse proxy.

Run: ``python benchmarks/incoming.py``
"""

from __future__ import annotations

import base64
import http.client
import json
import multiprocessing
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import sqlalchemy

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

from postgresql import temporary_database

from airflow_insightly_hooks.demo.airflow_stack import AirflowStack, step

THREADS = 16
POSTS, SECONDS = 1_000, 10.0
WRONG = 10_000
IDLE_SECONDS = 8.0
INTERVAL = 0.02
"""Seconds between two requests for Airflow's version."""
TARGET = 4.0
"""How many times as long as on an idle server the version may take, at the 95th percentile.

There is no target for wrong passwords, because they are sent as fast as they are answered.
"""
LOGIN, PASSWORD = "insightly", "only-for-this-benchmark"
CONNECTION = {
    "conn_type": "insightly_incoming",
    "login": LOGIN,
    "password": PASSWORD,
    "extra": {"requests_per_minute": 0},
}
DAG_FILE = """# airflow dag
from airflow.sdk import DAG
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor
from airflow_insightly_hooks.triggers.record_change import changes_asset

for number in range(3):
    cursor = f"contacts_{number}/detect"
    with DAG(f"contacts_{number}", schedule=changes_asset("Contacts", cursor=cursor)) as dag:
        InsightlyRecordChangeSensor(task_id="detect", record_type="Contacts")
    globals()[dag.dag_id] = dag
"""


class Sent(NamedTuple):
    """One POST."""

    status: int
    taken: float
    """Seconds."""
    changed_at: float
    """The time of its record's change, in seconds since 1970."""


def body(moment: float) -> bytes:
    """Return the body of a webhook for a contact that changed at a moment."""
    date = f"/Date({int(moment) * 1000}-0800)/"
    record = {"CONTACT_ID": int(moment * 1_000_000), "FIRST_NAME": "Zoë", "DATE_UPDATED_UTC": date}
    return json.dumps({"entity": record}).encode()


def send(netloc: str, count: int, seconds: float, password: str, is_kept: bool = True) -> list[Sent]:
    """Send webhooks from all threads, and return them.

    :param seconds: in how many seconds they are sent, evenly; 0 for as fast as possible.
    """
    sent: list[Sent] = []
    headers = {
        "Authorization": f"Basic {base64.b64encode(f'{LOGIN}:{password}'.encode()).decode()}",
        "Content-Type": "application/json",
        **({} if is_kept else {"Connection": "close"}),
    }
    started = time.monotonic()

    def work(thread: int) -> None:
        connection = http.client.HTTPConnection(netloc, timeout=60)
        for number in range(thread, count, THREADS):
            time.sleep(max(0.0, started + number * seconds / count - time.monotonic()))
            now, began = time.time(), time.perf_counter()
            connection.request("POST", "/insightly/hooks/crm", body(now), headers)
            answer = connection.getresponse()
            answer.read()
            sent.append(Sent(answer.status, time.perf_counter() - began, now))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sent


def beside(work: Callable[[], bool], netloc: str) -> list[float]:
    """Request Airflow's version during a load, and return the seconds of each answer."""
    taken = []
    connection = http.client.HTTPConnection(netloc, timeout=60)
    while work():
        began = time.perf_counter()
        connection.request("GET", "/api/v2/version")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        taken.append(time.perf_counter() - began)
        time.sleep(INTERVAL)
    return taken


def of(values: list[float], percent: int) -> float:
    """Return a percentile in milliseconds."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)] * 1000


def moment_of(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def uncovered(address: str, sent: list[Sent], since: datetime) -> tuple[int, int, int]:
    """Return the number of events since a moment, of their assets, and of POSTs that no event announces."""
    engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        statement = "SELECT asset_id, extra FROM asset_event WHERE timestamp >= :since"
        rows = connection.execute(sqlalchemy.text(statement), {"since": since}).all()
    by_asset: dict[int, list[tuple[datetime, datetime]]] = {}
    for asset_id, extra in rows:
        span = tuple(
            datetime.fromisoformat(extra["payload"][end].replace("Z", "+00:00")) for end in ("since", "until")
        )
        by_asset.setdefault(asset_id, []).append(span)  # type: ignore[arg-type]
    missing = 0
    for post in sent:
        moment = datetime.fromtimestamp(int(post.changed_at), timezone.utc)
        missing += not all(any(start <= moment < end for start, end in spans) for spans in by_asset.values())
    return len(rows), len(by_asset), missing if by_asset else len(sent)


class Load(NamedTuple):
    """A load: how many webhooks, in how many seconds, with which password, and over which connections."""

    name: str
    count: int
    seconds: float
    password: str
    is_kept: bool


def _sender(results: Any, netloc: str, load: Load) -> None:
    results.put(send(netloc, *load[1:]))


def run(stack: AirflowStack, address: str, load: Load) -> bool:
    """Send a load, print its results, and return whether they are good."""
    since = datetime.now(timezone.utc) - timedelta(seconds=1)
    netloc = urlsplit(stack.url).netloc
    end = time.monotonic() + IDLE_SECONDS
    before = beside(lambda: time.monotonic() < end, netloc)
    idle = of(before, 95)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_sender, args=(results, netloc, load))
    process.start()
    sent: list[Sent] = []

    def is_working() -> bool:
        if not results.empty():
            sent.extend(results.get())
        return not sent

    taken = beside(is_working, netloc)
    process.join()
    expected = 200 if load.password == PASSWORD else 401
    p95 = of(taken, 95)
    is_good = {post.status for post in sent} == {expected}
    lasted = max(post.changed_at for post in sent) - min(post.changed_at for post in sent)
    latencies = [post.taken for post in sent]
    print(
        f"{load.name}: {len(sent)} in {lasted:.1f} s, answers {dict(Counter(post.status for post in sent))}\n"
        f"  each: median {of(latencies, 50):.0f} ms, p95 {of(latencies, 95):.0f} ms, at most "
        f"{max(latencies) * 1000:.0f} ms\n"
        f"  version: median {of(taken, 50):.1f} ms, idle {of(before, 50):.1f} ms; p95 {p95:.1f} ms, idle "
        f"{idle:.1f} ms: {p95 / idle:.1f} times as long",
        flush=True,
    )
    if expected == 200:
        events, assets, missing = uncovered(address, sent, since)
        print(f"  {events} events on {assets} assets; {missing} of the changes in none of their spans")
        is_good = is_good and missing == 0
        if p95 >= TARGET * idle:
            is_good = False
            print(f"  wanted: below {TARGET:g} times as long")
    return is_good


def main() -> bool:
    with tempfile.TemporaryDirectory() as folder, temporary_database() as address:
        dags = Path(folder) / "dags"
        dags.mkdir()
        (dags / "contacts.py").write_text(DAG_FILE)
        stack = AirflowStack(Path(folder), dags, {"crm": CONNECTION}, address)
        with step("the metadata database"):
            stack.migrate()
            stack.cli("dags", "reserialize")
        stack.start("api-server")
        try:
            with step("the API server starts"):
                stack.wait_until_healthy()
            netloc = urlsplit(stack.url).netloc
            send(netloc, 20, 0, PASSWORD)  # what is made only once, is now
            loads = (
                Load("kept connections", POSTS, SECONDS, PASSWORD, is_kept=True),
                Load("new connections", POSTS, SECONDS, PASSWORD, is_kept=False),
                Load("wrong password", WRONG, 0, "wrong", is_kept=True),
            )
            good = [run(stack, address, load) for load in loads]
        finally:
            stack.stop()
        return all(good)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
