"""A real API server with the endpoint, on PostgreSQL, and clients that send it what they want."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlsplit

import sqlalchemy
from postgresql import temporary_database

from airflow_insightly_hooks.demo.airflow_stack import AirflowStack
from tests.incoming.asgi import PASSWORD, basic
from tests.incoming.conftest import contact
from tests.incoming.e2e.database_proxy import DatabaseProxy

__all__ = ["PATH", "Endpoint", "endpoint", "seeded_database"]

ROOT = Path(__file__).parents[3]
PATH = "/insightly/hooks/crm"
FERNET = {"AIRFLOW__CORE__FERNET_KEY": "c2VlZHNlZWRzZWVkc2VlZHNlZWRzZWVkc2VlZHNlZWQ="}


@contextmanager
def seeded_database(folder: Path) -> Iterator[str]:
    """Yield the address of the database that the servers' own are copies of.

    :raises NoServerError: if there is no PostgreSQL to make it on.
    """
    with temporary_database() as address:
        stack = AirflowStack(folder, folder / "dags", {}, address, FERNET)
        stack.migrate()
        command = [sys.executable, "-m", "tests.incoming.e2e.seed"]
        done = subprocess.run(command, env=stack.env, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        yield address


class Endpoint:
    """A running API server.

    :ivar database: what its queries go through.
    :ivar stack: its processes.
    """

    def __init__(self, stack: AirflowStack, address: str, database: DatabaseProxy) -> None:
        self.stack, self.database = stack, database
        self.netloc = urlsplit(stack.url).netloc
        self._engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool)

    def client(self) -> http.client.HTTPConnection:
        """Return a client that keeps its connection."""
        return http.client.HTTPConnection(self.netloc, timeout=60)

    def post(
        self,
        body: bytes | None = None,
        *headers: tuple[str, str],
        path: str = PATH,
        password: str = PASSWORD,
        client: http.client.HTTPConnection | None = None,
    ) -> tuple[int, str]:
        """Send a webhook, by default of a contact that has changed now; return status and text."""
        one = client or self.client()
        sent = dict([basic(password=password), ("Content-Type", "application/json"), *headers])
        try:
            one.request("POST", path, contact() if body is None else body, sent)
            answer = one.getresponse()
            return answer.status, answer.read().decode()
        finally:
            if client is None:
                one.close()

    def raw(self, request: bytes | Sequence[bytes], *, pause: float = 0.0, timeout: float = 20.0) -> bytes:
        """Send bytes, in parts; return what comes back until the server closes, or 2 s pass in silence."""
        host, _, port = self.netloc.partition(":")
        answer = b""
        with socket.create_connection((host, int(port)), timeout=timeout) as one:
            with suppress(ConnectionError):  # an answer may come before all is sent
                for part in [request] if isinstance(request, bytes) else request:
                    one.sendall(part)
                    time.sleep(pause)
            with suppress(ConnectionError, TimeoutError):
                while received := one.recv(65_536):
                    answer += received
                    one.settimeout(2)
        return answer

    def break_off(self, request: bytes) -> None:
        """Send bytes, and go away."""
        host, _, port = self.netloc.partition(":")
        with socket.create_connection((host, int(port)), timeout=20) as one:
            one.sendall(request)

    def version_seconds(self) -> float:
        """Return how long the server takes to tell Airflow's version."""
        started = time.perf_counter()
        one = self.client()
        one.request("GET", "/api/v2/version")
        answer = one.getresponse()
        answer.read()
        one.close()
        assert answer.status == 200
        return time.perf_counter() - started

    def spans(self) -> dict[int, list[tuple[datetime, datetime]]]:
        """Return what all events tell of, by the asset's id."""
        found: dict[int, list[tuple[datetime, datetime]]] = {}
        with self._engine.connect() as connection:
            rows = connection.execute(sqlalchemy.text("SELECT asset_id, extra FROM asset_event")).all()
        for asset_id, extra in rows:
            since, until = (
                datetime.fromisoformat(extra["payload"][end].replace("Z", "+00:00"))
                for end in ("since", "until")
            )
            found.setdefault(asset_id, []).append((since, until))
        return found

    def execute(self, statement: str) -> None:
        """Run a statement on the server's database."""
        with self._engine.begin() as connection:
            connection.execute(sqlalchemy.text(statement))

    def transaction(self) -> AbstractContextManager[sqlalchemy.Connection]:
        """Return a transaction of the server's database; it is committed in the end."""
        return self._engine.begin()

    def log(self) -> str:
        """Return what the server has written."""
        return (self.stack.home / "api-server.log").read_text(errors="replace")

    def memory(self) -> int:
        """Return the resident bytes of the server's process."""
        status = Path(f"/proc/{self.stack.processes.pid('api-server')}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def restart(self) -> None:
        """Start the server again, and wait until it answers."""
        if "api-server" in self.stack.processes:
            self.stack.processes.stop("api-server")
        self.stack.start("api-server")
        self.stack.wait_until_healthy()


@contextmanager
def endpoint(folder: Path, template: str, *, workers: int = 1) -> Iterator[Endpoint]:
    """Yield a running server on a copy of a seeded database."""
    with temporary_database(template) as address, DatabaseProxy() as database:
        folder.mkdir(parents=True, exist_ok=True)
        through = address.replace(":5432/", f":{database.port}/")
        settings = {**FERNET, "AIRFLOW__API__WORKERS": str(workers)}
        stack = AirflowStack(folder, folder / "dags", {}, through, settings)
        try:
            stack.start("api-server")
            stack.wait_until_healthy()
            yield Endpoint(stack, address, database)
        finally:
            database.restore()
            stack.stop()


def wait_until(what: Callable[[], bool], seconds: float) -> bool:
    """Return whether something becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.2)
    return False


def second_of(moment: float) -> datetime:
    """Return the second that a time since 1970 is in."""
    return datetime.fromtimestamp(int(moment), timezone.utc)
