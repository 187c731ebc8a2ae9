"""A page answers whatever its address holds, and links only to own pages that answer, too."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

import pytest
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from airflow_insightly_hooks.core.delivery.stored_deliveries import STATES
from airflow_insightly_hooks.ui.app import make_app
from airflow_insightly_hooks.ui.delivery_filter import FIELDS, PERIODS, TABS
from tests.ledgers import add_flow, add_run, write
from tests.ui.conftest import Login

NAMES = {
    "/": ("page",),
    "/deliveries": (*FIELDS, "zone", "page"),
    "/delivery": (*TABS["task_instance"], "message_id", "ledger", "tab"),
    "/pending": ("workflow", "webhook", "record", "page"),
    "/pending/runs": ("request",),
    "/preview": ("workflow", "dag_id", "record_id"),
    "/resend": ("id", "tasks", "tab", "dag_id", "run_id"),
}
"""Path -> the fields that its page reads."""
MARK = "<script>'\"{{7*7}}"
"""What must come out as text only; of ``{{7*7}}``, nothing is calculated."""

KNOWN = st.sampled_from(
    ["flow", "run+one", "deliver", "msg_a", "Contacts:7", *STATES, *PERIODS, *TABS, "range", "undelivered"]
)
NUMBERS = st.integers().map(str) | st.sampled_from(["7", "1e9", "0", "9" * 18, "9" * 19, "9" * 5_000, "٣"])
EXTREMES = ("0001-01-01T00:00:00", "9999-12-31T23:59:59", "9999-12-31T23:59:59.999999")
MOMENTS = st.sampled_from(EXTREMES) | st.datetimes().map(lambda time: time.isoformat())
TIMES = st.tuples(MOMENTS, st.sampled_from(["", "Z", "+14:00", "-14:00"])).map("".join)
REQUESTS = st.tuples(st.sampled_from(["cancel__", "send_now__"]), MOMENTS, st.just("Z")).map("".join)
ZONES = st.sampled_from(["America/New_York", "America", "../../etc/passwd", "/etc/passwd", ".", "Z" * 300])
ODD = st.sampled_from([MARK, "%", "_", "\\", "\0", "\r\nX: y", "//evil.example.com", "\u202e😀", "x" * 600])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES: SearchStrategy[str] = st.one_of(KNOWN, NUMBERS, TIMES, REQUESTS, ZONES, ODD, TEXTS)


NASTY = (
    *(MARK, "\0", "x" * 600, "9" * 19, "../../etc/passwd", "\r\nX: y", "//evil.example.com"),
    *(f"{before}{time}Z" for before in ("", "cancel__") for time in EXTREMES),
)
TASK = {"dag_id": "flow", "run_id": "run+one", "task_id": "deliver", "message_id": "msg_a"}


@pytest.fixture
def client(login: Login, session: Session) -> TestClient:
    add_flow(session, "flow")
    write(session, add_run(session, "run+one"), {"msg_a": (7, "A", 1), "msg_b": (8, "F", 2)})
    return login()


def check(client: TestClient, address: str) -> None:
    query = address
    for _ in range(3):  # there is one redirect at most, to the address without what says nothing
        answer = client.get(address)
        if answer.status_code != 303:
            break
        address = answer.headers["location"]
        assert address.startswith("/insightly/"), query
    assert answer.status_code in (200, 400, 403, 404), f"{query}: {answer.status_code}"
    assert answer.headers["cache-control"] == "no-store", query
    assert "<script>" not in answer.text, query
    assert "&#39;&#34;49" not in answer.text, query


def test_the_pages_are_those() -> None:
    routes = [route for route in make_app().routes if isinstance(route, APIRoute)]
    assert {route.path for route in routes if "GET" in route.methods} == NAMES.keys()


@pytest.mark.parametrize("path", NAMES)
def test_every_field_takes_what_is_nasty(client: TestClient, path: str) -> None:
    for name in NAMES[path]:
        for value in NASTY:
            check(client, f"/insightly{path}?{urlencode({**TASK, name: value})}")


@st.composite
def queries(draw: DrawFn, names: Sequence[str]) -> str:
    """Some fields; some of their values aren't UTF-8."""
    known = list(TASK.items())[: draw(st.integers(0, 4))]
    fields = draw(st.lists(st.tuples(st.sampled_from(names), VALUES), max_size=8))
    broken = draw(st.sampled_from(["", "", "&record=%ff%fe", "&run_id=%ed%a0%80", "&=&&x"]))
    return urlencode([*known, *fields]) + broken


@pytest.mark.parametrize("path", NAMES)
def test_every_query_has_an_answer(client: TestClient, path: str) -> None:
    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(query=queries(NAMES[path]))
    def ask(query: str) -> None:
        check(client, f"/insightly{path}?{query}")

    ask()
