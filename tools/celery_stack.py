"""A real Airflow with the Celery executor: PostgreSQL, Redis as the broker, and workers that share no files.

Each worker has a home, a working directory and a copy of the DAG folder of its own. It gets what a worker on
another machine needs, and nothing more: the addresses of the broker, of Celery's results and of Airflow's
execution API. Connections and variables come to it through that API. It has neither the address of
Airflow's database nor the keys of the API server.

The broker is reached through a relay. So a test can take it away, and empty it, as when a Redis that keeps
nothing on disk is restarted.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import redis
from broker_relay import BrokerRelay, broker_relay
from postgresql import NoServerError, temporary_database

from airflow_insightly_hooks.demo.airflow_stack import AirflowStack, StackError, wait_for

__all__ = ["CeleryStack", "celery_stack", "reason_to_skip"]

REDIS_PORT = 6379
SERVER_ONLY = (
    "AIRFLOW_CONN_",
    "AIRFLOW_VAR_",
    "AIRFLOW__API__",
    "AIRFLOW__API_AUTH__",
    "AIRFLOW__DATABASE__",
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__DAG_PROCESSOR__",
    "AIRFLOW__SCHEDULER__",
)
"""Environment variables that workers don't get, by how they begin."""
HOST_MODULE = "worker_host"
SETTINGS = {
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    "AIRFLOW__CORE__PARALLELISM": "32",
    # A task whose worker is gone is tried again after 20 s, not after 5 minutes.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    # The API server takes its time where the machine is busy.
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30",
    # A task whose message is gone with the broker is queued again after 30 s, not after 10 minutes. A task
    # that waits for a slot is queued again, too, and has to live through that more often than twice.
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": "20",
    # A message that a worker has taken and not finished is given to another one after a minute. It has to be
    # longer than the longest task: there, and here.
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "60",
    # While the broker is away, the scheduler tries again instead of failing the task.
    "AIRFLOW__CELERY__TASK_PUBLISH_MAX_RETRIES": "100",
    "AIRFLOW__CELERY__EXTRA_CELERY_CONFIG": (
        '{"task_publish_retry_policy": {"max_retries": 100, "interval_max": 0.5},'
        ' "broker_connection_max_retries": null}'
    ),
}


def reason_to_skip() -> str | None:
    """Return what is missing here; ``None`` if Airflow has its Celery executor, and both servers answer."""
    if importlib.util.find_spec("airflow.providers.celery") is None:
        return "apache-airflow-providers-celery is not installed"
    try:
        with temporary_database():
            pass
        _redis().ping()
    except NoServerError as error:
        return str(error)
    except redis.RedisError:
        return f"no Redis answers on 127.0.0.1:{REDIS_PORT}"
    return None


class CeleryStack(AirflowStack):
    """One Airflow installation whose tasks run in Celery workers; ``celery_stack`` makes one.

    :param home: the folder for all its state; each worker has a folder of its own in it.
    :param dags: the folder of DAG files, which is copied for each worker when that starts.
    :param connections: as ``AirflowStack`` takes them; workers get them through the execution API.
    :param database: the SQLAlchemy address of Airflow's database.
    :param results: the SQLAlchemy address of the database with Celery's results.
    :param relay: what the broker is reached through.
    :param settings: further environment variables.
    """

    def __init__(
        self,
        home: Path,
        dags: Path,
        connections: Mapping[str, Mapping[str, Any] | str],
        database: str,
        results: str,
        relay: BrokerRelay,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._dag_folder = dags
        self._relay = relay
        self._key_prefix = f"airflow_e2e_{uuid.uuid4().hex[:12]}:"
        celery = {
            **SETTINGS,
            "AIRFLOW__CELERY__BROKER_URL": f"redis://127.0.0.1:{relay.port}/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{results}",
            "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__GLOBAL_KEYPREFIX": self._key_prefix,
        }
        super().__init__(home, dags, connections, database, {**celery, **(settings or {})})

    # --- workers -------------------------------------------------------------------------------------------

    def worker_home(self, name: str) -> Path:
        """Return the folder of a worker; its tasks' logs are in ``logs`` there."""
        return self.home / "workers" / name

    def worker_output(self, name: str) -> str:
        """Return what a worker's processes have written to their outputs."""
        return (self.home / f"{name}.log").read_text(errors="replace")

    def start_worker(self, name: str, slots: int = 2) -> None:
        """Start a worker, whose tasks have its name as their host; ``wait_for_worker`` waits for it.

        :param slots: how many tasks it runs at once.
        """
        home = self.worker_home(name)
        shutil.copytree(self._dag_folder, home / "dags", ignore=shutil.ignore_patterns("__pycache__"))
        for folder in ("config", "cwd"):
            (home / folder).mkdir()
        (home / "config" / f"{HOST_MODULE}.py").write_text(f"def name():\n    return {name!r}\n")
        env = {key: value for key, value in self.env.items() if not key.startswith(SERVER_ONLY)} | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": f"{HOST_MODULE}.name",
        }
        # Other workers' processes could answer only by the broker; nothing here asks them to.
        options = ["--skip-serve-logs", "--without-mingle", "--without-gossip"]
        command = [sys.executable, "-m", "airflow", "celery", "worker", *options]
        command += ["--celery-hostname", name, "--concurrency", str(slots)]
        self.processes.start(name, command, env, home / "cwd")

    def wait_for_worker(self, name: str, timeout: float = 120.0) -> None:
        """Wait until a worker takes tasks.

        :raises StackError: if it has ended, or the time is up.
        """

        def is_ready() -> bool:
            self.processes.check()
            return f"{name} ready." in self.worker_output(name)

        wait_for(f"worker {name}", is_ready, timeout)

    def kill_worker(self, name: str) -> None:
        """Kill a worker with all its processes at once, as when its machine dies."""
        self.processes.kill_session(name)

    # --- the broker ----------------------------------------------------------------------------------------

    def cut_broker(self) -> None:
        """Break all connections to the broker, and refuse new ones, until ``restore_broker``."""
        self._relay.cut()

    def restore_broker(self) -> None:
        """Let the broker be reached again; it has what it had."""
        self._relay.restore()

    def queued_messages(self) -> int:
        """Return how many tasks' messages wait at the broker for a worker."""
        with contextlib.closing(_redis()) as server:
            return int(server.llen(f"{self._key_prefix}default"))

    def empty_broker(self) -> int:
        """Delete all that the broker has of this stack, and nothing else; return how many keys that were."""
        with contextlib.closing(_redis()) as server:
            keys = list(server.scan_iter(match=f"{self._key_prefix}*", count=1_000))
            if keys:
                server.delete(*keys)
            return len(keys)

    def stop(self) -> None:
        """Stop what was started, and leave nothing at the broker."""
        super().stop()
        self._relay.cut()
        self.empty_broker()


@contextlib.contextmanager
def celery_stack(
    home: Path,
    dags: Path,
    connections: Mapping[str, Mapping[str, Any] | str],
    settings: Mapping[str, str] | None = None,
    *,
    is_durable: bool = False,
) -> Iterator[CeleryStack]:
    """Make an Airflow with databases of its own, and no component started yet; stop it after the block.

    :param is_durable: whether a commit waits for the disk, as it does by default on a server.
    :raises StackError: if Redis or PostgreSQL is missing.
    """
    if (reason := reason_to_skip()) is not None:
        raise StackError(reason)
    with contextlib.ExitStack() as cleanup:
        database = cleanup.enter_context(temporary_database(is_durable=is_durable))
        results = cleanup.enter_context(temporary_database(is_durable=is_durable))
        relay = cleanup.enter_context(broker_relay(REDIS_PORT))
        stack = CeleryStack(home, dags, connections, database, results, relay, settings)
        cleanup.callback(stack.stop)
        stack.migrate()
        yield stack


def _redis() -> redis.Redis:
    return redis.Redis(host="127.0.0.1", port=REDIS_PORT, socket_connect_timeout=2, socket_timeout=10)
