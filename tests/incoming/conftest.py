"""The endpoint on a database in memory, with DAGs that wait for changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from airflow.models.asset import AssetEvent, AssetModel
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.types import ASGIApp

from airflow_insightly_hooks.core.payload import build_body
from airflow_insightly_hooks.incoming.app import make_app
from tests.conftest import Connect
from tests.incoming.asgi import LOGIN, PASSWORD, Answer, asked, basic
from tests.metadata_database import metadata_database
from tests.waiting_dags import add_waiting_dag

Post = Callable[..., Answer]
Events = Callable[[], list[tuple[str, dict[str, Any]]]]


@pytest.fixture
def session() -> Iterator[Session]:
    with metadata_database() as sessions, sessions() as session:
        yield session


@pytest.fixture
def app(session: Session) -> ASGIApp:
    """Return a new endpoint, as in a server that has just started."""
    return make_app()


@pytest.fixture
def incoming(connect: Connect) -> str:
    """The connection that Insightly's webhooks use."""
    return connect("crm", "insightly_incoming", login=LOGIN, password=PASSWORD)


@pytest.fixture
def contacts(session: Session) -> None:
    """A DAG that waits for changes of contacts."""
    add_waiting_dag(session, "contacts", "Contacts")


@pytest.fixture
def post(app: ASGIApp) -> Post:
    """``post(body, headers…, path=…)`` sends a webhook with the right credentials."""

    def post(body: Any, *headers: tuple[str, str], path: str = "/crm", **options: Any) -> Answer:
        return asked(app, path, body, [basic(), *headers], **options)

    return post


@pytest.fixture
def events(session: Session) -> Events:
    """Return the events that were stored, with the names of their assets, oldest first."""

    def events() -> list[tuple[str, dict[str, Any]]]:
        found = session.execute(
            select(AssetModel.name, AssetEvent.extra)
            .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            .order_by(AssetEvent.id)
        )
        rows = [(name, dict(extra)) for name, extra in found]
        session.rollback()
        return rows

    return events


def contact(changed_at: datetime | None = None, record_id: int = 7, **fields: Any) -> bytes:
    """Return the body of a webhook about a contact that has changed, now by default."""
    updated = (changed_at or datetime.now(timezone.utc)).strftime("%Y-%m-%d %H:%M:%S")
    record = {"CONTACT_ID": record_id, "FIRST_NAME": "Zoë", "DATE_UPDATED_UTC": updated, **fields}
    return build_body(record, record_type="Contacts").encode()


def entity(**fields: Any) -> bytes:
    """Return a body with these fields."""
    return json.dumps({"entity": fields}).encode()
