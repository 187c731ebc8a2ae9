"""The API server has watchers started when a DAG was changed; tests/e2e/test_events.py sees Airflow do it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_insightly_hooks.plugin import InsightlyHooksPlugin, unpausing


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    monkeypatch.setattr(unpausing, "_start", lambda: made.append("started"))
    return made


def answer(method: str, path: str, status: int = 200, kind: str = "http") -> list[Any]:
    """Return what is sent for a request."""
    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("it reads no request")

    scope = {"type": kind, "method": method, "path": path}
    asyncio.run(unpausing.StartWatchers(app)(scope, receive, send))
    return sent


@pytest.mark.parametrize("path", ["/api/v2/dags/a.dag", "/api/v2/dags", "/airflow/api/v2/dags/a"])
def test_after_a_dag_was_changed(started: list[str], path: str) -> None:
    """One, or several at once; also where Airflow's pages stand below a prefix. The answer stays the same."""
    assert [message["type"] for message in answer("PATCH", path)] == [
        "http.response.start",
        "http.response.body",
    ]
    assert started == ["started"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v2/dags/a", 200),
        ("PATCH", "/api/v2/dags/a", 403),
        ("PATCH", "/api/v2/dags/a/dagRuns/b", 200),
        ("PATCH", "/api/v2/pools/a", 200),
    ],
)
def test_at_no_other_time(started: list[str], method: str, path: str, status: int) -> None:
    """What changes no DAG goes through untouched."""
    assert len(answer(method, path, status)) == 2
    assert started == []


def test_a_failure_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow starts the watcher some seconds later then."""

    def fail(_session: Any) -> None:
        raise RuntimeError("no database")

    monkeypatch.setattr(unpausing, "request_parsing", fail)
    assert len(answer("PATCH", "/api/v2/dags/a")) == 2


def test_airflow_loads_it() -> None:
    """By the plugin."""
    (declared,) = InsightlyHooksPlugin.fastapi_root_middlewares
    assert declared["middleware"] is unpausing.StartWatchers
