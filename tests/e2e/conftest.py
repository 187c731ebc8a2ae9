"""A real Airflow and the sandbox, started once for all end-to-end tests, on PostgreSQL.

Tests that are marked ``on_sqlite`` run a second time, on an Airflow with SQLite. There is one test for each
kind of state.
The results of all other tests don't depend on the database.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from postgresql import NoServerError, temporary_database

from airflow_insightly_hooks.core import exact_json
from airflow_insightly_hooks.demo.airflow_stack import AirflowStack, StackError, free_port, wait_for
from tests.e2e.collector import Collector, collecting

ROOT = Path(__file__).parent.parent.parent
API_KEY = "sandbox-key"
WRONG_KEY = "wrong-key-4f1c9b"
USERNAME = "récepteur"
PASSWORD = "pässword-7c3e:51%2F"  # what Basic authentication and URIs find hard
SIGNING_SECRET = "whsec_" + base64.b64encode(b"a key of the end-to-end tests").decode()
CANARY = "canary-d1e5a7"
NUMBER = """
name: A number beyond 64 bits
record_type: Notes
criteria: {field: TITLE, operator: equals, value: 18446744073709551616}
webhooks: [{name: any, conn_id: any}]
"""
"""Stands in every record that a test makes; it may be in XCom and at receivers, and nowhere else."""

BINS = (
    *("added", "updated", "unmet", "later", "never", "some", "cleared", "example", "help_page"),
    *("mapped", "hourly", "cursor", "uri", "json", "form", "variable"),
    *("created", "created_and_edited", "until_triggered", "dead", "alive", "timed", "watched", "grouped"),
    *("down", "up"),
    *("reporting", "redelivered", "redelivered_in_part", "same_window", "pooled"),
    *("switched", "switched_later"),
    *("in_order", "held_back", "hangs", "failing", "one_task", "second", "odd_records"),
    *("late", "late_in_one_task", "keys_now", "keys_dead", "keys_later"),
    *("days_later", "weeks_later", "desk", "desk_later"),
    *("pushed_task", "pushed_often", "pushed_or_polled", "chain_second"),
)
EXTRAS_OF: dict[str, dict[str, Any]] = {
    "redelivered": {"signing_secret": SIGNING_SECRET},
    "pooled": {"requests_per_second": 10},
    "failing": {"requests_per_second": 1_000},  # 10,000 take 10 s, however fast the machine is
}
EXAMPLES_RECEIVERS = ("sales", "projects", "chat", "support")


@dataclass
class Stack:
    """The tests' access to Airflow, the CRM and the receivers."""

    airflow: AirflowStack
    sandbox: str
    database: str
    collector: Collector | None = None
    unpaused: set[str] = field(default_factory=set)

    # --- the CRM ---------------------------------------------------------------------------------------

    def crm(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = requests.request(
            method, f"{self.sandbox}/v3.1{path}", json=body, auth=(API_KEY, ""), timeout=10
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def add_task(self, title: str, **values: Any) -> dict[str, Any]:
        task = {"TITLE": title, "COMPLETED": False, "DETAILS": CANARY, **values}
        return self.crm("POST", "/Tasks", task)

    def put_record(self, record_type: str, record: dict[str, Any]) -> dict[str, Any]:
        """Put a record into the CRM with the given times."""
        # requests would write numbers in Python's way.
        url, body = f"{self.sandbox}/_sandbox/records/{record_type}", exact_json.dumps(record)
        answer = requests.post(url, data=body, timeout=10)
        answer.raise_for_status()
        return answer.json()

    # --- the receivers -----------------------------------------------------------------------------------

    def bin_answers(self, name: str, **answer: Any) -> None:
        """Set how a bin answers. It always asks for the connection's credentials."""
        behaviour = {"username": USERNAME, "password": PASSWORD, **answer}
        requests.put(f"{self.sandbox}/bin/{name}", json=behaviour, timeout=10).raise_for_status()

    def received(self, name: str) -> list[dict[str, Any]]:
        return requests.get(f"{self.sandbox}/bin/{name}/requests", timeout=10).json()

    def received_ids(self, name: str, id_field: str = "TASK_ID") -> list[int]:
        return [json.loads(kept["body"])["entity"][id_field] for kept in self.received(name)]

    # --- the command line ---------------------------------------------------------------------------------

    def command(self, *arguments: str, code: int = 0) -> str:
        """Return the standard output of one of this package's commands. It must not hold a secret."""
        done = subprocess.run(
            [sys.executable, "-m", "airflow_insightly_hooks", *arguments],
            # Airflow says on standard output where its metrics go, in any command.
            env={**self.airflow.env, "AIRFLOW__METRICS__OTEL_ON": "False"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        return done.stdout

    # --- Airflow -------------------------------------------------------------------------------------------

    def start_run(self, dag_id: str, **conf: Any) -> str:
        """Start a run of a DAG. The DAG is paused before, so that nothing else of it runs."""
        self.unpause(dag_id)
        body = {"logical_date": None, "conf": conf}
        return self.airflow.api(f"/dags/{dag_id}/dagRuns", "POST", body)["dag_run_id"]

    def start_run_since(
        self, started: datetime, title: str, dag_id: str = "change_to_webhook", **conf: Any
    ) -> str:
        """Start a run over the time since ``started``."""
        end = datetime.now(timezone.utc) + timedelta(seconds=1)
        window = {"start": started.isoformat(), "end": end.isoformat()}
        return self.start_run(dag_id, title=title, **window, **conf)

    def unpause(self, *dag_ids: str) -> None:
        """Let DAGs be scheduled."""
        for dag_id in set(dag_ids) - self.unpaused:
            self.airflow.unpause(dag_id)
            self.unpaused.add(dag_id)

    def pause(self, *dag_ids: str) -> None:
        """Have DAGs start no more runs."""
        for dag_id in dag_ids:
            self.airflow.api(f"/dags/{dag_id}", "PATCH", {"is_paused": True})
            self.unpaused.discard(dag_id)

    def wait_for_run(self, dag_id: str, run_id: str, timeout: float = 240) -> str:
        """Return the state in which a run ended."""

        def ended() -> str | None:
            self.airflow.processes.check()
            state = self.airflow.api(f"/dags/{dag_id}/dagRuns/{quote(run_id)}")["state"]
            return state if state in ("success", "failed") else None

        try:
            return wait_for(f"the end of {dag_id} {run_id}", ended, timeout, 2)
        except StackError as error:
            raise StackError(f"{error}; unfinished:\n{self.airflow.unfinished()}") from None

    def tasks(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """Return a run's task instances by task id, and one instance of a mapped task."""
        found = self.airflow.api(f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances?limit=200")
        return {task["task_id"]: task for task in found["task_instances"]}

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.airflow.api(f"{path}?deserialize=true")["value"]

    def task_state(self, dag_id: str, run_id: str, task_id: str, key: str) -> Any:
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/state-store/{key}"
        value = self.airflow.api(path)["value"]
        return json.loads(value) if isinstance(value, str) else value

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1) -> str:
        """Return the text of a task's log as the UI gets it."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/logs/{try_number}"
        return json.dumps(self.airflow.api(f"{path}?full_content=true"), ensure_ascii=False)

    def parse(self, dag_id: str) -> None:
        """Have Airflow read a DAG's file now."""
        token = self.airflow.api(f"/dags/{dag_id}")["file_token"]
        try:
            self.airflow.api(f"/parseDagFile/{quote(token)}", "PUT")
        except StackError as error:
            if " with 409" not in str(error):  # that it is to be read already
                raise

    def clear(self, dag_id: str, run_id: str, task_id: str) -> None:
        body = {"dry_run": False, "dag_run_id": run_id, "task_ids": [task_id], "only_failed": False}
        self.airflow.api(f"/dags/{dag_id}/clearTaskInstances", "POST", body)


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Airflow and the sandbox. At the end, everything that was started is stopped, and nothing else."""
    with contextlib.ExitStack() as cleanup:
        home = tmp_path_factory.mktemp(f"airflow-{request.param}")
        database = _postgresql(cleanup) if request.param == "postgresql" else None
        sandbox = f"http://127.0.0.1:{free_port()}"
        collector = cleanup.enter_context(collecting())
        settings = _settings(sandbox, collector)
        airflow = AirflowStack(home, _dags(home), _connections(sandbox), database, settings)
        airflow.env["AIRFLOW_CONN_OWN_ENDPOINT"] = json.dumps(_own_endpoint(airflow.url))
        cleanup.callback(airflow.stop)
        command = [sys.executable, "-m", "airflow_insightly_hooks.sandbox", "--port", sandbox.rsplit(":")[-1]]
        airflow.processes.start("sandbox", command, airflow.env)
        airflow.migrate()
        airflow.start()
        airflow.wait_until_healthy()
        stack = Stack(airflow, sandbox, airflow.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"], collector)
        requests.put(f"{sandbox}/_sandbox", json={"requests_per_second": 200}, timeout=10).raise_for_status()
        for name in BINS:
            stack.bin_answers(name)
        # Listing all DAGs keeps the API server busy, so it isn't asked all the time.
        wait_for("the DAGs of all files", lambda: _files_with_dags(airflow) >= _files(airflow), 240, 3)
        yield stack


def _files(airflow: AirflowStack) -> set[str]:
    return {path.name for path in Path(airflow.env["AIRFLOW__CORE__DAGS_FOLDER"]).glob("*.py")}


def _files_with_dags(airflow: AirflowStack) -> set[str]:
    airflow.processes.check()
    return {Path(dag["fileloc"]).name for dag in airflow.dags()}


def _dags(home: Path) -> Path:
    """Return a folder with the tests' DAGs and the example DAGs, unchanged."""
    folder = home / "dags"
    ignored = shutil.ignore_patterns("__pycache__")
    for source in ("tests/e2e/dags", "dags"):
        shutil.copytree(ROOT / source, folder, ignore=ignored, dirs_exist_ok=True)
    # Beside a good and a broken workflow file, what could hold up all of them.
    os.mkfifo(folder / "folder" / "pipe.yaml")
    (folder / "folder" / "keys.yaml").write_text("".join(f"key_{n}: 1\n" for n in range(10_000)))
    (folder / "folder" / os.fsdecode(b"caf\xe9.yaml")).write_text("[")
    (folder / "folder" / "number.yaml").write_text(NUMBER)
    return folder


def _connections(sandbox: str) -> dict[str, dict[str, Any] | str]:
    host, port = sandbox.removeprefix("http://").split(":")
    insightly = {"conn_type": "insightly", "host": f"{sandbox}/v3.1", "login": API_KEY}
    credentials = {"login": USERNAME, "password": PASSWORD}
    incoming = {"conn_type": "insightly_incoming", **credentials}
    in_uri = f"{quote(USERNAME)}:{quote(PASSWORD, safe='')}"
    receivers = {
        f"receiver_{name}": {
            "conn_type": "insightly_webhook",
            "host": f"{sandbox}/bin/{name}",
            **credentials,
            "extra": {
                "timeout": 10,
                "web_url": f"{sandbox}/bin/{name}",
                **EXTRAS_OF.get(name, {}),
            },
        }
        for name in BINS
        if name not in ("uri", "json", "form")
    }
    return {
        "insightly_default": insightly,
        "insightly_wrong_key": {**insightly, "login": WRONG_KEY},
        "incoming": incoming,
        "incoming_signed": {**incoming, "extra": {"signing_secret": SIGNING_SECRET}},
        **receivers,
        "webhook_default": receivers["receiver_example"],
        "billing_webhook": receivers["receiver_example"],
        "newsletter_webhook": receivers["receiver_example"],
        **{f"{name}_webhook": receivers["receiver_example"] for name in EXAMPLES_RECEIVERS},
        # The same by other ways; the third, the form, is filled in by its test.
        "insightly_uri": f"insightly://{API_KEY}@{host}:{port}/http?api_version=v3.1&timeout=20",
        "insightly_json": {
            **insightly,
            "host": host,
            "port": int(port),
            "schema": "http",
            "extra": {"timeout": 20},
        },
        "receiver_uri": f"insightly-webhook://{in_uri}@{host}:{port}/http?path=%2Fbin%2Furi&timeout=20",
        "receiver_json": {
            "conn_type": "insightly_webhook",
            "host": host,
            "port": int(port),
            "schema": "http",
            **credentials,
            "extra": {"path": "/bin/json", "timeout": 20},
        },
    }


def _own_endpoint(url: str) -> dict[str, Any]:
    """Return the connection of a receiver that is an Airflow's own endpoint for Insightly's webhooks."""
    return {
        "conn_type": "insightly_webhook",
        "host": f"{url}/insightly/hooks/incoming_signed",
        "login": USERNAME,
        "password": PASSWORD,
        "extra": {"signing_secret": SIGNING_SECRET},
    }


def _settings(sandbox: str, collector: Collector) -> dict[str, str]:
    host = sandbox.removeprefix("http://")
    in_uri = f"{quote(USERNAME)}:{quote(PASSWORD, safe='')}"
    return {
        "AIRFLOW_VAR_RECEIVER_URI": f"http://{in_uri}@{host}/bin/variable",
        "AIRFLOW_VAR_CANARY": CANARY,
        "AIRFLOW__METRICS__OTEL_ON": "True",
        "AIRFLOW__METRICS__METRICS_ALLOW_LIST": "insightly_webhook",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": collector.url,
        # A file is read again where a test says so (``Stack.parse``), or where a watcher has to be started.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "86400",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "86400",
        # A scheduler that a busy machine holds up must not take itself for dead, and start its tasks again.
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "300",
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
    }


def _postgresql(cleanup: contextlib.ExitStack) -> str:
    """Return the address of a database that lives as long as the tests."""
    try:
        return cleanup.enter_context(temporary_database(is_durable=False))
    except NoServerError as error:
        pytest.skip(str(error))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Say which databases a test runs on."""
    if "stack" in metafunc.fixturenames:
        is_on_sqlite = metafunc.definition.get_closest_marker("on_sqlite") is not None
        databases = ["sqlite", "postgresql"] if is_on_sqlite else ["postgresql"]
        metafunc.parametrize("stack", databases, indirect=True, scope="session")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the state of Airflow with a test that failed."""
    report = yield
    stack = getattr(item, "funcargs", {}).get("stack")
    if report.failed and isinstance(stack, Stack):
        report.sections.append(("What Airflow has not ended", stack.airflow.unfinished()))
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run database by database, behind all fast tests; in each, look for secrets at the end.

    ``make test-e2e`` distributes the tests over processes, since they mostly wait for Airflow. Tests with an
    Airflow of their own come first, so that a process never runs two of them side by side.
    """

    def order(item: pytest.Item) -> tuple[bool, bool, bool, bool]:
        if item.get_closest_marker("e2e") is None:
            return False, False, False, False
        is_shared = "stack" in getattr(item, "fixturenames", ())
        return True, is_shared, "postgresql" in item.nodeid, "test_secrets" in item.nodeid

    items.sort(key=order)


@pytest.fixture
def started() -> datetime:
    """Return a whole second that has passed. Everything that this test does comes after it."""
    time.sleep(1.1)  # the CRM's times have whole seconds: what other tests did must be in an earlier one
    return datetime.now(timezone.utc).replace(microsecond=0)
