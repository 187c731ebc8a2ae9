"""``keep_response``: a failing receiver's answer is shown, without the connection's credentials."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_insightly_hooks.core.delivery.stored_deliveries import StoredLedger
from airflow_insightly_hooks.core.errors import InvalidConnection
from airflow_insightly_hooks.hooks.webhook import WebhookHook
from tests.conftest import Connect, Logged, StateStore, run_context
from tests.deliveries import deliver, payloads, undelivered
from tests.servers import Request, Script, Server, answer, read_request, serving

USER, PASSWORD = "user", "Pa55-of-the-tests"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
SIGNING = base64.b64encode(b"s" * 24).decode()
TOKEN, OPERATORS, QUERY = "t0ken-of-the-tests", "operators-t0ken", "query-t0ken"
ERROR = '{"error": "field EMAIL missing"}'
REFUSES = [answer("422 Unprocessable Content", body=ERROR.encode())]


def connected(connect: Connect, server: Server, **extra: Any) -> WebhookHook:
    given = {"allow_insecure_http": True, "timeout": 2, "keep_response": True, **extra}
    connect("webhook_default", host=server.url, login=USER, password=PASSWORD, extra=given)
    return WebhookHook()


def test_response_of_a_failure(connect: Connect) -> None:
    """The answer has its own field. The error text is the same for all such answers."""
    with serving(REFUSES) as server:
        result = connected(connect, server).send("{}", message_id="msg_1")
    assert (result.status, result.error, result.response) == (422, "answered 422", ERROR)


@pytest.mark.parametrize(
    ("script", "extra"),
    [
        ([answer(body=ERROR.encode())], {}),
        (REFUSES, {"keep_response": False}),
        (REFUSES, {"keep_response": ""}),
        ([answer("503 Unavailable")], {}),
    ],
    ids=["success", "off", "empty", "no body"],
)
def test_nothing_is_kept(connect: Connect, script: Script, extra: dict[str, Any]) -> None:
    """Nothing is stored for a success, without ``keep_response``, or for an answer without a body."""
    with serving(script) as server:
        assert connected(connect, server, **extra).send("{}", message_id="msg_1").response is None


def test_2xx_without_the_expected_text(connect: Connect) -> None:
    """A 2xx without the expected text is a failure, and its answer is stored."""
    with serving([answer(body=b'{"ok": false}')]) as server:
        result = connected(connect, server, expect_body='"ok": true').send("{}", message_id="msg_1")
    assert not result.acknowledged
    assert result.response == '{"ok": false}'


def test_the_form(connect: Connect) -> None:
    """It is true or false. Anything else is refused before anything is sent."""
    with serving(REFUSES) as server, pytest.raises(InvalidConnection) as caught:
        connected(connect, server, keep_response="perhaps").send("{}", message_id="msg_1")
    assert (caught.value.field, server.connections) == ("extra.keep_response", 0)


def test_connection_test_shows_it(connect: Connect) -> None:
    """A user who tests a connection sees the receiver's answer."""
    with serving(REFUSES) as server:
        assert connected(connect, server).test_connection() == (
            False,
            f"{server.url}: answered 422; the response: {ERROR}",
        )


def echo(connection: Any) -> None:
    """Answer with the request, as some servers do when they refuse one."""
    request = read_request(connection)
    assert request is not None
    connection.sendall(answer("400 Bad Request", "Content-Type: application/json", body=_echoed(request)))


def _echoed(request: Request) -> bytes:
    headers = {name: value for name, value in request.header_lines if name in ("authorization", "x-a", "x-b")}
    received = {
        **headers,
        "line": request.request_line,
        "user": f"{USER}:{PASSWORD}",
        "whsec": f"whsec_{SIGNING}",
    }
    return json.dumps(received).encode()


@pytest.fixture
def echoing() -> Iterator[Server]:
    with serving([echo], reads=False) as server:
        yield server


@pytest.mark.parametrize("by", ["login", "URI"])
def test_receiver_that_echoes_credentials(connect: Connect, echoing: Server, by: str) -> None:
    """The stored text has no credential of connection, URI or operator. The rest of the echo is there."""
    address = f"{echoing.host}:{echoing.port}/hook?key={QUERY}"
    extra = {
        "allow_insecure_http": True,
        "keep_response": True,
        "headers": {"X-A": f"Token {TOKEN}"},
        "signing_secret": f"whsec_{SIGNING}",
    }
    fields = {"login": USER, "password": PASSWORD} if by == "login" else {}
    information = "" if by == "login" else f"{USER}:{PASSWORD}@"
    connect("webhook_default", host=f"http://{information}{address}", extra=extra, **fields)
    result = WebhookHook().send("{}", message_id="msg_1", headers={"X-B": f"Bearer {OPERATORS}"})
    assert result.status == 400
    assert json.loads(result.response or "") == {
        "authorization": "Basic ***",
        "x-a": "***",
        "x-b": "***",
        "line": "POST /hook?*** HTTP/1.1",
        "user": "user:***",
        "whsec": "***",
    }


def test_proxy_that_echoes_credentials(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy's credentials are hidden like the receiver's."""

    def echo_proxy(connection: Any) -> None:
        request = read_request(connection)
        assert request is not None
        connection.sendall(answer("502 Bad Gateway", body=request.headers["proxy-authorization"].encode()))

    with serving([echo_proxy], reads=False) as proxy:
        monkeypatch.setenv("http_proxy", f"http://proxy-user:pr0xy-pass@{proxy.host}:{proxy.port}")
        connect("webhook_default", host="http://receiver.example.com", extra={"keep_response": True})
        result = WebhookHook().send("{}", message_id="msg_1")
    assert (result.status, result.response) == (502, "Basic ***")


# --- in the deliver task ---------------------------------------------------------------------------------


def test_log_and_report(connect: Connect, logged: Logged) -> None:
    """Log and report show the answer for each record. The table of failures has one line for all."""

    def refuse(number: int) -> Script:
        return [answer("422 X", body=f'{{"error": "field F{number} missing"}}'.encode())]

    context = run_context(task_state_store=StateStore())
    with serving(refuse) as server:
        connected(connect, server)
        report = undelivered(context, payloads(3), concurrency=1).report
    expected = [f'answered 422; the response: {{"error": "field F{n} missing"}}' for n in range(3)]
    assert [item["error"] for item in report["undelivered"]] == expected
    text = logged.text
    assert all(f"was not acknowledged, POST 1: {error}" in text for error in expected)
    assert "        3  answered 422 [" in text
    assert text.count("answered 422 [") == 1
    ledger = StoredLedger.find(context["task_state_store"].get)
    assert ledger is not None
    outcomes = [message.outcomes[-1] for message in ledger.messages(context["task_state_store"].get)]
    assert [(outcome.error, outcome.response) for outcome in outcomes] == [
        ("answered 422", f'{{"error": "field F{n} missing"}}') for n in range(3)
    ]


def test_success_keeps_nothing(connect: Connect, logged: Logged) -> None:
    """A receiver's answer to an accepted message is stored nowhere."""
    context = run_context(task_state_store=StateStore())
    with serving([answer(body=b"canary")]) as server:
        connected(connect, server)
        report = deliver(context, payloads(1))
    assert report["delivered"] == 1
    assert "canary" not in logged.text
