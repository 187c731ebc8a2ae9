"""Who gets which page, by the rules of both auth managers; on API servers as they run in use."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import requests

from airflow_insightly_hooks.ui.addresses import PREFIX
from tests.ui.e2e.airflow_server import SIMPLE, AirflowServer
from tests.ui.e2e.routes import CHANGES, PAGES, address_of
from tests.ui.fab_users import ROLES
from tests.ui.workflows import HIDDEN, SECRETS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

BAD_TOKEN = "a-bad-token"
PEOPLE = [("airflow", user) for user in SIMPLE] + [("fab_airflow", user) for user in ROLES]
"""The servers, by their fixtures, and their users."""
STRANGERS = [(server, user) for server in ("airflow", "fab_airflow") for user in (None, BAD_TOKEN)]
HTML, JSON = "text/html", "application/json"
Ask = Callable[..., requests.Response]


@pytest.fixture
def ask(request: pytest.FixtureRequest) -> Ask:
    """Return what asks a server for a path as a person: ``ask("airflow", "viewer", "/")``."""

    def ask(
        server_name: str,
        user: str | None,
        path: str,
        *,
        method: str = "GET",
        accept: str = HTML,
        **headers: str,
    ) -> requests.Response:
        server: AirflowServer = request.getfixturevalue(server_name)
        client = server.client(None if user == BAD_TOKEN else user)
        if user == BAD_TOKEN:
            client.cookies.set("_token", "eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiJhZG1pbiJ9.bad")
        address = server.base_url + address_of(path, server.seed)
        headers = {name.replace("_", "-"): value.format(server=server) for name, value in headers.items()}
        with client:
            return client.request(
                method, address, headers={"Accept": accept, **headers}, allow_redirects=False, timeout=60
            )

    return ask


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(("server", "user"), PEOPLE)
def test_who_is_logged_in_gets_pages(ask: Ask, server: str, user: str, path: str) -> None:
    """Everybody who may see DAGs; nobody sees a secret there."""
    answer = ask(server, user, path)
    if user == "public":
        assert answer.status_code in (200, 403, 404)
        assert HIDDEN not in answer.text
    else:
        assert answer.status_code == 200
    assert not [secret for secret in SECRETS if secret in answer.text]


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(("server", "user"), STRANGERS)
def test_who_is_not_logged_in_gets_no_page(ask: Ask, server: str, user: str | None, path: str) -> None:
    """A browser is sent to the login, a program is refused; a token that isn't valid is as good as none."""
    answer = ask(server, user, path)
    assert answer.status_code == 303, answer.text[:300]
    assert "/auth/login" in answer.headers["location"]
    answer = ask(server, user, path, accept=JSON)
    assert answer.status_code == 401


def test_a_token_in_a_header_counts(airflow: AirflowServer) -> None:
    """What Airflow takes for a login, these pages do, too."""
    address = f"{airflow.base_url}{PREFIX}/"
    headers = {"Accept": HTML, "Authorization": f"Bearer {airflow.token('viewer')}"}
    assert requests.get(address, headers=headers, timeout=60).status_code == 200


@pytest.mark.parametrize("path", PAGES)
def test_nothing_of_a_hidden_dag_is_shown(ask: Ask, path: str) -> None:
    """Who may not see a DAG is shown nothing of it: neither its name, nor a message, nor how many."""
    shown = ask("fab_airflow", "sales", path).text
    assert HIDDEN not in shown
    assert "Payroll" not in shown
    assert "Confidential" not in shown


def test_that_dag_is_shown_to_others(ask: Ask) -> None:
    """The test above finds nothing because it is hidden, not because there is nothing."""
    assert any(HIDDEN in ask("fab_airflow", "viewer", path).text for path in PAGES)


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "null"}, {"Origin": "http://evil.example.com"}, {"Origin": "{server.base_url}.evil.com"}],
    ids=str,
)
@pytest.mark.parametrize("server", ["airflow", "fab_airflow"])
def test_a_form_of_another_site_is_refused(ask: Ask, server: str, path: str, headers: dict[str, str]) -> None:
    """A person's cookie alone is not enough to change something."""
    answer = ask(server, "admin", path, method="POST", **headers)
    assert answer.status_code == 403
    assert "The form does not seem to come from" in answer.text


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize(("server", "user"), STRANGERS)
def test_who_is_not_logged_in_changes_nothing(ask: Ask, server: str, user: str | None, path: str) -> None:
    """Not even from our own origin."""
    answer = ask(server, user, path, method="POST", Origin="{server.base_url}")
    assert answer.status_code == 401


@pytest.mark.parametrize("path", sorted(set(CHANGES) - set(PAGES)))
def test_an_address_alone_changes_nothing(ask: Ask, path: str) -> None:
    """What changes something is a POST: a link, or an image on another site, can't do it."""
    assert ask("airflow", "admin", path).status_code == 405


@pytest.mark.parametrize("path", ["/resend", "/pending", "/preview"])
@pytest.mark.parametrize(
    ("user", "may"), [("admin", True), ("op", True), ("user", True), ("viewer", False)], ids=str
)
@pytest.mark.parametrize("server", ["airflow", "fab_airflow"])
def test_who_may_only_look_is_offered_no_change(
    request: pytest.FixtureRequest, server: str, user: str, may: bool, path: str
) -> None:
    """Forms made by hand are judged like our own: there is no button to confirm, or a refusal."""
    airflow: AirflowServer = request.getfixturevalue(server)
    dag_id, run_id, task_id = airflow.seed.tasks["response"]
    delivery = json.dumps([dag_id, run_id, task_id, -1, "", airflow.seed.messages["response"]])
    forms = {
        "/resend": {"what": "selected", "delivery": delivery},
        "/pending": {"action": "cancel", "all": "yes"},
        "/preview": {"workflow": "won_deals_to_the_erp/evaluate", "record_id": "x"},
    }
    headers = {"Accept": HTML, "Origin": airflow.base_url}
    with airflow.client(user) as client:
        answer = client.post(f"{airflow.base_url}{PREFIX}{path}", forms[path], headers=headers, timeout=60)
    if path == "/preview":  # the id is looked at once the right is there
        assert answer.status_code == (400 if may else 403)
    else:
        assert answer.status_code == 200
        assert ('class="primary"' in answer.text) is may
