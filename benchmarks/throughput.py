"""Payloads a second with 1, 2 and 4 Celery workers, and the cost of each mapped task besides its POSTs.

A DAG passes chunks of payloads to a mapped ``WebhookOperator``. Celery workers with one slot each run its
tasks, on PostgreSQL and Redis. The receiver takes 50 ms for each POST. The benchmark measures the time from
the queueing of the first deliver task to the end of the last one, by Airflow's database. It checks for each
run that the receiver got as many POSTs as there are payloads.

On a machine with few processors, the processes of the workers, Airflow and the receiver share them. So a
worker only makes 8 POSTs at once, so that 4 workers don't use up the machine.

Usage: python benchmarks/throughput.py [--payloads 20000] [--chunk 2500 ...] [--workers 1 2 4] [--tls]
       [--delay 0.05] [--at-once N] [--concurrency 8] [--xcoms each ...]

``--at-once``: how many requests the receiver processes at once, so that it is the bottleneck. ``--xcoms``:
with ``each``, each chunk has its own XCom (``separate_chunks``). With ``one``, all chunks are in one XCom,
which each task reads. If there are several values or sizes of chunks, each of them is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from celery_runs import CeleryRuns, celery_runs, instant, reason_to_skip, step
from receiver import Counts, RunningReceiver, receiving

DAG_ID = "throughput"
DELIVER = "deliver"
DAG_FILE = """
import sys
sys.path.append({benchmarks!r})
from contestants import make_payloads
from airflow.sdk import DAG, task
from airflow_insightly_hooks.operators.common.payload_chunks import push_chunks
from airflow_insightly_hooks.operators.webhook import WebhookOperator

with DAG({dag_id!r}, schedule=None, max_active_tasks=64):
    @task
    def chunks(ti=None, dag_run=None):
        payloads, size = make_payloads({payloads}), dag_run.conf["chunk"]
        chunks = [payloads[i : i + size] for i in range(0, len(payloads), size)]
        return push_chunks(ti, chunks) if dag_run.conf["xcoms"] == "each" else chunks

    WebhookOperator.partial(
        task_id={deliver!r}, webhook_conn_id="receiver", concurrency={concurrency}, retries=0
    ).expand(payloads=chunks())
"""


@dataclass
class Result:
    """The results of a run.

    :ivar wall: the seconds from the queueing of the first deliver task to the end of the last one.
    :ivar tasks: for each deliver task: the seconds until it starts, until its first POST, of its POSTs, and
        from the last POST to its end.
    :ivar cpu: the processor time in seconds, by process.
    :ivar commits: the commits in the metadata database.
    :ivar writes: the written rows of the task state store, which has the ledgers.
    """

    workers: int
    payloads: int
    wall: float
    tasks: list[tuple[float, float, float, float]]
    cpu: dict[str, float]
    commits: int
    writes: int
    counts: Counts

    @property
    def rate(self) -> float:
        """Payloads a second."""
        return self.payloads / self.wall


class Processor:
    """The processor time of Airflow's processes and their child processes."""

    def __init__(self, runs: CeleryRuns) -> None:
        names = ("api-server", "scheduler", "dag-processor", "triggerer", *runs.workers)
        self._pids = {name: runs.stack.processes.pid(name) for name in names}

    def seconds(self) -> dict[str, float]:
        """Return the seconds so far, by process. All workers count as one."""
        found: dict[str, float] = {}
        for name, pid in self._pids.items():
            process = psutil.Process(pid)
            label = "workers" if name.startswith("worker") else name
            for one in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    found[label] = found.get(label, 0.0) + sum(one.cpu_times()[:4])
        return found


class Database:
    """Counts of the metadata database."""

    def __init__(self, address: str) -> None:
        import psycopg2  # type: ignore[import-untyped]

        self._name = address.rpartition("/")[2]
        self._connection = psycopg2.connect(host="127.0.0.1", user="postgres", dbname=self._name)
        self._connection.autocommit = True

    def counts(self) -> tuple[int, int]:
        """Return the number of commits, and of written rows of the task state store."""
        time.sleep(1.5)  # PostgreSQL counts up to a second late
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT xact_commit FROM pg_stat_database WHERE datname = %s", (self._name,))
            (commits,) = cursor.fetchone()
            cursor.execute(
                "SELECT n_tup_ins + n_tup_upd FROM pg_stat_user_tables WHERE relname = 'task_state_store'"
            )
            (writes,) = cursor.fetchone()
        return int(commits), int(writes)

    def close(self) -> None:
        self._connection.close()


def measure(runs: CeleryRuns, payloads: int, receiver: RunningReceiver, *, chunk: int, xcoms: str) -> Result:
    """Run the DAG once, and return the results."""
    processor = Processor(runs)
    database = Database(runs.stack.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    receiver.take_counts()
    cpu, counted = processor.seconds(), database.counts()
    tasks = [task for task in runs.run(DAG_ID, chunk=chunk, xcoms=xcoms) if task["task_id"] == DELIVER]
    used = {name: seconds - cpu[name] for name, seconds in processor.seconds().items()}
    commits, writes = (after - before for after, before in zip(database.counts(), counted, strict=True))
    database.close()
    counts = receiver.take_counts()
    assert counts.posts == payloads, f"{counts.posts} POSTs of {payloads}"
    hosts = {task["hostname"] for task in tasks}
    assert len(hosts) == min(len(runs.workers), len(tasks)), f"the tasks ran on {hosts}"
    began = min(instant(task["queued_when"]) for task in tasks)
    return Result(
        len(runs.workers),
        payloads,
        max(instant(task["end_date"]) for task in tasks) - began,
        [_spans(runs, task) for task in tasks],
        used,
        commits,
        writes,
        counts,
    )


def _spans(runs: CeleryRuns, task: dict[str, Any]) -> tuple[float, float, float, float]:
    report = runs.xcom(task)
    times = [task["queued_when"], task["start_date"], report["started_at"], report["ended_at"]]
    queued, started, first, last, ended = map(instant, [*times, task["end_date"]])
    return started - queued, first - started, last - first, ended - last


def show(result: Result, base: float) -> None:
    """Print a result. ``base`` is the rate of one worker."""
    print(
        f"{result.workers} worker{'s' if result.workers > 1 else ''}: {result.wall:.1f} s, "
        f"{result.rate:.0f} payloads a second, {result.rate / base / result.workers:.2f} of linear"
    )
    first, posts, last = (statistics.median(spans[n] for spans in result.tasks) for n in (1, 2, 3))
    print(
        f"  {len(result.tasks)} tasks; of a task: {first:.2f} s from its start to its first POST, "
        f"{posts:.1f} s of POSTs, {last:.2f} s to its end (medians)"
    )
    total = sum(result.cpu.values()) + result.counts.cpu
    used = ", ".join(f"{name} {seconds:.1f}" for name, seconds in sorted(result.cpu.items()) if seconds > 0.5)
    print(f"  processor: {used}, receiver {result.counts.cpu:.1f} s; {total / result.wall:.2f} in use")
    posting = sum(spans[2] for spans in result.tasks)
    print(
        f"  database: {result.commits} commits ({result.commits / result.wall:.0f} a second), "
        f"{result.writes} writes of ledgers ({result.writes / posting:.2f} a second and task that POSTs)",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="payloads a second with 1, 2 and 4 Celery workers")
    parser.add_argument("--payloads", type=int, default=20_000)
    parser.add_argument("--chunk", type=int, nargs="+", default=[2_500])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--delay", type=float, default=0.05)
    parser.add_argument("--at-once", type=int, default=0)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--xcoms", nargs="+", choices=["each", "one"], default=["each"])
    args = parser.parse_args()
    if (reason := reason_to_skip()) is not None:
        print(f"throughput: {reason}")
        return 2
    at_once = f", {args.at_once} at once" if args.at_once else ""
    print(
        f"{args.payloads} payloads, {args.concurrency} POSTs at once in each task, to a receiver that takes "
        f"{args.delay * 1000:g} ms{at_once}{', with TLS' if args.tls else ''}",
        flush=True,
    )
    connection: dict[str, Any] = {"conn_type": "insightly_webhook"}
    dag_file = DAG_FILE.format(
        benchmarks=str(Path(__file__).parent),
        dag_id=DAG_ID,
        deliver=DELIVER,
        payloads=args.payloads,
        concurrency=args.concurrency,
    )
    kinds = [(chunk, xcoms) for chunk in args.chunk for xcoms in args.xcoms]
    bases: dict[tuple[int, str], float] = {}
    with receiving(args.delay, tls=args.tls, at_once=args.at_once) as receiver:
        connection["host"] = receiver.url
        if receiver.ca is not None:
            connection["extra"] = {"verify": receiver.ca}
        with celery_runs(dag_file, [DAG_ID], {"receiver": connection}) as runs:
            for number in sorted(args.workers):
                with step(f"workers: {number}"):
                    runs.start_workers(number)
                for chunk, xcoms in kinds:
                    result = measure(runs, args.payloads, receiver, chunk=chunk, xcoms=xcoms)
                    print(f"chunks of {chunk}, {xcoms} XCom: ", end="")
                    show(result, bases.setdefault((chunk, xcoms), result.rate / number))
    return 0


if __name__ == "__main__":
    sys.exit(main())
