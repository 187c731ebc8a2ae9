"""The cost of 10,000 pending webhooks for the scheduler: as queued runs, and as entries in stored state.

It measures the scheduler's own query for queued runs on a fresh metadata database (PostgreSQL if it answers,
or else SQLite), in three states: nothing is pending; each of 10,000 webhooks has a queued run with a
``run_after``; 10,000 webhooks are entries of one queued run (``operators.pending``).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

from postgresql import NoServerError, temporary_database

PENDING = 10_000
DAG_FILE = """
from airflow_insightly_hooks import Webhook, Workflow

Workflow(
    name="later", record_type="Contacts", schedule=None, webhooks=[Webhook(name="w", conn_id="c", after="3d")]
).to_dag()
"""


@contextmanager
def database(home: Path) -> Iterator[str]:
    """Yield the address of a new database."""
    with ExitStack() as cleanup:
        try:
            address = cleanup.enter_context(temporary_database())
        except NoServerError:
            address = f"sqlite:///{home / 'airflow.db'}"
        yield address


def prepare(home: Path, address: str) -> None:
    """Make the metadata database, with the DAGs of one workflow."""
    (home / "dags").mkdir()
    (home / "dags" / "later.py").write_text(f"# dag airflow\n{DAG_FILE}")
    os.environ.update(
        {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": address,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        }
    )
    for command in (("db", "migrate"), ("dags", "reserialize")):
        subprocess.run([sys.executable, "-m", "airflow", *command], check=True, capture_output=True)


def milliseconds(call: Callable[[], object], times: int = 100) -> float:
    """Return the median time of a call."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken)


def measure() -> None:
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun, DagRunType
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState
    from sqlalchemy import delete, update

    from airflow_insightly_hooks.core.state.pending_webhooks import PendingWebhook, PendingWebhooks

    due = datetime.now(timezone.utc) + timedelta(days=3)

    def queue(number: int) -> None:
        with create_session() as session:
            for i in range(number):
                run = DagRun(
                    dag_id="later__pending",
                    run_id=f"due__{i}",
                    run_after=due + timedelta(seconds=i),
                    run_type=DagRunType.OPERATOR_TRIGGERED,
                    state=DagRunState.QUEUED,
                )
                session.add(run)

    def look() -> None:
        with create_session() as session:
            list(DagRun.get_queued_dag_runs_to_set_running(session))

    def count_active() -> None:
        with create_session() as session:
            DagRun.active_runs_of_dags(
                dag_ids=["later", "later__pending"], exclude_backfill=True, session=session
            )

    with create_session() as session:
        session.execute(update(DagModel).values(is_paused=False))
    print(f"{'':44}{'queued runs: ms':>18}{'active runs: ms':>18}")
    found = {}
    for what, runs in (
        ("nothing pending", 0),
        (f"{PENDING:,} queued runs, one for each", PENDING),
        (f"{PENDING:,} as entries, one queued run", 1),
    ):
        with create_session() as session:
            session.execute(delete(DagRun))
        queue(runs)
        found[runs] = milliseconds(look), milliseconds(count_active)
        print(f"{what:44}{found[runs][0]:18.2f}{found[runs][1]:18.2f}")
    for runs, what in ((PENDING, "queued runs"), (1, "entries")):
        ratios = [with_them / without for with_them, without in zip(found[runs], found[0], strict=True)]
        print(f"{what}: {ratios[0]:.2f} and {ratios[1]:.2f} times as long as with nothing pending")

    class Store(dict[str, object]):
        calls = 0

        def get(self, key: str, default: object = None) -> object:
            self.calls += 1
            return super().get(key, default)

        def set(self, key: str, value: object) -> None:
            self.calls += 1
            self[key] = value

        def delete(self, key: str) -> None:
            self.calls += 1
            self.pop(key, None)

    store = Store()
    changed_at = "2026-01-01T00:00:00Z"
    entries = [
        PendingWebhook(i, due + timedelta(seconds=i), "added", changed_at) for i in range(1, PENDING + 1)
    ]
    PendingWebhooks(store, "pending").add(entries)
    print(f"entering {PENDING:,} into the state: {store.calls} calls of the state store")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, database(Path(folder)) as address:
        print(f"metadata database: {address.split(':')[0]}")
        prepare(Path(folder), address)
        measure()


if __name__ == "__main__":
    main()
