"""Checks whether limits hold across workers, with four Celery workers and with Airflow's pools.

``receiver``: two runs at once send chunks to a receiver with a limit of 50 requests a second. Without a pool,
each task has the whole limit. In a pool with one slot, one task at a time has it. In a pool with four slots,
each task has 12.5. The receiver counts the POSTs in its busiest 10 s. They may be at most 1.1 times the
limit.

``insightly``: eight tasks read all records of an account that allows 10 requests a second. They are
``InsightlyWorkflowOperator`` tasks whose criteria no record meets. They run without a pool, in a pool with
one slot, and in a pool with four slots and 2.5 requests a second for each. The API counts the requests in its
busiest 10 s.

The exit code is 1 if a pool's limit was exceeded. Needs PostgreSQL and Redis.

Usage: python benchmarks/limits.py [receiver|insightly ...]
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from busiest_span import SPAN, BusiestSpan
from celery_runs import CeleryRuns, celery_runs, instant, reason_to_skip
from receiver import RunningReceiver, receiving

from airflow_insightly_hooks.sandbox.http.request_limits import RateLimitResult, RequestLimits
from airflow_insightly_hooks.sandbox.server import RunningSandbox, running_sandbox

WORKERS = 4
TOLERATED = 1.1
RECEIVERS_LIMIT = 50.0
CHUNKS, CHUNK = 4, 250
"""The number of chunks of each of two runs, and the payloads in each chunk."""
ACCOUNTS_LIMIT = 10.0
READERS = 8
RECORDS = 15_000
START = datetime(2024, 5, 1, tzinfo=timezone.utc)
POOLS = {"no_pool": 0, "one_slot": 1, "four_slots": 4}
"""The kinds of DAGs, and the slots of their pools, which have the same names. The first kind has no pool."""

DAG_FILE = """
import sys
sys.path.append({benchmarks!r})
from contestants import make_payloads
from airflow.sdk import DAG, task
from airflow_insightly_hooks import Workflow
from airflow_insightly_hooks.operators.common.payload_chunks import push_chunks
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator

for kind, slots in {kinds!r}.items():
    in_pool = {{"pool": kind}} if slots else {{}}
    with DAG(f"receiver_{{kind}}", schedule=None):
        @task
        def chunks(ti=None):
            payloads = make_payloads({chunks} * {chunk})
            return push_chunks(ti, [payloads[i : i + {chunk}] for i in range(0, len(payloads), {chunk})])

        WebhookOperator.partial(
            task_id="deliver", webhook_conn_id=f"receiver_{{kind}}", retries=0, **in_pool
        ).expand(payloads=chunks())

    with DAG(f"insightly_{{kind}}", schedule=None):
        for number in range({readers}):
            InsightlyWorkflowOperator(
                task_id=f"read_{{number}}",
                workflow=Workflow(
                    name=f"{{kind}} {{number}}",
                    record_type="Contacts",
                    insightly_conn_id=f"insightly_{{kind}}",
                    criteria={{"field": "FIRST_NAME", "operator": "equals", "value": "nobody"}},
                    webhooks=[{{"name": "none", "conn_id": f"receiver_{{kind}}"}}],
                ),
                window={{"start": "2024-05-01T00:00:00Z", "end": "2024-06-01T00:00:00Z"}},
                retries=0,
                **in_pool,
            )
"""


class RequestTimes:
    """Counts the requests to the sandbox's API, and the requests in its busiest 10 s."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._span = BusiestSpan()

    def add(self) -> None:
        """Count a request."""
        with self._lock:
            self._span.add(time.monotonic())

    def take(self) -> tuple[int, int]:
        """Return how many requests there were since the last call, and how many in the busiest 10 s."""
        with self._lock:
            span, self._span = self._span, BusiestSpan()
        return span.count, span.most


@contextmanager
def account(times: RequestTimes) -> Iterator[RunningSandbox]:
    """Run a sandbox whose records take many requests to read, and that counts these."""
    acquire = RequestLimits.acquire

    def counted(limits: RequestLimits) -> RateLimitResult:
        times.add()
        return acquire(limits)

    RequestLimits.acquire = counted  # type: ignore[method-assign]
    try:
        with running_sandbox() as sandbox:
            sandbox.configure(requests_per_second=10_000, requests_per_day=10**9)
            for first in range(0, RECORDS, 1_000):
                sandbox.create_many("Contacts", map(contact, range(first, first + 1_000)))
            yield sandbox
    finally:
        RequestLimits.acquire = acquire  # type: ignore[method-assign]


def contact(number: int) -> dict[str, Any]:
    """Return a record that was created, and last updated, at a second of its own in May 2024."""
    created = START + timedelta(seconds=number * 100)
    times = dict.fromkeys(("DATE_CREATED_UTC", "DATE_UPDATED_UTC"), f"{created:%Y-%m-%d %H:%M:%S}")
    return {"FIRST_NAME": str(number), **times}


def connections(receiver: RunningReceiver, sandbox: RunningSandbox) -> dict[str, dict[str, Any] | str]:
    """Return the connections of each kind of DAG: each task's share of the limit."""
    found: dict[str, dict[str, Any] | str] = {}
    for kind, slots in POOLS.items():
        found[f"receiver_{kind}"] = {
            "conn_type": "insightly_webhook",
            "host": receiver.url,
            "extra": {"requests_per_second": RECEIVERS_LIMIT / (slots or 1)},
        }
        found[f"insightly_{kind}"] = {
            "conn_type": "insightly",
            "host": sandbox.api_url,
            "password": sandbox.api_key,
            "extra": {"requests_per_second": ACCOUNTS_LIMIT / (slots or 1)},
        }
    return found


def report(
    kind: str, what: str, busiest: int, limit: float, number: int, tasks: list[dict[str, Any]]
) -> bool:
    """Print what was measured; return whether the limit was kept."""
    ratio = busiest / (SPAN * limit)
    began = min(instant(task["start_date"]) for task in tasks)
    ended = max(instant(task["end_date"]) for task in tasks)
    rate = number / (ended - began)
    slots = POOLS[kind]
    pool = f"pool of {slots} slot{'s' if slots > 1 else ''}, {limit / slots:g} each" if slots else "no pool"
    print(
        f"{what}, {pool}: {busiest} in the busiest 10 s, {ratio:.2f} of the limit; {number} in "
        f"{ended - began:.0f} s, {rate:.1f} a second ({rate / limit:.0%} of the limit), by "
        f"{len({task['hostname'] for task in tasks})} workers",
        flush=True,
    )
    return ratio <= TOLERATED


def measure_receiver(runs: CeleryRuns, receiver: RunningReceiver) -> bool:
    """Measure how many POSTs a receiver gets."""
    is_kept = True
    for kind in POOLS:
        receiver.take_counts()
        tasks = [task for task in runs.run(f"receiver_{kind}", runs=2) if task["task_id"] == "deliver"]
        counts = receiver.take_counts()
        assert counts.posts == 2 * CHUNKS * CHUNK, counts
        was_kept = report(kind, "receiver", counts.busiest, RECEIVERS_LIMIT, counts.posts, tasks)
        is_kept = is_kept and (was_kept or not POOLS[kind])
    return is_kept


def measure_insightly(runs: CeleryRuns, times: RequestTimes) -> bool:
    """Measure how many requests Insightly gets."""
    is_kept = True
    for kind in POOLS:
        times.take()
        tasks = runs.run(f"insightly_{kind}")
        number, busiest = times.take()
        was_kept = report(kind, "Insightly", busiest, ACCOUNTS_LIMIT, number, tasks)
        is_kept = is_kept and (was_kept or not POOLS[kind])
    return is_kept


def main() -> int:
    what = sys.argv[1:] or ["receiver", "insightly"]
    if (reason := reason_to_skip()) is not None:
        print(f"limits: {reason}")
        return 2
    dag_file = DAG_FILE.format(
        benchmarks=str(Path(__file__).parent),
        kinds=POOLS,
        chunks=CHUNKS,
        chunk=CHUNK,
        readers=READERS,
    )
    dag_ids = [f"{name}_{kind}" for name in what for kind in POOLS]
    times = RequestTimes()
    with (
        receiving() as receiver,
        account(times) as sandbox,
        celery_runs(dag_file, dag_ids, connections(receiver, sandbox)) as runs,
    ):
        for kind, slots in POOLS.items():
            if slots:
                runs.stack.api("/pools", "POST", {"name": kind, "slots": slots})
        runs.start_workers(WORKERS)
        kept = [measure_receiver(runs, receiver)] if "receiver" in what else []
        kept += [measure_insightly(runs, times)] if "insightly" in what else []
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
