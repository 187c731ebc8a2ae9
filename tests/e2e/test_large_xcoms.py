"""XComs in Airflow's object storage backend: 50 MB pass the four tasks, and all readers of XCom work.

These tests have their own Airflow on PostgreSQL, with a threshold of 0: each XCom is a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
import sqlalchemy
from postgresql import NoServerError, temporary_database

from airflow_insightly_hooks.demo.airflow_stack import AirflowStack, wait_for
from airflow_insightly_hooks.sandbox.server import RunningSandbox, running_sandbox
from tests.e2e.conftest import CANARY, PASSWORD, USERNAME, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.scale, pytest.mark.timeout(600)]

RECORDS = 5_000
BODY = 10_000
"""Bytes of a body, at least: of all of them 50 MB."""
CHUNKS = 5
FAILED = 3
"""POSTs that the receiver of the whole list doesn't acknowledge at first."""
RECEIVERS = ("whole", "chunks", "down", "later")
BACKEND = "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend"
LEDGER = "task_state_store"
MOST_A_TASK = 2_000
MOST_XCOM = 1_000
"""Bytes of XCom for a task: it has several, and an address is 200 bytes."""
MOST_A_MESSAGE = 100
"""Bytes of the ledger for a message, packed as PostgreSQL keeps it."""
START = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(days=2)
END = START + timedelta(hours=1)


class Large(NamedTuple):
    """An Airflow that has delivered large lists, with the sizes of its tables and files at the end.

    :ivar grown: by how many bytes the rows of each table grew.
    :ivar tasks: how many task instances there were.
    """

    stack: Stack
    sandbox: RunningSandbox
    files: Path
    run_id: str
    grown: dict[str, int]
    tasks: int

    def received(self, name: str) -> list[dict[str, Any]]:
        """Return what a receiver has acknowledged."""
        return [one for one in self.sandbox.received(name) if one["acknowledged_with"] == 200]

    def page_of(self, message_id: str) -> str:
        """Return the page of one delivery, by its link in the list of deliveries."""
        listed = self.stack.airflow.page(f"/insightly/deliveries?period=all&message={message_id}")
        address = next(found for found in re.findall(r'href="([^"]*/delivery\?[^"]*)"', listed))
        assert message_id in address
        return self.stack.airflow.page(unescape(address))

    def files_of(self, dag_id: str, run_id: str, task_id: str) -> list[Path]:
        """Return the files of a task's XComs, the largest one first."""
        folder = self.files / dag_id / run_id / task_id
        return sorted(folder.iterdir(), key=lambda path: -path.stat().st_size) if folder.exists() else []


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Large]:
    """Deliver 50 MB as one list, and again as chunks."""
    with contextlib.ExitStack() as cleanup:
        home = tmp_path_factory.mktemp("airflow-large")
        try:
            address = cleanup.enter_context(temporary_database(is_durable=False))
        except NoServerError as error:
            pytest.skip(str(error))
        sandbox = cleanup.enter_context(running_sandbox())
        files = home / "xcoms"
        files.mkdir(mode=0o700)
        dags = home / "dags"
        dags.mkdir()
        shutil.copy(Path(__file__).parent / "large_xcoms" / "dags.py", dags / "large.py")
        settings = {
            "AIRFLOW__CORE__XCOM_BACKEND": BACKEND,
            "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": files.as_uri(),
            "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "0",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "86400",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
        }
        airflow = AirflowStack(home / "airflow", dags, connections(sandbox), address, settings)
        cleanup.callback(airflow.stop)
        airflow.migrate()
        airflow.start()
        sandbox.configure(requests_per_second=200)
        stack = Stack(airflow, sandbox.url, address)
        for name in RECEIVERS:
            stack.bin_answers(name)
        stack.bin_answers("whole", status=500, times=FAILED)
        make_notes(sandbox)
        airflow.wait_until_healthy()
        airflow.wait_for_dag("later__pending")
        before = sizes(address)
        run_id = stack.start_run("large", start=START.isoformat(), end=END.isoformat())
        state = stack.wait_for_run("large", run_id, 300)
        tasks = airflow.api(f"/dags/large/dagRuns/{quote(run_id)}/taskInstances?limit=100")["task_instances"]
        assert state == "success", [(task["task_id"], task["state"]) for task in tasks]
        grown = {name: size - before[name] for name, size in sizes(address).items() if size != before[name]}
        yield Large(stack, sandbox, files, run_id, grown, len(tasks))


def connections(sandbox: RunningSandbox) -> dict[str, dict[str, Any]]:
    receiver = {"conn_type": "insightly_webhook", "login": USERNAME, "password": PASSWORD}
    account = {"conn_type": "insightly", "host": sandbox.api_url, "password": sandbox.api_key}
    return {
        "insightly_default": {**account, "extra": {"requests_per_second": 100}},
        **{f"receiver_{name}": {**receiver, "host": sandbox.bin_url(name)} for name in RECEIVERS},
    }


def make_notes(sandbox: RunningSandbox) -> None:
    moment = (START + timedelta(minutes=30)).strftime("%Y-%m-%d %H:%M:%S")
    times = {"DATE_CREATED_UTC": moment, "DATE_UPDATED_UTC": moment}
    for _ in range(0, RECORDS, 1_000):
        sandbox.create_many(
            "Notes", ({"TITLE": "e2e", "BODY": CANARY.ljust(BODY, "x"), **times} for _ in range(1_000))
        )


def sizes(address: str) -> dict[str, int]:
    """Return the bytes of all rows of each table, as PostgreSQL stores them, without its indexes."""
    engine = sqlalchemy.create_engine(address)
    with engine.connect() as connection:
        found = {}
        for name in sqlalchemy.inspect(connection).get_table_names():
            row_size = sqlalchemy.func.pg_column_size(sqlalchemy.literal_column("t.*"))
            size = sqlalchemy.func.coalesce(sqlalchemy.func.sum(row_size), 0)
            table = sqlalchemy.table(name).alias("t")
            found[name] = connection.execute(sqlalchemy.select(size).select_from(table)).scalar_one()
        return found


def ids(kept: list[dict[str, Any]]) -> list[str]:
    return [one["headers"]["webhook-id"] for one in kept]


def record_ids(kept: list[dict[str, Any]]) -> list[int]:
    return [json.loads(one["body"])["entity"]["NOTE_ID"] for one in kept]


def test_fifty_megabytes_are_delivered_once(large: Large) -> None:
    """Once as one list, with a retry of the unacknowledged messages, and once as mapped chunks."""
    for name in ("whole", "chunks"):
        acknowledged = large.received(name)
        assert len(acknowledged) == len(set(ids(acknowledged))) == RECORDS
        assert len(set(record_ids(acknowledged))) == RECORDS
        assert sum(len(one["body"]) for one in acknowledged) > RECORDS * BODY
    posts = Counter(ids(large.sandbox.received("whole")))
    assert Counter(posts.values()) == {1: RECORDS - FAILED, 2: FAILED}
    assert len(large.sandbox.received("chunks")) == RECORDS
    assert large.tasks == 5 + CHUNKS


def test_the_database_grows_by_little_but_the_ledger(
    large: Large, record_property: Callable[[str, object], None]
) -> None:
    """The rows of all tables together grow by less than 2 kB for each task.

    The ledger is counted apart, since the state of each message stays in the task's state.
    """
    others = {name: size for name, size in large.grown.items() if name != LEDGER}
    record_property("bytes", large.grown)
    assert sum(others.values()) < MOST_A_TASK * large.tasks, large.grown
    assert others["xcom"] < MOST_XCOM * large.tasks
    assert 0 < large.grown[LEDGER] < MOST_A_MESSAGE * 2 * RECORDS


def test_the_files_hold_the_records_and_no_log_does(large: Large) -> None:
    """The umask and the rights of the folder above decide who may read a file."""
    os.umask(umask := os.umask(0))
    for task in ("detect", "evaluate", "build", "build_chunks"):
        files = large.files_of("large", large.run_id, task)
        assert sum(path.stat().st_size for path in files) > RECORDS * BODY
        assert CANARY in files[0].read_text()
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o666 & ~umask}
    for log in large.stack.airflow.home.rglob("*.log"):
        assert CANARY not in log.read_text(errors="replace"), log


class Left(NamedTuple):
    """Two runs of a workflow, and the lead that each has found. The second run has left its message."""

    runs: list[str]
    leads: list[int]


@pytest.fixture(scope="module")
def left(large: Large) -> Left:
    """Start two runs while a receiver is down. It has asked the first run to wait."""
    stack, started = large.stack, Left([], [])
    begin(stack, "left")
    stack.bin_answers("down", status=503, headers={"Retry-After": "20"}, times=1)
    for name in ("waits", "is left"):
        lead = {"LAST_NAME": name, "LEAD_DESCRIPTION": CANARY, "LEAD_SOURCE_ID": 1, "LEAD_STATUS_ID": 1}
        started.leads.append(stack.crm("POST", "/Leads", lead)["LEAD_ID"])
        time.sleep(2.1)
        started.runs.append(stack.start_run("left"))
        wait_for("the receiver that is down", lambda: stack.received("down"), timeout=120)
        wait_for(
            "its detect task",
            lambda: stack.tasks("left", started.runs[-1])["detect"]["state"] == "success",
            timeout=120,
        )
    return started


@pytest.mark.usefixtures("left")  # it waits for its receiver meanwhile
@pytest.mark.parametrize("name", ["whole", "chunks"])
def test_a_payload_is_shown_and_sent_again(large: Large, name: str) -> None:
    """The page reads it from its file. When the task runs again, the file of its first report is deleted."""
    kept = large.received(name)[1_234]
    (message,) = ids([kept])
    assert f"NOTE_ID&#34;: {json.loads(kept['body'])['entity']['NOTE_ID']}" in large.page_of(message)
    task = "deliver" if name == "whole" else "deliver_chunk"
    before = large.files_of("large", large.run_id, task)
    (result,) = json.loads(large.stack.command("resend", "--yes", "-o", "json", "--message", message))
    assert result["outcome"] == "cleared"
    assert large.stack.wait_for_run("large", large.run_id) == "success"
    (again,) = large.received(name)[RECORDS:]
    assert (ids([again]), again["body"]) == ([message], kept["body"])
    after = large.files_of("large", large.run_id, task)
    assert len(after) == len(before)
    assert set(after) != set(before)


def test_what_was_left_to_the_retry_dag(large: Large, left: Left) -> None:
    """Its payloads are in files of the run that has left them. Its page shows them from its own files."""
    stack, (runs, leads) = large.stack, left
    assert [stack.wait_for_run("left", run) for run in reversed(runs)] == ["success"] * 2
    assert large.files_of("left", runs[1], "deliver")
    wait_for("the rest", lambda: len(large.received("down")) == 2, timeout=120)
    by_lead = {json.loads(one["body"])["entity"]["LEAD_ID"]: one for one in large.received("down")}
    assert set(by_lead) == set(leads)
    (message,) = ids([by_lead[leads[1]]])
    rows = json.loads(stack.command("deliveries", "--message", message, "-o", "json"))
    assert {row["dag_id"]: row["state"] for row in rows} == {"left": "left", "left__retry": "delivered"}
    assert f"LEAD_ID&#34;: {leads[1]}" in large.page_of(message)


def test_what_is_sent_later(large: Large) -> None:
    """A pending webhook's entry, its time and its payload go through files, too."""
    stack = large.stack
    begin(stack, "later")
    made = {"OPPORTUNITY_NAME": "e2e", "OPPORTUNITY_STATE": "OPEN", "OPPORTUNITY_DETAILS": CANARY}
    opportunity = stack.crm("POST", "/Opportunities", made)["OPPORTUNITY_ID"]
    time.sleep(2.1)
    assert stack.wait_for_run("later", stack.start_run("later")) == "success"
    (sent,) = wait_for("what is pending", lambda: large.received("later"), timeout=120)
    assert json.loads(sent["body"])["entity"]["OPPORTUNITY_ID"] == opportunity
    assert f"OPPORTUNITY_ID&#34;: {opportunity}" in large.page_of(*ids([sent]))


def test_a_file_that_is_gone(large: Large) -> None:
    """The page and the deliver task say so, and no message counts as sent."""
    (message, *_) = ids(large.received("whole"))
    (payloads, *_) = large.files_of("large", large.run_id, "build")
    payloads.rename(large.files / "elsewhere.json")
    assert "find the file. It was deleted" in large.page_of(message)
    large.stack.command("resend", "--yes", "--message", message)
    assert large.stack.wait_for_run("large", large.run_id) == "failed"
    last = large.stack.tasks("large", large.run_id)["deliver"]["try_number"]
    log = large.stack.log("large", large.run_id, "deliver", last)
    assert "the XCom backend returned the address of its file" in log
    # The file comes back, and the message is sent as it was asked for.
    (large.files / "elsewhere.json").rename(payloads)
    before = len(large.received("whole"))
    large.stack.clear("large", large.run_id, "deliver")
    assert large.stack.wait_for_run("large", large.run_id) == "success"
    assert ids(large.received("whole")[before:]) == [message]


def test_files_stay_when_airflow_deletes_their_run(large: Large) -> None:
    """Files must be deleted by other means, as docs/how-to/scale-out.md says."""
    files = large.files_of("large", large.run_id, "build")
    large.stack.airflow.api(f"/dags/large/dagRuns/{quote(large.run_id)}", "DELETE")
    assert files
    assert large.files_of("large", large.run_id, "build") == files


def begin(stack: Stack, dag_id: str) -> None:
    """Run a workflow for the first time, which stores from when on it reads."""
    stack.unpause(*(dag["dag_id"] for dag in stack.airflow.dags() if dag["dag_id"].startswith(dag_id)))
    assert stack.wait_for_run(dag_id, stack.start_run(dag_id)) == "success"
