"""Airflow with the Celery executor: three workers without shared files. One dies, and one joins late.

All tests look at one storm. Three kinds of DAGs are running: mapped chunks, a workflow in one task, and a
workflow that record changes wake. Then the busiest worker dies, the broker goes away and comes back empty,
and a new worker joins.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from celery_stack import CeleryStack, celery_stack, reason_to_skip

from airflow_insightly_hooks.core.delivery.message_id import message_id
from airflow_insightly_hooks.demo.airflow_stack import free_port, wait_for
from tests.e2e.conftest import API_KEY, CANARY, PASSWORD, USERNAME, Stack
from tests.e2e.test_secrets import SECRETS, rows

pytestmark = [pytest.mark.e2e, pytest.mark.scale, pytest.mark.timeout(600)]

DAGS = Path(__file__).parent / "celery_dags"
DAG_IDS = ("chunks", "one_task", "woken", "woken__pending")
CONTACTS = 480
CHUNKS = CONTACTS // 60
ANSWERS_AFTER = {"chunks": 0.1, "one_task": 0.2, "now": 0.1, "later": 0.1}
"""Seconds: with two POSTs at once, a chunk takes three seconds, and the workflow in one task 24."""
WINDOW = timedelta(seconds=1.5)
"""Of POSTs that a kill may repeat: the ledger's interval is one, the rest is for a busy machine."""
ID_FIELDS = {"chunks": "CONTACT_ID", "one_task": "CONTACT_ID", "now": "LEAD_ID", "later": "LEAD_ID"}


@dataclass(frozen=True)
class Post:
    """A POST that a receiver has read."""

    at: datetime
    record_id: int
    message_id: str
    sender: str


@dataclass
class Storm:
    """The results of the storm.

    :ivar contacts: the ids of the contacts.
    :ivar leads: the ids of the leads that were added during the storm.
    :ivar victim: the worker that died.
    :ivar killed_at: when the worker died.
    :ivar lost_messages: the number of tasks' messages that the broker has lost.
    :ivar states: the states in which the runs ended, by DAG.
    :ivar tries: the tries of each task instance in order, by DAG, task id and map index.
    """

    stack: Stack
    airflow: CeleryStack
    contacts: list[int]
    leads: list[int]
    victim: str
    killed_at: datetime
    lost_messages: int
    states: dict[str, list[str]]
    tries: dict[tuple[str, str, int], list[dict[str, Any]]]

    def posts(self, receiver: str) -> list[Post]:
        """Return what a receiver has acknowledged."""
        return [
            Post(
                _time(kept["received_at"]),
                json.loads(kept["body"])["entity"][ID_FIELDS[receiver]],
                kept["headers"]["webhook-id"],
                kept["headers"].get("x-sender", ""),
            )
            for kept in self.stack.received(receiver)
            if kept["acknowledged_with"] == 200
        ]

    def repeated(self, receiver: str) -> list[Post]:
        """Return the POSTs whose message was POSTed again later."""
        earlier: dict[str, Post] = {}
        found = []
        for post in self.posts(receiver):
            if post.message_id in earlier:
                found.append(earlier[post.message_id])
            earlier[post.message_id] = post
        return found

    def figures(self) -> str:
        """Return the numbers that describe the storm."""
        tries = [one for found in self.tries.values() for one in found]
        hosts = Counter(one["hostname"] for one in tries)
        again = [one["start_date"] for one in tries if one["try_number"] > 1 and one["start_date"]]
        seconds = sorted((_time(start) - self.killed_at).total_seconds() for start in again)
        posts = {name: (len(self.posts(name)), len(self.repeated(name))) for name in ID_FIELDS}
        return (
            f"{self.victim} died; its tasks began again after {seconds} s; "
            f"the broker lost {self.lost_messages} messages; tries by worker: {dict(hosts)}; "
            f"POSTs, and those that came again: {posts}"
        )


@pytest.fixture(scope="module")
def storm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storm]:
    if (reason := reason_to_skip()) is not None:
        pytest.skip(reason)
    with _started(tmp_path_factory.mktemp("celery")) as (stack, airflow):
        contacts, conf = _add_contacts(stack)
        stack.unpause("woken")
        # Its first run says from where on leads count.
        wait_for(
            "the first run", lambda: {"success"} & {run["state"] for run in _runs(airflow, "woken")}, 120
        )
        for dag_id in ("chunks", "one_task"):
            stack.start_run(dag_id, **conf)
        pump = _Leads(stack)
        victim = _worker_with_most_to_do(stack, airflow, pump)
        airflow.kill_worker(victim)
        killed_at = datetime.now(timezone.utc)
        airflow.start_worker("late")
        wait_for("messages at the broker", lambda: pump.add() and airflow.queued_messages() > 1, 120)
        airflow.cut_broker()
        lost = airflow.queued_messages()
        airflow.empty_broker()
        pump.add(5)
        airflow.restore_broker()
        airflow.wait_for_worker("late")
        pump.add(10)
        wait_for("the end of all runs", lambda: _is_done(stack, airflow, pump.ids), 240)
        states = {dag_id: [run["state"] for run in _runs(airflow, dag_id)] for dag_id in DAG_IDS}
        tries = {key: tries for dag_id in DAG_IDS for key, tries in _tries(airflow, dag_id)}
        storm = Storm(stack, airflow, contacts, pump.ids, victim, killed_at, lost, states, tries)
        logging.getLogger(__name__).info(storm.figures())
        yield storm


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


class _Leads:
    """Adds a lead to the CRM every two seconds at most."""

    def __init__(self, stack: Stack) -> None:
        self.ids: list[int] = []
        self._stack = stack
        self._next = time.monotonic()

    def add(self, seconds: float = 0.0) -> bool:
        """Add a lead if one is due, and more until the time is over."""
        end = time.monotonic() + seconds
        while True:
            if time.monotonic() >= self._next:
                lead = {"LAST_NAME": f"Lead {len(self.ids)}", "LEAD_DESCRIPTION": CANARY}
                made = self._stack.crm("POST", "/Leads", {**lead, "LEAD_SOURCE_ID": 1, "LEAD_STATUS_ID": 1})
                self.ids.append(made["LEAD_ID"])
                self._next = time.monotonic() + 2
            if time.monotonic() >= end:
                return True
            time.sleep(0.2)


@contextlib.contextmanager
def _started(home: Path) -> Iterator[tuple[Stack, CeleryStack]]:
    """Start Airflow with two workers of two slots, the sandbox, and receivers in it."""
    sandbox = f"http://127.0.0.1:{free_port()}"
    receiver = {"conn_type": "insightly_webhook", "login": USERNAME, "password": PASSWORD}
    connections = {
        "insightly_default": {"conn_type": "insightly", "host": f"{sandbox}/v3.1", "password": API_KEY},
        **{f"receiver_{name}": {**receiver, "host": f"{sandbox}/bin/{name}"} for name in ID_FIELDS},
    }
    dags = shutil.copytree(DAGS, home / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    settings = {"AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3"}
    with celery_stack(home / "airflow", dags, connections, settings) as airflow:
        command = [sys.executable, "-m", "airflow_insightly_hooks.sandbox", "--port", sandbox.rsplit(":")[-1]]
        airflow.processes.start("sandbox", command, airflow.env)
        airflow.start()
        for name in ("first", "second"):
            airflow.start_worker(name)
        airflow.wait_until_healthy()
        requests.put(f"{sandbox}/_sandbox", json={"requests_per_second": 200}, timeout=10).raise_for_status()
        stack = Stack(airflow, sandbox, airflow.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
        for name in ID_FIELDS:
            stack.bin_answers(name, delay=ANSWERS_AFTER[name])
        for dag_id in DAG_IDS:
            airflow.wait_for_dag(dag_id)
        for name in ("first", "second"):
            airflow.wait_for_worker(name)
        yield stack, airflow


def _add_contacts(stack: Stack) -> tuple[list[int], dict[str, str]]:
    """Add contacts to the CRM. Return their ids, and the window in which they changed."""
    start = datetime.now(timezone.utc).replace(microsecond=0)
    people = [
        {"FIRST_NAME": "odd" if n % 2 else "even", "LAST_NAME": f"Person {n}", "BACKGROUND": CANARY}
        for n in range(CONTACTS)
    ]
    url = f"{stack.sandbox}/_sandbox/records/Contacts?answer=ids"
    answer = requests.post(url, json=people, timeout=30)
    answer.raise_for_status()
    end = datetime.now(timezone.utc) + timedelta(seconds=1)
    return answer.json(), {"start": start.isoformat(), "end": end.isoformat()}


def _worker_with_most_to_do(stack: Stack, airflow: CeleryStack, leads: _Leads) -> str:
    """Wait until a worker runs both the workflow in one task and a chunk. Return its name."""

    def look() -> str | None:
        leads.add()
        if len(stack.received("one_task")) < 60:
            return None
        running = {
            dag_id: {
                task["hostname"]
                for run in _runs(airflow, dag_id)
                for task in _task_instances(airflow, run)
                if task["task_id"] == task_id and task["state"] == "running"
            }
            for dag_id, task_id in (("one_task", "flow"), ("chunks", "deliver"))
        }
        return min(running["one_task"] & running["chunks"], default=None)

    victim = wait_for("a worker with both", look, 180, interval=0.1)
    time.sleep(1)
    return victim


def _runs(airflow: CeleryStack, dag_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = airflow.api(f"/dags/{dag_id}/dagRuns?limit=200")["dag_runs"]
    return found


def _task_instances(airflow: CeleryStack, run: dict[str, Any]) -> list[dict[str, Any]]:
    path = f"/dags/{run['dag_id']}/dagRuns/{quote(run['dag_run_id'])}/taskInstances?limit=200"
    found: list[dict[str, Any]] = airflow.api(path)["task_instances"]
    return found


def _tries(airflow: CeleryStack, dag_id: str) -> Iterator[tuple[tuple[str, str, int], list[dict[str, Any]]]]:
    """Yield the tries of each task instance. Several runs share one key."""
    by_key: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for run in _runs(airflow, dag_id):
        for task in _task_instances(airflow, run):
            path = f"/dags/{dag_id}/dagRuns/{quote(run['dag_run_id'])}/taskInstances/{task['task_id']}"
            index = task["map_index"]
            path += f"/{index}/tries" if index >= 0 else "/tries"
            tries = airflow.api(path)["task_instances"]
            by_key.setdefault((dag_id, task["task_id"], index), []).extend(tries)
    yield from by_key.items()


def _is_done(stack: Stack, airflow: CeleryStack, leads: list[int]) -> bool:
    airflow.processes.check()
    runs = [run for dag_id in DAG_IDS for run in _runs(airflow, dag_id)]
    if not all(run["state"] in ("success", "failed") for run in runs):
        return False
    return all(set(leads) <= set(stack.received_ids(name, "LEAD_ID")) for name in ("now", "later"))


def test_nothing_is_lost(storm: Storm) -> None:
    """Each change reaches its receiver, although a worker died and the broker lost messages."""
    wanted = {
        "chunks": set(storm.contacts),
        "one_task": set(storm.contacts[::2]),
        "now": set(storm.leads),
        "later": set(storm.leads),
    }
    assert {name: {post.record_id for post in storm.posts(name)} for name in wanted} == wanted


def test_each_change_has_one_message_id(storm: Storm) -> None:
    """A record's messages have the same id, whichever worker sends them."""
    for receiver in ID_FIELDS:
        ids = {(post.record_id, post.message_id) for post in storm.posts(receiver)}
        records = Counter(record_id for record_id, _ in ids)
        assert set(records.values()) == {1}, receiver


def test_all_runs_end_well(storm: Storm) -> None:
    """The runs succeed. A kill costs the tasks of that worker one try, and a lost message costs no try."""
    assert {dag_id: set(states) for dag_id, states in storm.states.items()} == {
        dag_id: {"success"} for dag_id in DAG_IDS
    }
    lost = {key for key, tries in storm.tries.items() for one in tries if one["state"] == "failed"}
    assert ("one_task", "flow", -1) in lost
    for key, tries in storm.tries.items():
        for one in tries:
            if one["state"] not in ("success", "skipped"):
                assert one["hostname"] == storm.victim, key


def test_a_kill_repeats_what_its_last_second_sent(storm: Storm) -> None:
    """Only messages that were under way, or sent in the dead worker's last second, are sent twice."""
    for receiver in ID_FIELDS:
        repeated = storm.repeated(receiver)
        begin = storm.killed_at - WINDOW - timedelta(seconds=ANSWERS_AFTER[receiver])
        assert [post for post in repeated if not begin <= post.at <= storm.killed_at] == []
    hosts = {
        f"{key[2]}/{one['try_number']}": one["hostname"]
        for key, tries in storm.tries.items()
        if key[:2] == ("chunks", "deliver")
        for one in tries
    }
    assert {hosts[post.sender] for post in storm.repeated("chunks")} <= {storm.victim}


def test_the_storm_was_one(storm: Storm) -> None:
    """The broker has lost tasks' messages, and each of the three workers has run tasks."""
    assert storm.lost_messages > 0
    hosts = Counter(one["hostname"] for tries in storm.tries.values() for one in tries)
    assert {"first", "second", "late"} <= set(hosts)
    assert len(storm.tries) > CHUNKS


def test_no_secret_and_no_record_is_in_any_log(storm: Storm) -> None:
    """Neither secrets nor record contents stand in the logs of workers and tasks."""
    logs = [path for path in storm.airflow.home.rglob("*.log") if path.name != "sandbox.log"]
    for name in ("first", "second", "late"):
        assert list((storm.airflow.worker_home(name) / "logs").rglob("*.log")), name
    for path in logs:
        text = path.read_text(errors="replace")
        for secret in (*SECRETS, CANARY):
            assert secret not in text, path


def test_no_secret_and_no_record_is_in_celerys_results(storm: Storm) -> None:
    """Celery's table of results, which workers can read, holds neither secrets nor record contents."""
    found = list(rows(storm.airflow.env["AIRFLOW__CELERY__RESULT_BACKEND"].removeprefix("db+")))
    assert sum(table == "celery_taskmeta" for table, _ in found) > CHUNKS
    for table, text in found:
        for secret in (*SECRETS, CANARY):
            assert secret not in text, f"table {table}"


def test_workers_have_no_way_to_the_database(storm: Storm) -> None:
    """A worker's environment has neither the database's address nor a connection."""
    for name in ("second" if storm.victim == "first" else "first", "late"):
        environment = Path(f"/proc/{storm.airflow.processes.pid(name)}/environ").read_text(errors="replace")
        assert storm.stack.database not in environment
        assert PASSWORD not in environment
        assert "AIRFLOW_CONN_" not in environment


def test_message_ids_are_those_of_one_machine(storm: Storm) -> None:
    """The leads' message ids are the same as on one machine: computed from workflow, record and change."""
    for lead, sent in {post.record_id: post.message_id for post in storm.posts("now")}.items():
        record = storm.stack.crm("GET", f"/Leads/{lead}")
        created = record["DATE_CREATED_UTC"].replace(" ", "T") + "Z"
        assert sent == message_id("woken/now", "Leads", lead, "added", created)
