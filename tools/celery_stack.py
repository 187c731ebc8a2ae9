"""A real Airflow with the Celery executor: PostgreSQL, Redis as the broker, and workers that share no files.

Each worker has its own home, working directory and copy of the DAG folder. It only gets what a worker on
another machine needs: the addresses of the broker, of Celery's results and of Airflow's execution API. It
gets connections and variables through this API. It has neither the address of Airflow's database nor the keys
of the API server.

There is a relay in front of the broker. So a test can make the broker unreachable, and empty it. The same
happens when a Redis without files on disk is restarted.
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
"""The first letters of environment variables that workers don't get."""
HOST_MODULE = "worker_host"
SETTINGS = {
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    "AIRFLOW__CORE__PARALLELISM": "32",
    # If its worker is gone, a task is tried again after 20 s, not after 5 minutes.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    # The API server is slow if the machine is busy.
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30",
    # If the broker has lost its message, a task is queued again after 30 s, not after 10 minutes. Tasks that
    # wait for a slot are queued again, too. That must not fail them, so more than two times are allowed.
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": "20",
    # If a worker does not finish a message, another worker gets it after a minute. This time must be longer
    # than the longest task, as on a real installation.
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "60",
    # While the broker is unreachable, the scheduler tries again and does not fail the task.
    "AIRFLOW__CELERY__TASK_PUBLISH_MAX_RETRIES": "100",
    "AIRFLOW__CELERY__EXTRA_CELERY_CONFIG": (
        '{"task_publish_retry_policy": {"max_retries": 100, "interval_max": 0.5},'
        ' "broker_connection_max_retries": null}'
    ),
}


def reason_to_skip() -> str | None:
    """Return what is missing, or ``None`` if the Celery executor is installed and both servers answer."""
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

    :param home: the folder for all its state. Each worker has its own folder in it.
    :param dags: the folder of DAG files. It is copied for each worker when the worker starts.
    :param connections: as for ``AirflowStack``. Workers get them through the execution API.
    :param database: the SQLAlchemy address of Airflow's database.
    :param results: the SQLAlchemy address of the database with Celery's results.
    :param relay: the relay in front of the broker.
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
        """Return the folder of a worker. It has the logs of its tasks in ``logs``."""
        return self.home / "workers" / name

    def worker_output(self, name: str) -> str:
        """Return the output of a worker's processes."""
        return (self.home / f"{name}.log").read_text(errors="replace")

    def start_worker(self, name: str, slots: int = 2) -> None:
        """Start a worker. Its tasks have its name as their host. ``wait_for_worker`` waits for it.

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
        # Workers only talk to each other through the broker. Nothing here needs that.
        options = ["--skip-serve-logs", "--without-mingle", "--without-gossip"]
        command = [sys.executable, "-m", "airflow", "celery", "worker", *options]
        command += ["--celery-hostname", name, "--concurrency", str(slots)]
        self.processes.start(name, command, env, home / "cwd")

    def wait_for_worker(self, name: str, timeout: float = 120.0) -> None:
        """Wait until a worker takes tasks.

        :raises StackError: if the worker has ended, or the time is up.
        """

        def is_ready() -> bool:
            self.processes.check()
            return f"{name} ready." in self.worker_output(name)

        wait_for(f"worker {name}", is_ready, timeout)

    def kill_worker(self, name: str) -> None:
        """Kill a worker with all its processes at once, as if its machine failed."""
        self.processes.kill_session(name)

    # --- the broker ----------------------------------------------------------------------------------------

    def cut_broker(self) -> None:
        """Break all connections to the broker, and refuse new ones, until ``restore_broker``."""
        self._relay.cut()

    def restore_broker(self) -> None:
        """Make the broker reachable again. It has the same contents as before."""
        self._relay.restore()

    def queued_messages(self) -> int:
        """Return how many messages of tasks wait at the broker for a worker."""
        with contextlib.closing(_redis()) as server:
            return int(server.llen(f"{self._key_prefix}default"))

    def empty_broker(self) -> int:
        """Delete only this stack's keys from the broker. Return how many keys were deleted."""
        with contextlib.closing(_redis()) as server:
            keys = list(server.scan_iter(match=f"{self._key_prefix}*", count=1_000))
            if keys:
                server.delete(*keys)
            return len(keys)

    def stop(self) -> None:
        """Stop all processes, and delete this stack's keys from the broker."""
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
    """Make an Airflow with its own databases, and stop it after the block. No component is started yet.

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
