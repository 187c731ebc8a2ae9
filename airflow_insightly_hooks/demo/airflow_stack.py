"""A real Airflow on this machine, for demo and tests: API server, scheduler, DAG processor and triggerer.

It writes only into one folder. It stops every process that it has started, by its id. It listens only on
127.0.0.1, on free ports.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import requests

__all__ = ["COMPONENTS", "AirflowStack", "Processes", "StackError", "free_port", "step", "wait_for"]

T = TypeVar("T")

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
TRIES = 3
"""How often a call is tried if it is answered with 500. On SQLite, a transaction may wait a minute for
another one, and is then rolled back."""
STOP_WITHIN = 20.0
"""Seconds in which a process must end after it was asked to."""
PAGE = 500
"""The most rows that one call of the API returns: more than tests and demo have of anything."""
NOT_PASSED_ON = ("AIRFLOW_", "PYTHONDONTWRITEBYTECODE")
"""The beginnings of the names of environment variables that the components don't get.

Each task is a new process. Without compiled modules, it compiles every module that it imports, and takes
twice as long.
"""


class StackError(Exception):
    """Airflow or the sandbox did not reach the expected state. The text says what to check."""


def free_port() -> int:
    """Return a free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, look: Callable[[], T | None], timeout: float, interval: float = 0.5) -> T:
    """Call ``look`` until its result is true, and return the result.

    :param what: the name, in the error, of the thing that is waited for.
    :param timeout: the most seconds to wait.
    :param interval: seconds between two calls.
    :raises StackError: if the result isn't true within ``timeout`` seconds.
    """
    end = time.monotonic() + timeout
    while True:
        if found := look():
            return found
        if time.monotonic() > end:
            raise StackError(f"waited {timeout:g} s for {what}, without success")
        time.sleep(interval)


class Processes:
    """Starts processes, and stops them by their ids. It stops no other processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: list[str], env: Mapping[str, str], cwd: Path | None = None) -> None:
        """Start a process in its own session. Its output goes to ``<name>.log``.

        :param cwd: its working directory; by default the working directory of this process.
        """
        with (self._folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                command,
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def pid(self, name: str) -> int:
        """Return the id of a running process."""
        return self._running[name].pid

    def __contains__(self, name: str) -> bool:
        return name in self._running

    def kill(self, name: str) -> None:
        """Kill a process, as the system does when memory is short. Its children continue."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def kill_session(self, name: str) -> None:
        """Kill a process and all processes that it has started, as if its machine had failed."""
        process = self._running.pop(name)
        _kill_session(process.pid)
        process.wait()

    def check(self) -> None:
        """Check that all processes are running.

        :raises StackError: if one has ended by itself.
        """
        for name, process in self._running.items():
            if process.poll() is not None:
                log = self._folder / f"{name}.log"
                last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
                raise StackError(
                    f"{name} ended with exit code {process.returncode}: {last[0]} (its whole output: {log})"
                )

    def stop(self, *names: str) -> None:
        """Ask the named processes, or all, to end. After 20 s, kill those still running, with children."""
        chosen = {name: self._running.pop(name) for name in names or tuple(self._running)}
        for process in chosen.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        end = time.monotonic() + STOP_WITHIN
        for process in chosen.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, end - time.monotonic()))
            _kill_session(process.pid)
            process.wait()


class AirflowStack:
    """One Airflow installation in a folder.

    :param home: the folder for all of its state.
    :param dags: the folder of DAG files.
    :param connections: connection id -> its fields, as in the JSON of ``AIRFLOW_CONN_…``, or a URI.
    :param database: a SQLAlchemy address; ``None`` makes an SQLite file in ``home``, where a writer waits up
        to 60 s for another.
    :param settings: further environment variables.
    """

    def __init__(
        self,
        home: Path,
        dags: Path,
        connections: Mapping[str, Mapping[str, Any] | str],
        database: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(NOT_PASSED_ON)},
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__MAXIMUM_PAGE_LIMIT": str(PAGE),
            "AIRFLOW__API_AUTH__JWT_SECRET": "only-for-this-machine-0123456789abcdef0123456789abcdef",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database or f"sqlite:///{home / 'airflow.db'}?timeout=60",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            **{f"AIRFLOW_CONN_{name.upper()}": _connection(fields) for name, fields in connections.items()},
            **(settings or {}),
        }
        self.processes = Processes(home)
        self._session = requests.Session()
        self._session.trust_env = False
        # The API server may close a kept connection at the moment of the next call.
        self._session.headers["Connection"] = "close"

    def cli(self, *arguments: str) -> str:
        """Run an ``airflow`` command and return its output.

        :raises StackError: if the command fails.
        """
        command = [sys.executable, "-m", "airflow", *arguments]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StackError(f"airflow {' '.join(arguments)} failed: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def migrate(self) -> None:
        """Make the metadata database, or upgrade it to this version of Airflow."""
        self.cli("db", "migrate")

    def start(self, *components: str) -> None:
        """Start the components, all four by default."""
        for name in components or COMPONENTS:
            self.processes.start(name, [sys.executable, "-m", "airflow", name], self.env)

    def wait_until_healthy(self, timeout: float = 240.0) -> None:
        """Wait until every component that was started is healthy, and the API server answers tasks at once.

        :raises StackError: if a component has ended, or not all are healthy after ``timeout`` seconds. The
            text names the folder of their logs.
        """

        def healthy() -> bool:
            self.processes.check()
            with contextlib.suppress(requests.RequestException):
                parts = self._session.get(f"{self.url}/api/v2/monitor/health", timeout=5).json()
                if any(
                    part["status"] != "healthy"
                    for name, part in parts.items()
                    if name == "metadatabase" or name.replace("_", "-") in self.processes
                ):
                    return False
                # The first call of the tasks' API makes its routes. On a busy machine, this takes longer than
                # a task waits, and the task would lose its try.
                return (
                    "scheduler" not in self.processes
                    or self._session.get(f"{self.url}/execution/health", timeout=60).ok
                )
            return False

        try:
            wait_for("all of Airflow's components to be healthy", healthy, timeout)
        except StackError as error:
            advice = f"a busy machine may need longer; the logs of the components are in {self.home}"
            raise StackError(f"{error}: {advice}") from None

    def stop(self) -> None:
        """Stop all processes that were started."""
        self.processes.stop()
        self._session.close()

    def api(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """Call Airflow's public REST API below ``/api/v2`` and return its JSON.

        :raises StackError: on an error status.
        """
        self._log_in()
        for _ in range(TRIES):
            answer = self._session.request(method, f"{self.url}/api/v2{path}", json=body, timeout=90)
            if answer.status_code != 500:
                break
        if answer.status_code >= 400:
            raise StackError(
                f"Airflow answered {method} {path} with {answer.status_code}: {answer.text[:500]}"
            )
        return answer.json() if answer.content else None

    def page(self, path: str) -> str:
        """Return the HTML of a plugin's page in Airflow's API server, such as ``/insightly/``.

        :raises StackError: on an error status.
        """
        self._log_in()
        answer = self._session.get(f"{self.url}{path}", headers={"Accept": "text/html"}, timeout=90)
        if answer.status_code >= 400:
            raise StackError(f"Airflow answered GET {path} with {answer.status_code}")
        return answer.text

    def _log_in(self) -> None:
        if "Authorization" not in self._session.headers:
            token = self._session.get(f"{self.url}/auth/token", timeout=30).json()["access_token"]
            self._session.headers["Authorization"] = f"Bearer {token}"

    def dags(self) -> list[dict[str, Any]]:
        """Return all DAGs that the DAG processor has found."""
        found: list[dict[str, Any]] = self.api(f"/dags?limit={PAGE}")["dags"]
        return found

    def unfinished(self) -> str:
        """Return a text with one line for each run that has not ended, with the states of its tasks."""
        # The caller reports a failure. An API server that doesn't answer must not hide it.
        try:
            paused = {dag["dag_id"] for dag in self.dags() if dag["is_paused"]}
            runs = self.api(f"/dags/~/dagRuns?state=queued&state=running&limit={PAGE}")["dag_runs"]
            lines = []
            for run in runs:
                dag_id, run_id = run["dag_id"], run["dag_run_id"]
                tasks = self.api(f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances?limit={PAGE}")
                states = [
                    f"{task['task_id']} {task['state']} (try {task['try_number']})"
                    for task in tasks["task_instances"]
                ]
                is_paused = ", its DAG is paused" if dag_id in paused else ""
                lines.append(
                    f"{dag_id} {run_id} is {run['state']}{is_paused}: {', '.join(states) or 'no tasks'}"
                )
        except (StackError, requests.RequestException) as error:
            return f"the runs that have not ended can't be listed: {error}"
        return "\n".join(lines) or "no run is queued or running"

    def wait_for_dag(self, dag_id: str, timeout: float = 180.0) -> None:
        """Wait until the DAG processor has found a DAG.

        :raises StackError: if the DAG isn't found in time. The text has the import errors.
        """

        def found() -> bool:
            self.processes.check()
            return any(dag["dag_id"] == dag_id for dag in self.dags())

        try:
            wait_for(f"the DAG {dag_id} to be found", found, timeout)
        except StackError as error:
            errors = [e["stack_trace"] for e in self.api("/importErrors")["import_errors"]]
            raise StackError(f"{error}; import errors: {errors or 'none'}") from None

    def unpause(self, dag_id: str) -> None:
        """Unpause a DAG, so that Airflow schedules it."""
        self.api(f"/dags/{dag_id}", "PATCH", {"is_paused": False})


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Print the name of a step, and how long it took."""
    started = time.monotonic()
    print(f"  {what} …", end="", flush=True)
    yield
    print(f" {time.monotonic() - started:.1f} s", flush=True)


def _kill_session(session: int) -> None:
    """Kill the processes of a session whose leader was started here.

    Killing a process group isn't enough: Airflow gives each task its own group.
    """
    while members := _session_members(session):
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _session_members(session: int) -> list[int]:
    """Return the ids of the living processes of a session. Its leader comes first."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                # After the name, which may contain spaces and brackets, come: state, parent, group, session.
                state, _, _, own_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(own_session) == session and state not in "ZX":
                    found.append(int(folder.name))
    return sorted(found, key=lambda pid: (pid != session, pid))


def _connection(fields: Mapping[str, Any] | str) -> str:
    return fields if isinstance(fields, str) else json.dumps(fields)
