"""The pages as Airflow mounts them, on a database in memory, with Airflow's simple auth manager."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from airflow.api_fastapi import app as airflow_app
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from fastapi import FastAPI
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from airflow_insightly_hooks.ui.addresses import PREFIX
from airflow_insightly_hooks.ui.app import make_app
from tests.ledgers import add_flow
from tests.metadata_database import fill, metadata_database
from tests.ui.people import Strict

ORIGIN = "http://airflow.example.com"
HTML = {"Accept": "text/html", "Origin": ORIGIN}

Login = Callable[..., TestClient]
Refuse = Callable[..., None]


@pytest.fixture
def session() -> Iterator[Session]:
    with metadata_database() as sessions, sessions() as session:
        yield session


@pytest.fixture
def login(session: Session, monkeypatch: pytest.MonkeyPatch) -> Login:
    """Return a function that makes the browser of a person with a role, or of nobody logged in (``None``)."""
    manager = SimpleAuthManager()
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "False")
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "0123456789abcdef" * 4)

    def login(
        role: str | None = "ADMIN", *, root_path: str = "", manager: SimpleAuthManager = manager
    ) -> TestClient:
        monkeypatch.setattr(airflow_app._AuthManagerState, "instance", manager)
        app = FastAPI(root_path=root_path)
        app.mount(PREFIX, _pages())
        client = TestClient(app, base_url=ORIGIN, headers=HTML, follow_redirects=False)
        if role is not None:
            user = SimpleAuthManagerUser(username=role.lower(), role=role)
            client.cookies.set("_token", manager.generate_jwt(user))
        return client

    return login


@cache
def _pages() -> FastAPI:
    """Return the one application. All tests share it, since it has no state and is slow to make."""
    return make_app()


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Return a function after which the auth manager refuses something, as ``Strict`` does."""

    def refuse(**what: Any) -> None:
        monkeypatch.setattr(airflow_app._AuthManagerState, "instance", Strict(**what))

    return refuse


@pytest.fixture
def flows(session: Session) -> None:
    """Two DAGs that deliver."""
    fill(session, _add_flows)


def _add_flows(session: Session) -> None:
    add_flow(session, "flow")
    add_flow(session, "other")
