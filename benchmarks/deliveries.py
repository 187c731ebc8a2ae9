"""How long searches and overviews of 100,000 deliveries in 5,000 runs take, and what a ledger's details cost.

``search`` and ``overview`` read a fresh metadata database (PostgreSQL if it answers, or else SQLite). The
deliver task's own code wrote its ledgers: 30 days of 40 workflows. An overview has all workflows, or 20 of
them. A page shows the newest 50 deliveries of 20 workflows, or matching ones. ``cost`` compares a task with
100,000 messages with the same task without details in its ledger. Its store takes 10 ms for each write, and
its receiver answers at once, so the task does not wait for a receiver.

Run: ``python benchmarks/deliveries.py [search|overview|cost]``
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

from time_triggers import database, prepare

RUNS, A_RUN = 5_000, 20
MESSAGES = 100_000
WORKFLOWS = 40
TARGET_SECONDS = 1.0
OVERVIEW_SECONDS = 0.2
"""The limit for an overview's page, and for a page of deliveries unless it searches for a record."""
RECORD_SECONDS = 0.8
NOW = datetime.now(timezone.utc).replace(microsecond=0)
START = NOW - timedelta(days=29)  # all of it in the days that an overview counts
BETWEEN_RUNS = (NOW - START) / RUNS
DAG_IDS = [f"workflow_{number}" for number in range(WORKFLOWS)]
PENDING = 10_000


def message_id(number: int) -> str:
    return f"msg_{hashlib.sha256(str(number).encode()).hexdigest()[:24]}"


class Rows:
    """A task state store that collects rows for the database."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def set(self, key: str, value: Any) -> None:
        self.values[key] = value

    def delete(self, key: str) -> None:
        self.values.pop(key, None)


def ledger_of(run: int) -> dict[str, Any]:
    """Return the ledger of a run: 20 messages. Every 50th run has failures."""
    from airflow_insightly_hooks.core.delivery.delivery_record import PostOutcome, about_of
    from airflow_insightly_hooks.core.delivery.ledger import ACKNOWLEDGED, FAILED
    from airflow_insightly_hooks.core.delivery.ledger_store import LedgerStore

    rows, at = Rows(), START + run * BETWEEN_RUNS
    store = LedgerStore(rows, f"1-{run:08x}")
    ledger = store.open(2, 3)
    ledger.about = {
        "webhook": f"{DAG_IDS[run % WORKFLOWS]}/out",
        "conn_id": f"receiver_{run % 4}",
        "receiver": f"https://receiver-{run % 4}.example.com/",
    }
    for place in range(A_RUN):
        number = run * A_RUN + place
        message, is_failure = message_id(number), run % 50 == 0 and place % 5 == 0
        ledger.expect(message, about_of("Contacts", number % 30_000, "updated", f"{at:%Y-%m-%dT%H:%M:%SZ}"))
        ledger.posting(message)
        outcome = PostOutcome(at, 0.12, 503 if is_failure else 200, "503" if is_failure else None)
        ledger.answered(message, FAILED if is_failure else ACKNOWLEDGED, outcome)
    store.write(ledger)
    return rows.values


def states_of(run: int) -> Iterator[tuple[str, str, Any]]:
    """Yield the state of the tasks of a run: task id, key and value."""
    from airflow_insightly_hooks.core.state.run_counts import RUN_COUNTS, RunCounts

    yield "detect", RUN_COUNTS, RunCounts(40, None, 9_000, 10_000, f"insightly_{run % 2}").as_dict()
    yield "evaluate", RUN_COUNTS, RunCounts(met=A_RUN).as_dict()
    for key, value in ledger_of(run).items():
        yield "deliver", key, value


def asset_states() -> Iterator[tuple[str, Any]]:
    """Yield the state of the records' asset: a receiver that is down, and waiting and pending messages."""
    from airflow_insightly_hooks.core.delivery.receiver_status import RECEIVER, ReceiverStatus
    from airflow_insightly_hooks.core.state.pending_webhooks import (
        PendingWebhook,
        PendingWebhooks,
        pending_key,
    )
    from airflow_insightly_hooks.core.state.retry_queue import RETRY, MessageSource, RetryQueue

    rows = Rows()
    for number, dag_id in enumerate(DAG_IDS):
        status = ReceiverStatus(NOW - timedelta(hours=1), NOW, f"{dag_id}/run", number % 4 == 0, "503")
        rows.set(f"{RECEIVER}/{dag_id}/out", status.as_dict())
        queue = RetryQueue(rows, f"{RETRY}/{dag_id}/out")
        queue.enter(MessageSource(dag_id, "run", "deliver", -1, "build", 5), "from__run", NOW)
    due = NOW + timedelta(days=1)
    for dag_id in DAG_IDS[:4]:
        entries = [PendingWebhook(record, due, "added", "2026-01-30T08:00:00Z") for record in range(1, 2_501)]
        PendingWebhooks(rows, pending_key(dag_id, "later")).add(entries)
    yield from rows.values.items()


def fill() -> None:
    from airflow.models import DagModel
    from airflow.models.asset import AssetModel, TaskInletAssetReference
    from airflow.models.asset_state_store import AssetStateStoreModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.dagrun import DagRun, DagRunType
    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState
    from sqlalchemy import insert, select, text, update

    with create_session() as session:
        session.add(DagBundleModel(name="benchmark"))
        asset = AssetModel(
            name="insightly/insightly_0/Contacts", uri="insightly://insightly_0/Contacts", group="asset"
        )
        session.add(asset)
        session.flush()
        session.add_all(
            DagModel(dag_id=dag_id, bundle_name="benchmark", fileloc="dags.py", is_stale=False)
            for dag_id in DAG_IDS
        )
        session.flush()
        session.add_all(
            TaskInletAssetReference(asset_id=asset.id, dag_id=dag_id, task_id="detect") for dag_id in DAG_IDS
        )
        session.add_all(
            AssetStateStoreModel(asset_id=asset.id, key=key, value=json.dumps(value), updated_at=NOW)
            for key, value in asset_states()
        )
        session.add_all(
            DagRun(
                dag_id=DAG_IDS[run % WORKFLOWS],
                run_id=f"run_{run}",
                run_type=DagRunType.SCHEDULED,
                state=DagRunState.SUCCESS,
                run_after=START + run * BETWEEN_RUNS,
                logical_date=START + run * BETWEEN_RUNS,
            )
            for run in range(RUNS)
        )
        session.flush()
        session.execute(update(DagRun).values(updated_at=DagRun.run_after))
        ids = dict(session.execute(select(DagRun.run_id, DagRun.id)).all())  # type: ignore[arg-type]
        rows = [
            {
                "dag_run_id": ids[f"run_{run}"],
                "dag_id": DAG_IDS[run % WORKFLOWS],
                "run_id": f"run_{run}",
                "task_id": task_id,
                "map_index": -1,
                "key": key,
                "value": json.dumps(value),
                "updated_at": START + run * BETWEEN_RUNS + timedelta(seconds=1),
            }
            for run in range(RUNS)
            for task_id, key, value in states_of(run)
        ]
        for start in range(0, len(rows), 1_000):
            session.execute(insert(TaskStateStoreModel), rows[start : start + 1_000])
    with create_session() as session:
        if session.get_bind().dialect.name == "postgresql":  # as its own daemon does after a while
            session.execute(text("ANALYZE"))


def seconds(call: Callable[[], Any], times: int = 5) -> tuple[float, Any]:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        result = call()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken), result


def searches() -> Iterator[tuple[str, Any, int]]:
    from airflow_insightly_hooks.database.deliveries import DeliveryFilter

    yield "the newest 100", DeliveryFilter(), 100
    yield "the deliveries of a record", DeliveryFilter(records=[(None, 12_345)]), 100
    yield "one message", DeliveryFilter(message_ids=[message_id(4_321)]), 100
    yield "all that is undelivered", DeliveryFilter(state="undelivered"), 10_000
    yield (
        "one receiver, a week",
        DeliveryFilter(receiver="receiver_1", since=NOW - timedelta(days=7)),
        1_000,
    )
    yield "one receiver, nothing undelivered", DeliveryFilter(receiver="receiver_1", state="undelivered"), 100
    yield "four DAGs, all 10,000", DeliveryFilter(dag_ids=DAG_IDS[:4]), 10_000
    yield "a record that there isn't", DeliveryFilter(records=[(None, 999_999)]), 100
    others = [message_id(-number) for number in range(1, 100)]  # too many for the database to look for
    yield "all 100,000, opened one by one", DeliveryFilter(message_ids=others), 100


@contextmanager
def filled() -> Iterator[Any]:
    """Yield a session of a database with all of it."""
    with tempfile.TemporaryDirectory() as folder, database(Path(folder)) as address:
        prepare(Path(folder), address)
        from airflow.utils.session import create_session

        fill()
        print(f"{RUNS:,} runs, {RUNS * A_RUN:,} deliveries, {address.split(':')[0]}; medians of 5")
        with create_session() as session:
            yield session


def measure_search() -> bool:
    slowest = 0.0
    with filled() as session:
        from airflow_insightly_hooks.database.deliveries import search_deliveries

        for name, wanted, limit in searches():
            taken, found = seconds(lambda: search_deliveries(session, wanted, limit=limit))  # noqa: B023
            slowest = max(slowest, taken)
            print(f"{name:<36} {taken * 1000:7.0f} ms  {len(found.rows):>6} rows")
    print(f"slowest: {slowest:.2f} s (wanted: at most {TARGET_SECONDS:.0f} s)")
    return slowest <= TARGET_SECONDS


def pages() -> Iterator[tuple[str, Any, float]]:
    """Yield the filters of pages of deliveries, and the seconds that each may take."""
    from airflow_insightly_hooks.database.deliveries import DeliveryFilter

    readable = DeliveryFilter(dag_ids=DAG_IDS[:20])
    yield "the newest 50", readable, OVERVIEW_SECONDS
    yield "one workflow", DeliveryFilter(dag_ids=["workflow_3"]), OVERVIEW_SECONDS
    yield "one receiver", readable._replace(receiver="receiver_1"), OVERVIEW_SECONDS
    for state in ("delivered", "undelivered", "failed", "gone", "left"):
        yield state, readable._replace(state=state), OVERVIEW_SECONDS
    yield "a record", readable._replace(records=[("Contacts", 12_345)]), RECORD_SECONDS


def measure_overview() -> bool:
    is_good = True

    def tell(name: str, taken: float, rows: int, target: float) -> None:
        nonlocal is_good
        is_good &= taken <= target
        print(f"{name:<36} {taken * 1000:7.0f} ms  {rows:>6} rows (wanted: at most {target * 1000:.0f} ms)")

    with filled() as session:
        from airflow_insightly_hooks.database.deliveries import search_deliveries
        from airflow_insightly_hooks.database.overview.overview import read_overview

        for count in (WORKFLOWS, 20):
            taken, found = seconds(lambda: read_overview(session, DAG_IDS[:count], NOW))  # noqa: B023
            tell(f"an overview of {count} workflows", taken, len(found.workflows), OVERVIEW_SECONDS)
        for name, wanted, target in pages():
            taken, page = seconds(lambda: search_deliveries(session, wanted, limit=50))  # noqa: B023
            tell(f"deliveries: {name}", taken, len(page.rows), target)
    return is_good


class SlowStore:
    """A task state store whose writes take 10 ms, like Airflow's."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any, **_: Any) -> None:
        self.values[key] = json.dumps(value)
        time.sleep(0.01)

    def delete(self, key: str) -> None:
        self.values.pop(key, None)


class TaskInstance:
    max_tries, try_number, map_index = 2, 1, -1
    dag_id, run_id, task_id = "workflow", "run", "deliver"

    def xcom_push(self, **_: Any) -> None:
        """Keep nothing."""


def deliver(*, has_details: bool) -> tuple[float, float]:
    """Return the seconds of a task with 100,000 messages, and the megabytes of its ledger."""
    from airflow_insightly_hooks.core.delivery.ledger import Ledger
    from airflow_insightly_hooks.operators.webhook import WebhookOperator

    expect = Ledger.expect
    if not has_details:
        Ledger.expect = lambda *_: None  # type: ignore[method-assign,assignment]
    payloads = [
        {
            "message_id": message_id(number),
            "record_type": "Contacts",
            "record_id": 300_000_000 + number,
            "event": "updated",
            "changed_at": "2026-01-31T08:00:00Z",
            "body": "{}",
        }
        for number in range(MESSAGES)
    ]
    store = SlowStore()
    try:
        operator = WebhookOperator(task_id="deliver", payloads=payloads)
        started = time.perf_counter()
        operator.execute({"task_state_store": store, "ti": TaskInstance()})  # type: ignore[typeddict-item]
        return time.perf_counter() - started, sum(map(len, store.values.values())) / 1e6
    finally:
        Ledger.expect = expect  # type: ignore[method-assign]


def measure_cost() -> bool:
    from airflow_insightly_hooks.hooks.post.post_result import PostResult
    from airflow_insightly_hooks.hooks.webhook import WebhookHook

    def send(*_: Any, **__: Any) -> PostResult:
        until = time.perf_counter() + 0.0006  # the processor time of a POST, as bench-delivery measures it
        while time.perf_counter() < until:
            pass
        return PostResult(acknowledged=True, status=200, elapsed=0.0006)

    logging.disable(logging.CRITICAL)
    os.environ["AIRFLOW_CONN_WEBHOOK_DEFAULT"] = '{"conn_type": "insightly_webhook", "host": "http://x.test"}'
    WebhookHook.send = send  # type: ignore[method-assign,assignment]
    taken: dict[bool, list[float]] = {False: [], True: []}
    size = 0.0
    for _ in range(3):
        for has_details in (False, True):
            duration, size = deliver(has_details=has_details)
            taken[has_details].append(duration)
    without, with_details = statistics.median(taken[False]), statistics.median(taken[True])
    share = with_details / without - 1
    print(
        f"{MESSAGES:,} messages: {without:.1f} s without, {with_details:.1f} s with the record: {share:+.1%}"
    )
    print(f"The ledger with its record: {size:.1f} MB (wanted: at most 12 MB, and 5 % of the time)")
    return share <= 0.05 and size <= 12


def main(which: str | None) -> bool:
    measures = {"cost": measure_cost, "search": measure_search, "overview": measure_overview}
    results = [measure() for name, measure in measures.items() if which in (None, name)]
    return all(results)


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1] if len(sys.argv) > 1 else None) else 1)
