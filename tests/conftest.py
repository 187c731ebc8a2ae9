"""A separate Airflow home for the tests, without the user's environment, and stand-ins for tasks' context."""

from __future__ import annotations

import atexit
import gc
import json
import logging
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_USERS_OWN = (
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
)
for _name in list(os.environ):
    if (_name.startswith("AIRFLOW_") and _name != "AIRFLOW_HOME") or _name.upper() in _USERS_OWN:
        del os.environ[_name]
os.environ["NETRC"] = os.devnull
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
if "AIRFLOW_HOME" not in os.environ:  # before Airflow is imported: it makes its files there
    os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-insightly-hooks-")
    atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)

# Airflow and the tests are half a million objects that stay. Looking through them again and again takes time.
gc.set_threshold(50_000, 20, 100)

import certifi  # noqa: E402 — after the environment is set
import pytest  # noqa: E402 — likewise
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType  # noqa: E402 — likewise
from airflow.sdk.execution_time.comms import ErrorResponse  # noqa: E402 — likewise
from hypothesis import settings  # noqa: E402 — likewise

from airflow_insightly_hooks.core.criteria import criteria as criteria_module  # noqa: E402 — likewise
from airflow_insightly_hooks.hooks.process_registry import (  # noqa: E402 — likewise
    clear_process_registries,
)
from airflow_insightly_hooks.sandbox.server import RunningSandbox, running_sandbox  # noqa: E402 — likewise

# Half of Hypothesis' own number, so that the tests stay fast; HYPOTHESIS=1000 tries as many.
settings.register_profile("tests", max_examples=int(os.environ.get("HYPOTHESIS", "50")))
settings.load_profile("tests")


def pytest_collection_finish() -> None:
    """Exclude objects that live as long as the tests from garbage collection."""
    gc.freeze()


API_KEY = "sandbox-key"
Connect = Callable[..., str]


class StateStore:
    """A state store of Airflow as a task sees it: JSON values, never ``None``.

    :ivar values: the stored values by key.
    :ivar writes: the keys that were set, in order.
    """

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.writes: list[str] = []

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        assert value is not None
        assert len(key) <= 512
        self.values[key] = json.dumps(value)
        assert len(self.values[key]) < 65_535, "the state store of Airflow refuses it"
        self.writes.append(key)

    def delete(self, key: str) -> None:
        self.values.pop(key, None)

    def clear(self) -> None:
        self.values.clear()


class AssetStateStores(dict[Any, StateStore]):
    """``context["asset_state_store"]``: a store for each asset of the task's inlets."""

    def __missing__(self, asset: Any) -> StateStore:
        return self.setdefault(asset, StateStore())


class TaskInstance:
    """The part of a task instance that operators use.

    :ivar xcom: the pushed values, by key.
    :ivar others: values that other tasks have pushed, by task id and key, or by run id, task id and key.
    :ivar previous: earlier runs' task instances, newest first, by the state that they ended in.
    :ivar runs: the states of other runs of its DAG, by their ids.
    :ivar gone_dags: the ids of DAGs that Airflow doesn't know. It knows all others.
    """

    map_index = -1

    def __init__(self, dag_id: str = "dag", task_id: str = "task", run_id: str = "scheduled__1") -> None:
        self.dag_id, self.task_id, self.run_id = dag_id, task_id, run_id
        self.max_tries = 2
        self.xcom: dict[str, Any] = {}
        self.others: dict[tuple[str, ...], Any] = {}
        self.previous: dict[str, list[SimpleNamespace]] = {}
        self.runs: dict[str, str] = {}
        self.gone_dags: set[str] = set()

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcom[key] = json.loads(json.dumps(value))

    def xcom_pull(
        self, task_ids: str, key: str = "return_value", run_id: str | None = None, **_of_run: Any
    ) -> Any:
        of_run = self.others.get((run_id, task_ids, key))
        return self.others.get((task_ids, key)) if of_run is None else of_run

    def get_task_states(self, dag_id: str, task_ids: list[str]) -> dict[str, dict[str, str]]:
        assert (dag_id, task_ids) == (self.dag_id, [self.task_id])
        ended = {p.run_id: state for state, runs in self.previous.items() for p in runs}
        return {run_id: {self.task_id: state} for run_id, state in ended.items()}

    def get_dr_count(self, dag_id: str, run_ids: list[str], states: list[str] | None = None) -> int:
        assert dag_id == self.dag_id
        return sum(states is None or self.runs[run] in states for run in run_ids if run in self.runs)

    def get_dag(self, dag_id: str) -> Any:
        if dag_id in self.gone_dags:
            raise AirflowRuntimeError(
                ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 404})
            )
        return SimpleNamespace(dag_id=dag_id)

    def get_previous_ti(
        self, state: str | None = None, logical_date: datetime | None = None, map_index: int = -1
    ) -> Any:
        found = self.previous.get(str(getattr(state, "value", state)), [])
        return next((p for p in found if logical_date is None or p.logical_date < logical_date), None)


def ended(run_id: str, logical_date: datetime, try_number: int = 1) -> SimpleNamespace:
    """Return a task instance of an earlier run."""
    return SimpleNamespace(run_id=run_id, logical_date=logical_date, try_number=try_number)


def run_context(**entries: Any) -> dict[str, Any]:
    """Return the context of a new scheduled run without a data interval. ``entries`` override it."""
    return {
        "ti": TaskInstance(),
        "task_state_store": StateStore(),
        "asset_state_store": AssetStateStores(),
        "dag_run": SimpleNamespace(run_type="scheduled"),
    } | entries


class Logged:
    """The log of a test: lines of libraries, and lines that Airflow's tasks and hooks print."""

    _LINE = re.compile(r"\[(?P<level>\w+) *\] (?P<message>.*?) *\[[\w.]*airflow_insightly_hooks[\w.]*\] loc=")

    def __init__(self, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
        self._caplog, self._capfd = caplog, capfd
        self._printed = ""

    @property
    def text(self) -> str:
        """Everything, from debug on."""
        self._printed += "".join(self._capfd.readouterr())
        return self._caplog.text + self._printed

    def messages(self, *levels: str) -> list[str]:
        """Return the messages that this package's classes logged at these levels (such as ``info``)."""
        return [m["message"] for m in self._LINE.finditer(self.text) if m["level"] in levels]


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Logged:
    """Return the test's log."""
    caplog.set_level(logging.DEBUG)
    return Logged(caplog, capfd)


@pytest.fixture
def parsed_criteria(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return the criteria that are parsed during the test, once for each time that they are parsed."""
    parsed: list[object] = []
    parse = criteria_module.parse_criteria

    def noted(spec: object) -> Any:
        parsed.append(spec)
        return parse(spec)

    monkeypatch.setattr(criteria_module, "parse_criteria", noted)
    return parsed


@pytest.fixture(autouse=True)
def _operators_outside_of_a_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tests call ``execute`` directly, as Airflow's own tests do."""
    from airflow.sdk.bases.operator import ExecutorSafeguard

    monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)


@pytest.fixture(autouse=True)
def _a_new_process() -> Iterator[None]:
    """Reset state that a process shares, such as accounts whose day is spent, since tests share accounts."""
    yield
    clear_process_registries()


@pytest.fixture(scope="session", autouse=True)
def _one_public_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trust the first public authority only. To read all takes 20 ms for each of hundreds of senders."""
    first, end, _ = Path(certifi.where()).read_text("utf-8").partition("-----END CERTIFICATE-----\n")
    file = tmp_path_factory.mktemp("certifi") / "cacert.pem"
    file.write_text(first + end, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certifi, "where", lambda: str(file))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_resolver_of_this_machine() -> Iterator[None]:
    """Look names up without the machine's resolver, which may be slow, or may know the tests' names.

    ``localhost`` is 127.0.0.1. A test that needs another name sets its addresses.
    """
    look_up = socket.getaddrinfo

    def known(
        host: Any,
        port: Any,
        family: int = 0,
        type: int = 0,  # noqa: A002 — the system's own name
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        if host in ("localhost", b"localhost"):
            host = "127.0.0.1"
        return look_up(host, port, family, type, proto, flags | socket.AI_NUMERICHOST)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", known)
        yield


@pytest.fixture(scope="session")
def _running_sandbox() -> Iterator[RunningSandbox]:
    with running_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_running_sandbox: RunningSandbox) -> RunningSandbox:
    """Insightly's stand-in with its seeded records, without its limit of requests per second."""
    _running_sandbox.reset()
    _running_sandbox.configure(requests_per_second=100_000)
    return _running_sandbox


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Make an Airflow connection: ``connect("billing", host=…, extra={…})`` returns its id."""

    def make(conn_id: str, conn_type: str = "insightly_webhook", **fields: Any) -> str:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({"conn_type": conn_type, **fields}))
        return conn_id

    return make


@pytest.fixture
def insightly(sandbox: RunningSandbox, connect: Connect) -> RunningSandbox:
    """Return the sandbox, with the connection ``insightly_default`` leading to it."""
    connect(
        "insightly_default",
        "insightly",
        host=sandbox.api_url,
        login=API_KEY,
        extra={"requests_per_second": 10_000, "timeout": 5},
    )
    return sandbox
