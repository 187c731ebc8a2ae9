"""Behaviour that all pages share: access rights, headers for browsers, and errors."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.core_api.security import get_user
from airflow.sdk import DAG
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from starlette.requests import Request

from airflow_insightly_hooks.core.errors import InvalidState
from airflow_insightly_hooks.ui.addresses import Addresses
from airflow_insightly_hooks.ui.app import make_app
from airflow_insightly_hooks.ui.forms import check_origin
from airflow_insightly_hooks.ui.problems import ForeignOrigin
from airflow_insightly_hooks.ui.rendering import _environment
from tests.ledgers import add_flow, add_run, write
from tests.metadata_database import add_dag
from tests.ui.conftest import Login


def calls(dependant: Dependant) -> list[object]:
    return [dependant.call, *(call for one in dependant.dependencies for call in calls(one))]


ROUTES = [route for route in make_app().routes if isinstance(route, APIRoute)]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{sorted(route.methods)[0]} {route.path}")
def test_every_route_asks_who_it_is(route: APIRoute) -> None:
    assert get_user in calls(route.dependant)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{sorted(route.methods)[0]} {route.path}")
def test_every_change_checks_its_origin(route: APIRoute) -> None:
    from airflow_insightly_hooks.ui import forms

    assert (route.methods == {"GET"}) or forms._form in calls(route.dependant)


def test_who_is_not_logged_in_is_sent_to_the_login(login: Login) -> None:
    answer = login(None).get("/insightly/?a=b")
    assert answer.status_code == 303
    assert answer.headers["location"].endswith("auth/login?next=%2Finsightly%2F%3Fa%3Db")


def test_a_program_that_is_not_logged_in_gets_401(login: Login) -> None:
    answer = login(None).get("/insightly/", headers={"Accept": "application/json"})
    assert (answer.status_code, answer.json()["title"]) == (401, "Please log in")


def test_a_bad_token_gets_no_page(login: Login) -> None:
    client = login(None)
    client.cookies.set("_token", "x.y.z")
    assert client.get("/insightly/").status_code == 303
    assert client.get("/insightly/", headers={"Accept": "application/json"}).status_code == 401


def test_every_answer_says_what_the_browser_may_load(login: Login) -> None:
    client = login()
    for path in ("/", "/static/style.css", "/nowhere"):
        headers = client.get(f"/insightly{path}").headers
        policy = headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'; script-src 'self'" in policy
        assert headers["x-content-type-options"] == "nosniff"
    assert client.get("/insightly/").headers["cache-control"] == "no-store"
    assert "no-store" not in client.get("/insightly/static/page.js").headers.get("cache-control", "")


def test_an_unknown_page_has_a_designed_error(login: Login) -> None:
    answer = login().get("/insightly/nowhere")
    assert answer.status_code == 404
    assert "There is no such page" in answer.text
    assert '<a href="/insightly/">Go to the overview</a>' in answer.text


@pytest.mark.parametrize("root_path", ["", "/airflow"])
def test_addresses_keep_the_path_that_airflow_is_served_under(login: Login, root_path: str) -> None:
    page = login(root_path=root_path).get("/insightly/").text
    assert f'href="{root_path}/insightly/static/style.css' in page
    assert f'href="{root_path}/insightly/deliveries"' in page


def test_addresses_of_airflow_quote_what_stands_in_them() -> None:
    request = Request({"type": "http", "root_path": "/airflow/insightly", "headers": []})
    addresses = Addresses(request)
    run = "scheduled__2026-01-01T00:00:00+00:00/x"
    assert addresses.task("dag", run, "group.deliver", 3) == (
        "/airflow/dags/dag/runs/scheduled__2026-01-01T00%3A00%3A00%2B00%3A00%2Fx/tasks/group.deliver/mapped/3"
    )
    assert addresses.page("/deliveries", {"state": "failed", "page": 2}, page=None, record="a&b") == (
        "/airflow/insightly/deliveries?state=failed&record=a%26b"
    )


def request_from(**headers: str) -> Request:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": pairs})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "null"},
        {"origin": "http://evil.example.com"},
        {"origin": "http://airflow.example.com.evil.example.com"},
        {"origin": "http://airflow.example.com:8080"},
        {"origin": "ftp://airflow.example.com"},
        {"origin": "http://[::1"},
        {"origin": "http://airflow.example.com@evil.example.com"},
        {"origin": "http://airflow.example.com", "sec_fetch_site": "cross-site"},
        {"origin": "http://airflow.example.com", "sec_fetch_site": "same-site"},
    ],
)
def test_a_form_of_another_origin_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ForeignOrigin):
        check_origin(request_from(host="airflow.example.com", **headers))


def test_a_form_of_the_own_origin_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    check_origin(request_from(host="airflow.example.com", origin="https://airflow.example.com"))
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://data.example.com/airflow")
    check_origin(request_from(host="10.0.0.7:8080", origin="https://data.example.com"))


def test_a_page_that_fails_tells_nobody_its_contents(
    login: Login, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a record of Ms Smith")

    client = login()
    monkeypatch.setattr(type(_environment()), "get_template", fail)
    answer = client.get("/insightly/", headers={"Accept": "application/json"})
    assert answer.status_code == 500
    assert "RuntimeError" in answer.text
    assert "Smith" not in answer.text + caplog.text


def test_a_database_that_is_away_is_said(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("host=db password=x"))

    client = login()
    monkeypatch.setattr(type(_environment()), "get_template", fail)
    answer = client.get("/insightly/", headers={"Accept": "application/json"})
    assert answer.status_code == 503
    assert "password" not in answer.text


def test_only_dags_of_ours_are_asked_about(login: Login, session: Session) -> None:
    """Other DAGs are not asked about: an auth manager may take 20 ms for each of hundreds of DAGs."""
    add_flow(session, "flow")
    write(session, add_run(session, "one"), {"msg_a": (7, "A", 1)})
    for number in range(20):
        with DAG(f"other_{number}", schedule=None) as dag:
            pass
        add_dag(session, dag)
    asked = []

    class Counting(SimpleAuthManager):
        def is_authorized_dag(self, *, access_entity: Any = None, details: Any = None, **more: Any) -> bool:
            if access_entity is not None:
                asked.append(details.id)
            return super().is_authorized_dag(access_entity=access_entity, details=details, **more)

    assert login(manager=Counting()).get("/insightly/").status_code == 200
    assert asked == ["flow"]


# --- headers for browsers, and requests from them ----------------------------------------------------------


@pytest.mark.parametrize(
    "directive", ["frame-ancestors 'self'", "form-action 'self'", "base-uri 'none'", "style-src 'self'"]
)
def test_the_policy_keeps_other_sites_away(login: Login, directive: str) -> None:
    """Other sites can't frame a page, receive its forms, or style it."""
    headers = login().get("/insightly/nowhere").headers
    assert directive in headers["content-security-policy"].split("; ")
    assert headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b"a=b", "text/plain", "application/x-www-form-urlencoded"),
        (b"a=" + b"x" * 4_000_000, None, "larger than 4 MB"),
        (b"a=%ff", None, "Use UTF-8"),
        (b"a=\xff", None, "Use UTF-8"),
        (b"&".join([b"a=b"] * 10_001), None, "at most 10,000 fields"),
        (b"a=%00", None, "a NUL character"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_forms_that_cannot_be_read(login: Login, content: bytes, kind: str | None, said: str) -> None:
    headers = {"Content-Type": kind or "application/x-www-form-urlencoded; charset=utf-8"}
    answer = login().post("/insightly/resend", content=content, headers=headers)
    assert (answer.status_code, said in answer.text) == (400, True)


def test_an_error_of_ours_is_shown(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error's text holds no contents of records, and says what to do."""

    def fail(*_: object, **__: object) -> None:
        raise InvalidState("delivery", "it was written by another version")

    client = login()
    monkeypatch.setattr(type(_environment()), "get_template", fail)
    answer = client.get("/insightly/", headers={"Accept": "application/json"})
    assert answer.status_code == 500
    assert "it was written by another version" in answer.json()["detail"]


def test_no_address_redirects_to_another_host(login: Login) -> None:
    answer = login().get("/insightly/deliveries/", headers={"Host": "evil.example.com"})
    assert (answer.status_code, "location" in answer.headers) == (404, False)
