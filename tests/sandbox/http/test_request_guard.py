"""What is refused before anything else: foreign hosts and pages, and what is too large."""

from __future__ import annotations

import http.client
import socket
from urllib.parse import urlsplit

import pytest
from starlette.datastructures import Headers

from airflow_insightly_hooks.sandbox.http import request_bin, request_guard
from airflow_insightly_hooks.sandbox.http.request_guard import MAX_BODY, RequestGuard
from airflow_insightly_hooks.sandbox.server import MAX_HEAD, running_sandbox

PATHS = ["/", "/bin/x", "/bin/x/requests", "/_sandbox", "/_sandbox/history", "/v3.1/Instance", "/nothing"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "localhost.evil.example", "192.0.2.1"])
def test_another_host_is_refused(still, path, host):
    """A page whose name leads to this machine learns nothing; the answer names the option."""
    response = still.ask("GET", path, headers={"Host": host})
    assert response.status_code == 403
    assert "--allow-host" in response.json()["Message"]


HOSTS = {
    "127.0.0.1": True,
    "127.0.0.1:8765": True,
    "127.0.0.2": True,
    "localhost": True,
    "LocalHost:1": True,
    "localhost.": True,
    "crm.localhost": True,
    "[::1]": True,
    "[::1]:8765": True,
    "sandbox": True,
    "": False,
    "localhost@evil.example": False,
    "evil.example@localhost": False,
    "localhost/": False,
    "localhost:port": False,
    "[::1": False,
    "0.0.0.0": False,
    "::1": False,
    "10.0.0.1": False,
}


@pytest.mark.parametrize(("host", "is_ours"), HOSTS.items())
def test_which_hosts_are_this_machine(still, host, is_ours):
    """Its loopback names and addresses, and what it was told; with any port."""
    response = still.ask("GET", "/v3.1/Instance", headers={"Host": host})
    assert response.status_code == (200 if is_ours else 403)


@pytest.mark.parametrize(
    ("bound", "host", "is_ours"),
    [
        ("192.0.2.7", "192.0.2.7:8765", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("0.0.0.0", "192.0.2.8:8765", True),
        ("::", "[2001:db8::1]", True),
        ("0.0.0.0", "evil.example", False),
        ("My-Host.", "my-host:1", True),
    ],
)
def test_the_address_that_it_listens_on(bound, host, is_ours):
    """Is allowed; where that is any, every address is, since a name alone can be turned to this machine."""

    async def app(*_: object) -> None:
        raise AssertionError

    guard = RequestGuard(app, [bound])
    assert (guard._refusal("GET", Headers({"host": host})) is None) == is_ours


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:3000", "http://sandbox:1"]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/_sandbox"),
        ("DELETE", "/_sandbox"),
        ("POST", "/bin/x"),
        ("PUT", "/bin/x"),
        ("DELETE", "/bin/x"),
        ("POST", "/_sandbox/records/Contacts"),
        ("POST", "/v3.1/Contacts"),
    ],
)
def test_another_page_changes_nothing(still, origin, method, path):
    """A browser says from which page a change comes; without that, it is no browser's."""
    before = still.ask("GET", "/_sandbox").json()["records"]
    response = still.ask(method, path, json={}, headers={"Origin": origin})
    assert (response.status_code, list(response.json())) == (403, ["Message"])
    assert still.ask("GET", "/_sandbox").json()["records"] == before
    assert "x" not in still.ask("GET", "/_sandbox").json()["bins"]


def test_its_own_page_may_change_something(sandbox):
    """And any page may read, if its browser lets it."""
    assert sandbox.ask("PUT", "/bin/x", json={}, headers={"Origin": "http://sandbox"}).status_code == 200
    assert sandbox.ask("GET", "/bin/x", headers={"Origin": "http://evil.example"}).status_code == 200


def ask(url: str, method: str, path: str, body: object = None, **headers: str) -> http.client.HTTPResponse:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)
    connection.request(method, path, body, headers)  # type: ignore[arg-type]
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


@pytest.mark.parametrize("path", ["/bin/x", "/_sandbox/records/Contacts", "/v3.1/Contacts"])
def test_a_body_is_bounded(path, monkeypatch):
    """Whether its length is told or not, in a request bin, too: 413, and nothing is kept."""
    monkeypatch.setattr(request_guard, "MAX_BODY", 1_000)
    key = {"Authorization": "Basic c2FuZGJveC1rZXk6"}
    with running_sandbox() as sandbox:
        for body in (b" " * 1_001, iter([b" " * 500] * 3)):
            assert ask(sandbox.url, "POST", path, body, **key).status == 413
        assert ask(sandbox.url, "POST", path, b"{}" + b" " * 998, **key).status in (200, 201, 400)
        assert len(sandbox.received("x")) == (path == "/bin/x")


def test_a_body_that_says_it_is_huge_is_not_read(sandbox):
    """It is refused by what it says."""
    with running_sandbox() as running:
        parts = urlsplit(running.url)
        with socket.create_connection((str(parts.hostname), parts.port or 0), timeout=5) as connection:
            head = f"POST /bin/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: {MAX_BODY + 1}\r\n\r\nx"
            connection.sendall(head.encode())
            assert connection.recv(1_000).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("endless", [b"x" * 10_000, b"X: y\r\n" * 2_000], ids=["value", "headers"])
def test_a_head_is_bounded(endless):
    """One header without end, or headers without end: the connection is closed."""
    with running_sandbox() as sandbox:
        parts = urlsplit(sandbox.url)
        with socket.create_connection((str(parts.hostname), parts.port or 0), timeout=5) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
            if b"\r\n" not in endless:
                connection.sendall(b"X: ")
            is_closed = False
            connection.settimeout(0.05)
            for _ in range(10 * MAX_HEAD // len(endless)):
                try:
                    connection.sendall(endless)
                    is_closed = connection.recv(1_000) == b"" or is_closed
                except TimeoutError:
                    continue
                except ConnectionError:
                    is_closed = True
                if is_closed:
                    break
            assert is_closed
        assert ask(sandbox.url, "GET", "/", None, X="x" * 60_000).status == 200


def test_a_bin_keeps_a_bounded_amount(monkeypatch):
    """The oldest requests go, the newest stays, however large it is."""
    monkeypatch.setattr(request_bin, "MAX_KEPT", 10)
    monkeypatch.setattr(request_bin, "MAX_REQUESTS", 3)
    kept = request_bin.RequestBin()
    for body in ("aaaa", "bbbb", "cccc", "d", "e", "f"):
        kept.receive("now", {}, body, None)
    assert [one.body for one in kept.requests] == ["d", "e", "f"]
    kept.receive("now", {}, "x" * 50, None)
    assert [len(one.body) for one in kept.requests] == [50]
    kept.receive("now", {}, "y", None)
    assert [one.body for one in kept.requests] == ["y"]
