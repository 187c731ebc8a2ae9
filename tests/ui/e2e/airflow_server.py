"""API servers of Airflow with what ``tests.ui.seed`` makes, one for each way of logging in."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import requests
from postgresql import temporary_database

from airflow_insightly_hooks.demo.airflow_stack import AirflowStack, free_port
from tests.ui.e2e.reverse_proxy import reverse_proxy
from tests.ui.seed import Seed
from tests.ui.workflows import PASSWORDS

__all__ = [
    "FAB",
    "SIMPLE",
    "AirflowServer",
    "fab_server",
    "prefixed_server",
    "seeded_database",
    "simple_server",
]

ROOT = Path(__file__).parent.parent.parent.parent
PREFIX = "/airflow"
"""The path below which a reverse proxy has Airflow."""
SIMPLE = {"admin": "ADMIN", "op": "OP", "user": "USER", "viewer": "VIEWER"}
"""User -> role of the simple auth manager."""
FAB = {"AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"}
"""The setting by which FAB decides who may see what."""
FERNET = {"AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(b"seed" * 8).decode()}
"""The servers read connections that another one has encrypted."""


class AirflowServer:
    """A running API server.

    :ivar base_url: where a browser finds it, without a slash at the end.
    :ivar seed: what its database was filled with.
    :ivar stack: its processes.
    """

    def __init__(self, stack: AirflowStack, base_url: str, seed: Seed) -> None:
        self.stack, self.base_url, self.seed = stack, base_url, seed
        self._tokens: dict[str, str] = {}

    def token(self, user: str) -> str:
        """Return the token that logs a user in, in the cookie ``_token`` or as a bearer's."""
        if user not in self._tokens:
            answer = requests.post(
                f"{self.base_url}/auth/token",
                json={"username": user, "password": PASSWORDS[user]},
                timeout=60,
            )
            assert answer.status_code == 201, f"{user}: {answer.status_code} {answer.text[:300]}"
            self._tokens[user] = answer.json()["access_token"]
        return self._tokens[user]

    def client(self, user: str | None) -> requests.Session:
        """Return a client of a person who is logged in as in a browser; ``None``: who isn't."""
        client = requests.Session()
        client.trust_env = False
        client.headers["Accept"] = "text/html"
        if user is not None:
            client.cookies.set("_token", self.token(user))
        return client


def _run(stack: AirflowStack, module: str) -> str:
    """Run a module of the tests with the settings of an Airflow; return what it prints last."""
    done = subprocess.run(
        [sys.executable, "-m", module], env=stack.env, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1] if done.stdout else ""


@contextmanager
def seeded_database(folder: Path) -> Iterator[tuple[str, Seed]]:
    """Yield the address of a PostgreSQL database that the servers' own are copies of, and what is in it.

    :raises NoServerError: if there is no PostgreSQL to make it on.
    """
    with temporary_database(is_durable=False) as address:
        stack = AirflowStack(folder, folder / "dags", {}, address, {**FAB, **FERNET})
        stack.migrate()
        made = Seed(**json.loads(_run(stack, "tests.ui.seed")))
        _run(stack, "tests.ui.fab_users")
        yield address, made


@contextmanager
def _server(
    folder: Path, template: str, seed: Seed, settings: Mapping[str, str], base_url: str | None = None
) -> Iterator[AirflowServer]:
    with temporary_database(template, is_durable=False) as address:
        stack = AirflowStack(folder, folder / "dags", {}, address, {**settings, **FERNET})
        try:
            stack.start("api-server")
            stack.wait_until_healthy()
            yield AirflowServer(stack, base_url or stack.url, seed)
        finally:
            stack.stop()


def _simple(folder: Path) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    passwords = folder / "passwords.json"
    passwords.write_text(json.dumps({user: PASSWORDS[user] for user in SIMPLE}))
    return {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{u}:{role}" for u, role in SIMPLE.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
    }


@contextmanager
def simple_server(folder: Path, template: str, seed: Seed) -> Iterator[AirflowServer]:
    """Yield a server with the simple auth manager, and the users of ``SIMPLE``."""
    with _server(folder, template, seed, _simple(folder)) as server:
        yield server


@contextmanager
def fab_server(folder: Path, template: str, seed: Seed) -> Iterator[AirflowServer]:
    """Yield a server with FAB's auth manager, and the users of ``tests.ui.fab_users``."""
    with _server(folder, template, seed, FAB) as server:
        yield server


@contextmanager
def prefixed_server(folder: Path, template: str, seed: Seed) -> Iterator[AirflowServer]:
    """Yield a server below a path, behind a reverse proxy, with the simple auth manager."""
    with ExitStack() as cleanup:
        port = free_port()
        base_url = f"http://127.0.0.1:{port}{PREFIX}"
        settings = {**_simple(folder), "AIRFLOW__API__BASE_URL": base_url}
        server = cleanup.enter_context(_server(folder, template, seed, settings, base_url))
        cleanup.enter_context(reverse_proxy(port, PREFIX, server.stack.url))
        yield server
