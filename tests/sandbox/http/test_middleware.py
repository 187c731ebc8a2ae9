"""The middleware: the API key, limits, faults, and the headers of every answer."""

from __future__ import annotations

import base64

import pytest


def _statuses(sandbox, number, path="/Instance"):
    return [sandbox.api("GET", path).status_code for _ in range(number)]


@pytest.mark.parametrize(
    "header",
    [
        None,
        "Basic",
        "Basic !!!",
        "Bearer sandbox-key",
        "Basic " + base64.b64encode(b"sandbox-key").decode(),
        "Basic " + base64.b64encode(b"sandbox-key:secret").decode(),
        "Basic " + base64.b64encode(b"other-key:").decode(),
        "Basic " + base64.b64encode(b":").decode(),
        "Basic " + base64.b64encode(b"\xff:").decode(),
    ],
)
@pytest.mark.parametrize("path", ["/Contacts", "/Nothing", "/Tickets", ""])
def test_only_the_key_with_no_password_is_let_in(sandbox, header, path):
    """Without the right key every path is 401, those that aren't there too; nothing is charged."""
    headers = {} if header is None else {"Authorization": header}
    response = sandbox.ask("GET", f"/v3.1{path}", headers=headers, auth=None)
    assert response.status_code == 401
    assert list(response.json()) == ["Message"]
    assert response.headers["X-RateLimit-Remaining"] == "100000"


def test_ten_requests_a_second(sandbox, clock):
    """The eleventh request in a second is 429 with Retry-After; a second after the first there is room."""
    sandbox.configure(requests_per_second=10)
    assert _statuses(sandbox, 1) == [200]
    clock.tick(0.5)
    assert _statuses(sandbox, 11) == [200] * 9 + [429, 429]
    refused = sandbox.api("GET", "/Contacts/Search")
    assert (refused.headers["Retry-After"], refused.headers["X-RateLimit-Remaining"]) == ("1", "99990")
    clock.tick(0.5)
    assert _statuses(sandbox, 2) == [200, 429]
    clock.tick(1)
    assert _statuses(sandbox, 11) == [200] * 10 + [429]


def test_moving_the_clock_does_not_open_the_second(sandbox):
    """A clock_offset changes what time it is, not how fast requests may come."""
    sandbox.configure(requests_per_second=1)
    assert _statuses(sandbox, 2) == [200, 429]
    sandbox.configure(clock_offset=-3600)
    assert _statuses(sandbox, 1) == [429]
    sandbox.clock.tick(1)
    assert _statuses(sandbox, 1) == [200]


def test_the_days_quota(sandbox):
    """When the day's requests are spent all are 429, without Retry-After, until midnight UTC."""
    sandbox.configure(requests_per_day=3)
    remaining = [sandbox.api("GET", "/Instance").headers["X-RateLimit-Remaining"] for _ in range(3)]
    assert remaining == ["2", "1", "0"]
    spent = sandbox.api("GET", "/Instance")
    assert spent.status_code == 429
    assert (spent.headers["X-RateLimit-Limit"], spent.headers["X-RateLimit-Remaining"]) == ("3", "0")
    assert "Retry-After" not in spent.headers
    sandbox.configure(clock_offset=13 * 3600)
    assert _statuses(sandbox, 4) == [429] * 4
    sandbox.configure(clock_offset=14 * 3600)
    assert _statuses(sandbox, 4) == [200, 200, 200, 429]


@pytest.mark.parametrize(
    "path", ["/v3.1/Contacts/Search", "/v3.1/Nothing", "/v3.1/Tickets", "/bin/a", "/", "/x"]
)
def test_every_answer_has_the_sandboxs_date(sandbox, path):
    """Date is by the sandbox's clock, its offset included; API answers tell the limits as well."""
    assert sandbox.ask("GET", path).headers["Date"] == "Mon, 24 Nov 2025 10:26:40 GMT"
    sandbox.configure(clock_offset=86400.5)
    answer = sandbox.ask("GET", path)
    assert answer.headers["Date"] == "Tue, 25 Nov 2025 10:26:40 GMT"
    assert ("X-RateLimit-Limit" in answer.headers) is path.startswith("/v3.1")


def test_the_control_plane_is_free(sandbox):
    """Requests of /_sandbox are neither counted nor limited, and need no key."""
    sandbox.configure(requests_per_second=1, requests_per_day=1)
    for _ in range(5):
        assert sandbox.ask("GET", "/_sandbox", auth=None).json()["requests"] == {}
    sandbox.ask("POST", "/_sandbox/records/Users", json={}, auth=None)
    assert _statuses(sandbox, 2) == [200, 429]


def test_requests_are_counted_per_path(sandbox):
    """Refused requests count too; ids in paths become {id}."""
    for path in ("/Tasks/1", "/Tasks/2", "/Tasks/Search?top=1"):
        sandbox.api("GET", path)
    sandbox.ask("GET", "/v3.1/Instance", auth=None)
    sandbox.ask("POST", "/bin/a", content=b"x")
    state = sandbox.ask("GET", "/_sandbox").json()
    assert state["requests"] == {
        "GET /v3.1/Instance": 1,
        "GET /v3.1/Tasks/Search": 1,
        "GET /v3.1/Tasks/{id}": 2,
        "POST /bin/a": 1,
    }
    assert state["requests_today"] == 3


def test_a_fault_lasts_as_often_as_it_is_told(sandbox):
    """A fault answers its path so many times; other paths and the bins go on."""
    sandbox.configure(fault={"path": "/v3.1/Contacts/Search", "status": 503, "times": 2, "retry_after": 7})
    assert sandbox.api("GET", "/Contacts").status_code == 200
    answer = sandbox.api("GET", "/Contacts/Search?top=1")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
    assert list(answer.json()) == ["Message"]
    assert _statuses(sandbox, 2, "/Contacts/Search") == [503, 200]


def test_a_fault_without_times_lasts_until_it_is_taken_away(sandbox):
    """Without times a fault stays; null takes it away; {id} in its path stands for any id."""
    sandbox.configure(fault={"path": "/v3.1/Tasks/{id}", "status": 500})
    answers = [sandbox.api("GET", f"/Tasks/{task_id}") for task_id in (1, 99922875)]
    assert [answer.status_code for answer in answers] == [500, 500]
    assert "Retry-After" not in answers[0].headers
    sandbox.configure(fault=None)
    assert _statuses(sandbox, 1, "/Tasks/99922875") == [200]


def test_a_fault_with_no_body(sandbox):
    """A fault may be an answer that has no body."""
    sandbox.configure(fault={"path": "/v3.1/Instance", "status": 204})
    assert sandbox.api("GET", "/Instance").content == b""
