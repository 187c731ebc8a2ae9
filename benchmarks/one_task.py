"""A large window in one task: reading while posting, memory, and repeated reads and POSTs after kills.

Each run of ``InsightlyWorkflowOperator`` has its own process, as in Airflow. The sandbox and the receiver are
separate processes. The sandbox answers 10 requests a second, like Insightly. The task's state takes as long
as in Airflow (7 to 16 ms a call).

- *reading alone* reads and evaluates the changes and stores the progress, but sends nothing;
- *posting alone* sends as many changes, which were not read;
- *both* is the task. Because a thread reads ahead, it should take at most 1.1 times the longer one of these.

Memory is the peak of the task's process, minus the peak with an empty window. The kills are SIGKILLs of the
task's process at random moments, which the seed decides. After each kill comes the next try.

Usage: python benchmarks/one_task.py [changes [parts [seed]]]

``parts`` are letters: t (time), m (memory) and k (kills). All of them are the default.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import requests
from contestants import STORE_LATENCY
from receiver import receiving

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

import recording_receiver

from airflow_insightly_hooks.demo.airflow_stack import free_port, wait_for

CHANGES = 100_000
KILLS = 5
PER_SECOND = 10
CONCURRENCY = 32
WEBHOOKS = 3
"""With how many webhooks the memory is measured, besides one."""
START = datetime(2025, 5, 1, tzinfo=timezone.utc)
WINDOW = {"start": "2025-05-01T00:00:00Z", "end": "2025-05-02T00:00:00Z"}
EMPTY = {"start": "2024-05-01T00:00:00Z", "end": "2024-05-01T00:00:00Z"}
LOADED = 5_000


class Figures(NamedTuple):
    """The measurements of a process: times in seconds, memory in MB."""

    wall: float
    cpu: float
    peak: float


class FolderStore:
    """A task's state in files. It outlives the process, and takes as long as Airflow's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._random = random.Random(7)

    def get(self, key: str, default: Any = None) -> Any:
        self._wait()
        file = self._file(key)
        return json.loads(file.read_text()) if file.exists() else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:  # noqa: ARG002 — Airflow's signature
        text = json.dumps(value)
        assert len(text) < 65_535, key
        partial = self._folder / "partial"
        partial.write_text(text)
        partial.replace(self._file(key))
        self._wait()

    def delete(self, key: str) -> None:
        self._wait()
        self._file(key).unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        return self._folder / quote(key, safe="")

    def _wait(self) -> None:
        time.sleep(self._random.uniform(*STORE_LATENCY))


class TaskInstance:
    """The part of a task instance that the operator uses."""

    dag_id, task_id, run_id = "benchmark", "flow", "manual__1"
    map_index, max_tries = -1, 2

    def xcom_push(self, key: str, value: Any) -> None:
        pass


# --- in the task's process -------------------------------------------------------------------------------


def peak() -> float:
    """Return the most memory that the process has held so far, in MB."""
    # Not ru_maxrss, because a process inherits it from its parent.
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def run_task(folder: Path, webhooks: int, window: dict[str, str], posts: int | None, results: Any) -> None:
    """Run the task in this process, and put its figures.

    :param posts: how many changes to send without reading them; 0 only reads; ``None`` reads and sends.
    """
    from airflow_insightly_hooks import Webhook, Workflow
    from airflow_insightly_hooks.operators.one_task.batch_reading import Reading
    from airflow_insightly_hooks.operators.one_task.webhook_deliveries import WebhookDeliveries
    from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator

    if posts:
        Reading.batches = lambda _, size: made_batches(posts, size)  # type: ignore[method-assign]
    elif posts == 0:
        WebhookDeliveries.deliver = lambda _, batch: len(batch)  # type: ignore[method-assign]
    workflow = Workflow(
        name="Benchmark",
        record_type="Contacts",
        settle=0,
        criteria={"field": "FIRST_NAME", "operator": "is_not_blank"},
        webhooks=[
            Webhook(name=f"Receiver {n}", conn_id="webhook_default", concurrency=CONCURRENCY)
            for n in range(webhooks)
        ],
    )
    task = InsightlyWorkflowOperator(task_id="flow", workflow=workflow, window=window, retries=KILLS + 2)
    context: Any = {
        "ti": TaskInstance(),
        "task_state_store": FolderStore(folder),
        "asset_state_store": Counter(),
    }
    began, cpu = time.perf_counter(), time.process_time()
    task.execute(context)
    results.put(Figures(time.perf_counter() - began, time.process_time() - cpu, peak()))


def made_batches(count: int, size: int) -> Iterator[list[Any]]:
    """Yield changes, as if they had been read."""
    from airflow_insightly_hooks.hooks.insightly import InsightlyHook

    page = list(InsightlyHook(exact_numbers=True).read_pages("Contacts", scan_of_contacts(), START))
    records = page[0].records if page else []
    for first in range(0, count, size):
        yield [
            {
                "record_type": "Contacts",
                "record_id": number,
                "event": "added",
                "changed_at": "2025-05-01T12:00:00Z",
                "record": {**records[number % len(records)], "CONTACT_ID": number},
            }
            for number in range(first + 1, min(first + size, count) + 1)
        ]


def scan_of_contacts() -> Any:
    from airflow_insightly_hooks.core.detection.scan import Scan
    from airflow_insightly_hooks.core.records import RECORD_TYPES

    return Scan(RECORD_TYPES["Contacts"])


# --- starting the processes ------------------------------------------------------------------------------


@contextlib.contextmanager
def running_crm(changes: int) -> Iterator[str]:
    """Run the sandbox in a new process, with so many contacts of a day, and yield its address."""
    from airflow_insightly_hooks.core.dates import format_api_time

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "airflow_insightly_hooks.sandbox", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for("the sandbox", lambda: is_up(url), 30)
            for first in range(0, changes, LOADED):
                batch = []
                for number in range(first, min(first + LOADED, changes)):
                    at = format_api_time(START + timedelta(seconds=number * 86_400 / changes))
                    text = at.replace("T", " ").rstrip("Z")
                    names = {
                        "FIRST_NAME": f"Person {number}",
                        "LAST_NAME": "Example",
                        "BACKGROUND": "x" * 500,
                    }
                    batch.append({**names, "DATE_CREATED_UTC": text, "DATE_UPDATED_UTC": text})
                path = f"{url}/_sandbox/records/Contacts?answer=ids"
                requests.post(path, json=batch, timeout=120).raise_for_status()
            settings = {"requests_per_second": PER_SECOND + 2}
            requests.put(f"{url}/_sandbox", json=settings, timeout=10).raise_for_status()
            os.environ["AIRFLOW_CONN_INSIGHTLY_DEFAULT"] = json.dumps(
                {
                    "conn_type": "insightly",
                    "host": f"{url}/v3.1",
                    "password": "sandbox-key",
                    "extra": {"requests_per_second": PER_SECOND},
                }
            )
            yield url
        finally:
            process.terminate()


def is_up(url: str) -> bool:
    try:
        return requests.get(f"{url}/_sandbox", timeout=1).ok
    except requests.ConnectionError:
        return False


def pages_asked_for(crm: str) -> int:
    counts = requests.get(f"{crm}/_sandbox", timeout=10).json()["requests"]
    return int(counts.get("GET /v3.1/Contacts/Search", 0))


def connect(url: str, ca: str | None = None) -> None:
    extra = {"verify": ca} if ca is not None else {}
    os.environ["AIRFLOW_CONN_WEBHOOK_DEFAULT"] = json.dumps(
        {"conn_type": "insightly_webhook", "host": url, "extra": extra}
    )


def start(folder: Path, webhooks: int, window: dict[str, str], posts: int | None) -> tuple[Any, Any]:
    """Start the task in a new process. Return the process, and the source of its figures."""
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    process = spawn.Process(target=run_task, args=(folder, webhooks, window, posts, results))
    process.start()
    return process, results


def measured(webhooks: int = 1, window: dict[str, str] = WINDOW, posts: int | None = None) -> Figures:
    """Run the task once, with a new state, and return its figures."""
    with tempfile.TemporaryDirectory() as folder:
        process, results = start(Path(folder), webhooks, window, posts)
        process.join()
        return Figures(*results.get(timeout=5))


# --- the figures -----------------------------------------------------------------------------------------


def time_it(changes: int) -> None:
    connect("http://127.0.0.1:9")  # nothing is sent
    reading = measured(posts=0)
    print(f"reading alone: {reading.wall:.1f} s ({reading.cpu:.1f} s of a processor)")
    print(f"{'receiver':16} {'posting alone':>22} {'both':>22} {'both/longest':>13}")
    for name, delay, tls in (("50 ms, TLS", 0.05, True), ("at once, TLS", 0, True), ("at once", 0, False)):
        with receiving(delay, tls=tls) as receiver:
            connect(receiver.url, receiver.ca)
            posting, both = measured(posts=changes), measured()
            counted = receiver.take_counts().posts
        times = "".join(f" {f.wall:9.1f} s, {f.cpu:6.1f} CPU" for f in (posting, both))
        ratio = both.wall / max(posting.wall, reading.wall)
        print(f"{name:16}{times} {ratio:13.3f}", flush=True)
        assert counted == 2 * changes, counted


def weigh_it() -> None:
    with receiving() as receiver:
        connect(receiver.url)
        idle = measured(window=EMPTY)
        print(f"an idle task: {idle.peak:.0f} MB")
        for webhooks in (1, WEBHOOKS):
            print(f"with {webhooks} webhooks: {measured(webhooks).peak - idle.peak:.0f} MB more", flush=True)


def kill_it(crm: str, changes: int, seed: int) -> None:
    recording_receiver.FAILING = 0.0
    recording_receiver.DELAY = (0.01, 0.05)
    chance = random.Random(seed)
    moments = sorted(chance.randrange(1, changes) for _ in range(KILLS))
    with recording_receiver.recording_receiver() as receiver, tempfile.TemporaryDirectory() as folder:
        receiver.begin(seed)
        connect(receiver.url)
        asked = pages_asked_for(crm)
        print(f"{'killed after':>12} {'pages read':>11} {'sent twice':>11} {'in the second before':>21}")
        sent = twice = 0
        for moment in [*moments, None]:
            process, results = start(Path(folder), 1, WINDOW, None)
            killed_at = end(process, moment, lambda: len(receiver.posts))
            time.sleep(0.5)  # what was under way comes in
            asked, before = pages_asked_for(crm), asked
            ids = Counter(post.message_id for post in receiver.posts)
            twice, twice_before = ids.total() - len(ids), twice
            last = sum(killed_at - 1 <= post.at for post in receiver.posts) if killed_at else 0
            what = len(receiver.posts) if moment is not None else "ended"
            print(f"{what:>12} {asked - before:11} {twice - twice_before:11} {last:21}", flush=True)
            sent = len(ids)
        results.get(timeout=5)
        print(f"{changes - sent} of {changes} were lost, {twice} POSTs were made twice or more")
        print(f"a try without kills asks for {-(-changes // 495)} pages or one more")


def end(process: Any, moment: int | None, posts: Callable[[], int]) -> float | None:
    """Wait for so many POSTs, kill the task, and return when. ``None`` waits until the task has ended."""
    while moment is not None and process.is_alive() and posts() < moment:
        time.sleep(0.002)
    if moment is None or not process.is_alive():
        process.join()
        return None
    process.kill()
    process.join()
    return time.monotonic()


def main(changes: str = str(CHANGES), parts: str = "tmk", seed: str = "1") -> None:
    count = int(changes)
    print(f"{count} changes")
    with running_crm(count) as crm:
        if "m" in parts:
            weigh_it()
        if "t" in parts:
            time_it(count)
        if "k" in parts:
            kill_it(crm, count, int(seed))


if __name__ == "__main__":
    main(*sys.argv[1:])
