"""POSTs to a receiver: what is sent, and what counts as acknowledged."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_insightly_hooks.core.errors import InvalidConnection, InvalidPayload
from airflow_insightly_hooks.hooks.post import transport
from airflow_insightly_hooks.hooks.webhook import PostResult, WebhookHook
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.conftest import Connect, Logged
from tests.servers import RESET, Server, answer, repeat, serving

USER = "récepteur"
PASSWORD = "pä:ss@wörd%2F of the tests"
AUTHORIZATION = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
BODY = '{"entity":{"FIRST_NAME":"Zoë","DATE":"\\/Date(0+0000)\\/","N":1.0}}\n'
CONTENTS = "Zoë"
SECRETS = ("whsec_" + base64.b64encode(b"s" * 24).decode(), "whsec_" + base64.b64encode(b"t" * 32).decode())
TIMEOUT = 0.4


@pytest.fixture(autouse=True)
def _no_secrets_logged(logged: Logged) -> Iterator[None]:
    """No log line contains credentials or a record's contents."""
    yield
    for secret in (PASSWORD, AUTHORIZATION.removeprefix("Basic "), CONTENTS, *SECRETS):
        assert secret not in logged.text


def hook_for(connect: Connect, server: Server, path: str = "/hook", **extra: Any) -> WebhookHook:
    extra = {"timeout": TIMEOUT, **extra}
    connect("receiver", host=server.url + path, login=USER, password=PASSWORD, extra=extra)
    return WebhookHook("receiver")


def send(hook: WebhookHook, body: str = BODY, **arguments: Any) -> PostResult:
    result = hook.send(body, message_id="msg_1", **arguments)
    for secret in (PASSWORD, AUTHORIZATION.removeprefix("Basic "), CONTENTS):
        assert secret not in repr(result)
    return result


def sent_to(connect: Connect, *script: Any, **extra: Any) -> PostResult:
    """Return the result of a POST to a server that plays this script."""
    with serving(script) as server:
        return send(hook_for(connect, server, **extra))


# --- what is sent ----------------------------------------------------------------------------------------


def test_request(connect: Connect) -> None:
    """The request has the exact body, its length and our headers, and nothing else."""
    with serving([answer()]) as server:
        before = int(time.time())
        result = send(hook_for(connect, server, "/hook/a%2Fb?token=1&x=%20"))
        after = int(time.time())
    (request,) = server.requests
    assert request.request_line == "POST /hook/a%2Fb?token=1&x=%20 HTTP/1.1"
    assert request.body == BODY.encode()
    headers = request.headers
    assert headers.pop("user-agent").startswith("airflow-insightly-hooks/")
    assert before <= int(headers.pop("webhook-timestamp")) <= after
    assert headers == {
        "host": f"127.0.0.1:{server.port}",
        "content-length": str(len(BODY.encode())),
        "content-type": "application/json; charset=utf-8",
        "accept": "*/*",
        "accept-encoding": "identity",
        "connection": "close",
        "authorization": AUTHORIZATION,
        "webhook-id": "msg_1",
    }
    assert (result.acknowledged, result.status, result.error) == (True, 200, None)
    assert (result.sent, result.gone, result.retry_after) == (True, False, None)
    assert 0 < result.elapsed < 5


@pytest.mark.parametrize(
    ("given", "header"),
    [
        ({"login": USER, "password": PASSWORD}, AUTHORIZATION),
        ({"login": "user"}, "Basic dXNlcjo="),
        ({"password": "secret-word"}, "Basic OnNlY3JldC13b3Jk"),
        ({}, None),
    ],
)
def test_basic_authentication(connect: Connect, given: dict[str, str], header: str | None) -> None:
    """Credentials are sent as in RFC 7617, in UTF-8; a user name alone as ``user:``."""
    with serving([answer()]) as server:
        connect("receiver", host=server.url, **given)
        WebhookHook("receiver").send(BODY, message_id="msg_1")
    assert server.requests[0].headers.get("authorization") == header


def test_forms_of_a_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON, JSON with its extra as text, the URI form, and a bare URI send the same request."""
    with serving([answer()]) as server:
        fields = {"conn_type": "insightly_webhook", "host": "127.0.0.1", "schema": "http"}
        fields |= {"port": server.port, "login": "user", "password": "p@ss:w/rd"}
        extra = {"path": "/hook?a=1", "timeout": 5, "headers": {"x-a": "1"}, "trust_env": False}
        as_text = {**extra, "timeout": "5", "headers": '{"x-a": "1"}', "trust_env": "False", "verify": ""}
        query = "path=/hook%3Fa%3D1&timeout=5&headers=%7B%22x-a%22%3A%221%22%7D&trust_env=false"
        forms = {
            "JSON": json.dumps({**fields, "extra": extra}),
            "TEXT": json.dumps({**fields, "extra": json.dumps(as_text)}),
            "URI": f"insightly-webhook://user:p%40ss%3Aw%2Frd@127.0.0.1:{server.port}/http?{query}",
        }
        for conn_id, value in forms.items():
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id}", value)
            WebhookHook(conn_id.lower()).send(BODY, message_id="msg_1")
        uri = f"http://user:p%40ss%3Aw%2Frd@127.0.0.1:{server.port}/hook?a=1"
        WebhookHook(uri=uri).send(BODY, message_id="msg_1", headers={"X-A": "1"})
    first, *others = [
        (r.request_line, {**r.headers, "webhook-timestamp": ""}, r.body) for r in server.requests
    ]
    assert len(others) == 3
    for other in others:
        assert other == first


def test_signature(connect: Connect) -> None:
    """Each signing secret signs id, time and body, as Standard Webhooks says."""
    with serving([answer()]) as server:
        send(hook_for(connect, server, signing_secret=" ".join(SECRETS)))
    (request,) = server.requests
    signed = f"msg_1.{request.headers['webhook-timestamp']}.".encode() + BODY.encode()
    expected = [
        "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        for key in (b"s" * 24, b"t" * 32)
    ]
    assert request.headers["webhook-signature"].split(" ") == expected


def test_headers(connect: Connect) -> None:
    """The operator's headers replace the connection's, and both replace our headers that aren't protected."""
    with serving([answer()]) as server:
        hook = hook_for(connect, server, headers={"X-One": "1", "x-two": "2", "Accept": "text/plain"})
        send(hook, headers={"X-TWO": " two ", "X-Three": "3", "accept-encoding": "gzip"})
    headers = server.requests[0].headers
    assert (headers["x-one"], headers["x-two"], headers["x-three"]) == ("1", "two", "3")
    assert headers["accept"] == "text/plain"
    assert headers["content-type"] == "application/json; charset=utf-8"
    assert headers["accept-encoding"] == "identity"


def test_names_of_headers(connect: Connect) -> None:
    """Names are sent in their usual form. A user's own names are sent as written."""
    with serving([answer()]) as server:
        hook = hook_for(connect, server, headers={"ACCEPT": "text/plain", "X-Api-KEY": "1"})
        send(hook, headers={"x-api-key": "2", "user-agent": "mine"})
    names = {line.partition(b":")[0].decode() for line in server.requests[0].head.split(b"\r\n")[1:]}
    assert names == {
        *("Host", "Content-Type", "Content-Length", "User-Agent", "Accept", "Accept-Encoding", "Connection"),
        *("Authorization", "x-api-key", "webhook-id", "webhook-timestamp"),
    }


def test_secrets_are_masked(connect: Connect, redact: Callable[[str], str]) -> None:
    """Airflow masks credentials, headers' values and signing secrets in all logs."""
    encoded = base64.b64encode(b"user:masked-word").decode()
    secrets = [f"whsec_{base64.b64encode(word * 4).decode()}" for word in (b"masked-one", b"masked-two")]
    extra = {"headers": {"X-Api-Key": "masked-header"}, "signing_secret": " ".join(secrets)}
    connect(
        "receiver", host="https://receiver.example.com", login="user", password="masked-word", extra=extra
    )
    WebhookHook("receiver").get_conn()
    for secret in ("masked-word", encoded, "masked-header", *secrets):
        assert redact(f"a {secret} b") == "a *** b"
    WebhookHook(uri="https://user:word-of-a-uri@receiver.example.com").get_conn()
    assert redact("a word-of-a-uri b") == "a *** b"


@pytest.mark.parametrize(
    "headers",
    [
        {"webhook-id": "mine"},
        {"Webhook-Signature": "v1,x"},
        {"webhook-timestamp": "0"},
        {"Content-Length": "5"},
        {"Host": "other.example.com"},
        {"transfer-encoding": "chunked"},
        {"Connection": "keep-alive"},
        {"Content-Type": "text/plain"},
        {"Webhook-Other": "1"},
        {"Expect": "100-continue"},
        {"Proxy-Authorization": "Basic eA=="},
        {"Authorization": "Bearer x"},
        {"X-A": "1", "x-a": "2"},
        {"": "x"},
        {"X A": "x"},
        {"X:A": "x"},
        {"X-A\r\nX-B": "x"},
        {"Ä": "x"},
        {"X-A": f"{CONTENTS}\r\nX-B: 1"},
        {"X-A": f"{CONTENTS}\x00"},
        {"X-A": f"{CONTENTS}\x1b[31m"},
        {"X-A": CONTENTS},
        {"X-A": 1},
    ],
)
def test_refused_headers(connect: Connect, headers: dict[str, Any]) -> None:
    """Protected and invalid headers are refused before anything is sent. The error doesn't show the value."""
    with serving([answer()]) as server:
        with pytest.raises(InvalidPayload) as caught:
            send(hook_for(connect, server), headers=headers)
        assert CONTENTS not in str(caught.value)
        with pytest.raises(InvalidConnection) as refused:
            send(hook_for(connect, server, headers=headers))
        assert refused.value.field == "extra.headers"
        assert CONTENTS not in str(refused.value)
    assert server.connections == 0


@pytest.mark.parametrize("message_id", ["", "msg 1", "msg\r\nx: 1", "mßg"])
def test_refused_message_id(connect: Connect, message_id: str) -> None:
    """An id that can't be a header is refused before anything is sent."""
    with serving([answer()]) as server, pytest.raises(InvalidPayload):
        hook_for(connect, server).send(BODY, message_id=message_id)
    assert server.connections == 0


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ({"pth": "/x"}, "extra.pth"),
        ({"web_url": 5}, "extra.web_url"),
        ({"headers": "no JSON"}, "extra.headers"),
        ({"headers": ["x"]}, "extra.headers"),
        ({"headers": {"Authorization": "Bearer x"}}, "extra.headers"),
        ({"timeout": 0}, "extra.timeout"),
        ({"timeout": "inf"}, "extra.timeout"),
        ({"verify": "/no/such/file.pem"}, "extra.verify"),
        ({"verify": 1}, "extra.verify"),
        ({"trust_env": "perhaps"}, "extra.trust_env"),
        ({"allow_redirects": "sometimes"}, "extra.allow_redirects"),
        ({"allow_private_networks": "some"}, "extra.allow_private_networks"),
        ({"expect_body": 5}, "extra.expect_body"),
        ({"cert": "/no/such/file.pem"}, "extra.cert"),
        ({"cert": ","}, "extra.cert"),
        ({"cert": True}, "extra.cert"),
        ({"requests_per_second": -1}, "extra.requests_per_second"),
        ({"max_body_bytes": 0}, "extra.max_body_bytes"),
        ({"signing_secret": "whsec_short"}, "extra.signing_secret"),
        ({"signing_secret": "whsec_" + base64.b64encode(b"s" * 23).decode()}, "extra.signing_secret"),
        ({"signing_secret": f"{SECRETS[0]} no-base64!"}, "extra.signing_secret"),
        ({"web_url": "javascript:alert(1)"}, "extra.web_url"),
        ({"web_url": "https://user:pw@receiver.example.com"}, "extra.web_url"),
    ],
)
def test_refused_extra(connect: Connect, extra: dict[str, Any], field: str) -> None:
    """An unknown or invalid extra field is refused before anything is sent. The error names it."""
    with serving([answer()]) as server, pytest.raises(InvalidConnection) as caught:
        send(hook_for(connect, server, **extra))
    assert (caught.value.conn_id, caught.value.field) == ("receiver", field)
    assert PASSWORD not in str(caught.value)
    assert "whsec_" not in str(caught.value).replace("'whsec_'", "")
    assert server.connections == 0


@pytest.mark.parametrize("extra", ["no JSON", "[]", "3"])
def test_extra_that_is_no_object(monkeypatch: pytest.MonkeyPatch, extra: str) -> None:
    """An extra that is no JSON object is refused. The error doesn't show its text."""
    from airflow.sdk import Connection

    connection = Connection(conn_id="receiver", conn_type="insightly_webhook", host="127.0.0.1")
    connection.extra = extra
    monkeypatch.setattr(WebhookHook, "get_connection", lambda *_: connection)
    with pytest.raises(InvalidConnection) as caught:
        WebhookHook("receiver").get_conn()
    assert caught.value.field == "extra"


def test_body_limit(connect: Connect) -> None:
    """A body over the limit is refused before it is sent. Bytes count.

    A body of exactly the limit is sent.
    """
    with serving([answer()]) as server:
        hook = hook_for(connect, server, max_body_bytes=10)
        assert send(hook, "é" * 5).acknowledged
        with pytest.raises(InvalidPayload, match="has 11 bytes, 10 are allowed") as caught:
            send(hook, "é" * 5 + "x")
        assert caught.value.where == "msg_1"
    assert len(server.requests) == 1


def test_lone_surrogate(connect: Connect) -> None:
    """A body that can't be encoded in UTF-8 is refused. The error doesn't show its text."""
    with serving([answer()]) as server, pytest.raises(InvalidPayload, match="lone surrogate"):
        send(hook_for(connect, server), "x\ud800")
    assert server.connections == 0


# --- what an answer means --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_acknowledged(connect: Connect, status: int) -> None:
    """Any 2xx is an acknowledgement."""
    result = sent_to(connect, f"HTTP/1.1 {status} Fine\r\nContent-Length: 0\r\n\r\n".encode())
    assert (result.acknowledged, result.status, result.error, result.sent) == (True, status, None, True)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (300, "redirects are not followed"),
        (304, "redirects are not followed"),
        (400, "answered 400"),
        (401, "credentials are refused"),
        (403, "credentials are refused"),
        (404, "answered 404"),
        (408, "answered 408"),
        (413, "answered 413"),
        (429, "answered 429"),
        (500, "answered 500"),
        (503, "answered 503"),
        (600, "answered 600"),
        (999, "answered 999"),
    ],
)
def test_not_acknowledged(connect: Connect, status: int, words: str) -> None:
    """Any other status is no acknowledgement. The error names it, without the server's text."""
    result = sent_to(connect, answer(f"{status} {CONTENTS.encode().decode('latin-1')}"))
    assert (result.acknowledged, result.status, result.sent, result.gone) == (False, status, True, False)
    assert words in (result.error or "")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(connect: Connect, status: int) -> None:
    """A redirect is a failure. No other server gets the body."""
    with serving([answer()]) as other:
        result = sent_to(connect, answer(f"{status} Moved", f"Location: {other.url}/"))
    assert (result.acknowledged, result.status) == (False, status)
    assert other.connections == 0


@pytest.mark.parametrize(
    ("status", "header", "gone"),
    [
        ("410 Gone", "X: 1", True),
        ("400 Bad Request", "webhook-delivery: abort-message", True),
        ("503 Service Unavailable", "Webhook-Delivery:  Abort-Message ", True),
        ("503 Service Unavailable", "webhook-delivery: retry", False),
        ("503 X", "webhook-delivery: retry\r\nwebhook-delivery: abort-message", False),
        ("200 OK", "webhook-delivery: abort-message", False),
    ],
)
def test_gone(connect: Connect, status: str, header: str, gone: bool) -> None:
    """410 and ``webhook-delivery: abort-message`` end a message. A 2xx delivers it in any case."""
    result = sent_to(connect, answer(status, header))
    assert result.gone is gone
    assert result.acknowledged is status.startswith("2")


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 3,
    ],
)
@pytest.mark.parametrize("status", [200, 503])
def test_interim_answers(connect: Connect, interim: bytes, status: int) -> None:
    """1xx answers are skipped, and the final one counts."""
    result = sent_to(connect, interim, answer(f"{status} X"))
    assert (result.acknowledged, result.status) == (status == 200, status)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"ICY 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"220 mail.example.com ESMTP\r\n",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 200_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
    ],
    ids=lambda reply: reply[:24].decode("latin-1"),
)
def test_no_http(connect: Connect, reply: bytes) -> None:
    """An answer that isn't HTTP/1.1 is a protocol failure. The receiver may have the message."""
    result = sent_to(connect, reply)
    assert (result.acknowledged, result.status, result.sent) == (False, None, True)
    assert result.error == "protocol: the answer is not HTTP/1.1"


@pytest.mark.parametrize(
    ("script", "note"),
    [
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nabc"], "broke off"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nabc", RESET], "broke off"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"], "broke off"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno hex\r\n"], "broke off"),
        ([b"HTTP/1.1 200 OK\r\n\r\n", *repeat(b"x", 0.1, 30)], "broke off"),
        ([b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 20_000, 5], "longer than 16384 bytes"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", 5], "broke off"),
    ],
    ids=["cut", "reset", "cut chunk", "no chunk", "dripping", "endless", "silent"],
)
def test_odd_body_of_a_2xx(connect: Connect, script: list[Any], note: str) -> None:
    """The status decides: a 2xx with a broken, slow or endless body is delivered, with a note."""
    result = sent_to(connect, *script)
    assert (result.acknowledged, result.status) == (True, 200)
    assert note in (result.error or "")
    assert result.elapsed < TIMEOUT + 1


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=no-such\r\nContent-Length: 2\r\n\r\n\xff\xfe",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 500 X\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\nbody all the same",
        b"HTTP/1.0 200 OK\r\n\r\nold",
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 \xff\xfe\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["gzip", "charset", "surplus", "204 with body", "HTTP/1.0", "no reason", "odd reason"],
)
def test_bodies_are_not_decoded(connect: Connect, reply: bytes) -> None:
    """Bodies are not decoded, so none can turn a 2xx into a failure."""
    assert sent_to(connect, reply).acknowledged


def test_cookies_are_not_kept(connect: Connect) -> None:
    """A receiver's cookies are not sent back."""
    with serving([answer("200 OK", "Set-Cookie: a=1")]) as server:
        hook = hook_for(connect, server)
        send(hook)
        send(hook)
    assert "cookie" not in server.requests[1].headers


# --- Retry-After -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (["Retry-After: 7"], 7),
        (["Retry-After:   7  "], 7),
        (["Retry-After: 0"], 0),
        (["Retry-After: 99999999999"], 99_999_999_999),
        (["Retry-After: Fri, 10 Mar 2017 08:00:00 GMT"], 0),
        (["Retry-After: -5"], None),
        (["Retry-After: 1.5"], None),
        (["Retry-After: 1e9"], None),
        (["Retry-After: "], None),
        (["Retry-After: soon"], None),
        (["Retry-After: Fri, 99 Mar 2017 08:00:00 GMT"], None),
        (["Retry-After: Fri, 10 Mar 2017 08:00:00 +99999999999999999999"], None),
        (["Retry-After: soon", "Retry-After: 3", "Retry-After: 9"], 3),
        (["Retry-After: 3", "Retry-After: soon"], 3),
        ([], None),
    ],
)
@pytest.mark.parametrize("status", ["503 X", "200 OK"])
def test_retry_after(connect: Connect, headers: list[str], seconds: float | None, status: str) -> None:
    """Whole seconds or a date; the first readable value counts. Unreadable ones are ignored."""
    result = sent_to(connect, answer(status, *headers))
    assert result.retry_after == seconds
    assert result.acknowledged is (status == "200 OK")


def test_retry_after_a_date(connect: Connect) -> None:
    """A date is converted to seconds from now."""
    date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=90), usegmt=True)
    assert 85 < (sent_to(connect, answer("503 X", f"Retry-After: {date}")).retry_after or 0) <= 90


# --- one deadline ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        [5],
        [b"HTTP/1.1 200 OK\r\n", *repeat(b"x", 0.1, 30)],
        repeat(b"HTTP/1.1 100 Continue\r\n\r\n", 0.05, 60),
    ],
    ids=["silent", "headers drip", "endless 100-continue"],
)
def test_one_deadline(connect: Connect, script: list[Any]) -> None:
    """Whatever takes the time, the exchange ends at the time limit. The receiver may have the message."""
    started = time.monotonic()
    result = sent_to(connect, *script)
    assert TIMEOUT <= result.elapsed < TIMEOUT + 1
    assert time.monotonic() - started < 3
    assert (result.acknowledged, result.status, result.sent) == (False, None, True)
    assert result.error == f"no answer within {TIMEOUT:g} s"


def test_peer_that_never_reads(connect: Connect) -> None:
    """A receiver that reads nothing blocks a big body no longer than the time limit."""
    with serving([5], reads=False) as server:
        result = send(hook_for(connect, server), "x" * 20_000_000)
    assert TIMEOUT <= result.elapsed < TIMEOUT + 1
    assert (result.status, result.sent) == (None, True)
    assert result.error == f"no answer within {TIMEOUT:g} s"


def test_early_answer(connect: Connect) -> None:
    """An answer that comes while the body is still being sent counts."""
    with serving([answer("413 Content Too Large"), 0.2], reads=False) as server:
        result = send(hook_for(connect, server, timeout=2), "x" * 3_000_000)
    assert (result.acknowledged, result.status, result.sent) in {(False, 413, True), (False, None, True)}


@pytest.mark.parametrize("script", [[], [RESET]], ids=["closed", "reset"])
def test_connection_breaks(connect: Connect, script: list[Any]) -> None:
    """If a connection breaks before an answer, it is unknown whether the receiver has the message."""
    result = sent_to(connect, *script)
    assert (result.acknowledged, result.status, result.sent) == (False, None, True)
    assert result.error == "the connection broke before an answer came"


# --- when nothing is sent --------------------------------------------------------------------------------


def test_connection_refused(connect: Connect) -> None:
    """If nothing listens on a port, certainly nothing was sent."""
    with serving([]) as server:
        pass
    result = send(hook_for(connect, server))
    assert (result.acknowledged, result.status, result.sent) == (False, None, False)
    assert result.error == "connection refused"


def test_unknown_host(connect: Connect) -> None:
    """If a host does not exist, certainly nothing was sent. The message doesn't name it."""
    connect("receiver", host="https://no-such-host.invalid/", login=USER, password=PASSWORD)
    result = send(WebhookHook("receiver"))
    assert (result.status, result.sent) == (None, False)
    assert (result.error or "").startswith("the host can't be looked up: ")


def test_slow_name_service(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking up a name counts for the deadline."""
    look_up = transport.socket.getaddrinfo
    done = threading.Event()

    def slow(host: str, *arguments: Any, **more: Any) -> Any:
        if host == "slow.example.com":
            done.wait(5)
        return look_up("127.0.0.1", *arguments, **more)

    monkeypatch.setattr(transport.socket, "getaddrinfo", slow)
    connect("receiver", host="https://slow.example.com/", extra={"timeout": TIMEOUT})
    result = send(WebhookHook("receiver"))
    done.set()
    assert TIMEOUT <= result.elapsed < TIMEOUT + 1
    assert (result.sent, result.error) == (False, f"no connection within {TIMEOUT:g} s")


@pytest.fixture
def black_hole() -> Iterator[int]:
    """Return a port of 127.0.0.1 that doesn't accept connections: its queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        queued = [socket.socket() for _ in range(4)]
        for waiting in queued:
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for waiting in queued:
            waiting.close()


@pytest.mark.parametrize(
    ("connect_timeout", "timeout", "limit"), [(0.2, 5, "no connection within 0.2 s"), (5, 0.3, "0.3 s")]
)
def test_black_hole(
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    black_hole: int,
    connect_timeout: float,
    timeout: float,
    limit: str,
) -> None:
    """Connecting has its own time limit, within the deadline. The error says which limit was reached."""
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT", connect_timeout)
    connect("receiver", host=f"http://127.0.0.1:{black_hole}", extra={"timeout": timeout})
    result = send(WebhookHook("receiver"))
    assert result.elapsed < min(connect_timeout, timeout) + 1
    assert (result.status, result.sent) == (None, False)
    assert limit in (result.error or "")


def addresses(monkeypatch: pytest.MonkeyPatch, *found: str) -> None:
    """Resolve receiver.example.com to these addresses."""
    look_up = transport.socket.getaddrinfo

    def answer_with(host: str, *arguments: Any, **more: Any) -> Any:
        hosts = found if host == "receiver.example.com" else [host]
        return [one for each in hosts for one in look_up(each, *arguments, **more)]

    monkeypatch.setattr(transport.socket, "getaddrinfo", answer_with)


def test_second_address(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the first of several addresses is dead, the next one gets the POST, once."""
    with serving([answer()]) as server:
        connect("receiver", host=f"http://receiver.example.com:{server.port}/")
        addresses(monkeypatch, "127.0.0.2", "127.0.0.1")
        assert send(WebhookHook("receiver")).acknowledged
    assert server.requests[0].headers["host"] == f"receiver.example.com:{server.port}"


def test_no_address(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a name has no address, nothing was sent."""
    connect("receiver", host="http://receiver.example.com/")
    addresses(monkeypatch)
    result = send(WebhookHook("receiver"))
    assert (result.sent, result.acknowledged) == (False, False)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "fe80::1",
        "fe80::1%lo",
        "fd00:ec2::254",
    ],
)
@pytest.mark.parametrize("by", ["name", "address"])
def test_refused_addresses(connect: Connect, monkeypatch: pytest.MonkeyPatch, address: str, by: str) -> None:
    """Link-local and metadata addresses are blocked, however they are written or resolved."""
    written = f"[{address.partition('%')[0]}]" if ":" in address else address
    connect("receiver", host=f"http://{written if by == 'address' else 'receiver.example.com'}/")
    if by == "name":
        addresses(monkeypatch, address)
    monkeypatch.setattr(
        transport.httpcore.SyncBackend, "connect_tcp", lambda *_, **__: pytest.fail("it connects")
    )
    result = send(WebhookHook("receiver"))
    assert (result.acknowledged, result.status, result.sent) == (False, None, False)
    assert "link-local and cloud metadata" in (result.error or "")


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.1", "localhost"])
def test_other_spellings_connect(connect: Connect, host: str) -> None:
    """Other spellings of an address are checked after they were resolved."""
    with serving([answer()]) as server:
        connect("receiver", host=f"http://{host}:{server.port}/")
        assert send(WebhookHook("receiver")).acknowledged


def test_authorization_header_over_http(connect: Connect) -> None:
    """Credentials in a header, of the connection or of a POST, are refused over http like others."""
    secret = {"Authorization": "Bearer word-of-a-header"}
    connect("receiver", host="http://receiver.example.com/", extra={"headers": secret})
    with pytest.raises(InvalidConnection, match="allow_insecure_http"):
        WebhookHook("receiver").get_conn()
    connect("receiver", host="http://receiver.example.com/")
    for attempt in (
        WebhookHook("receiver").check_headers,
        lambda h: send(WebhookHook("receiver"), headers=h),
    ):
        with pytest.raises(InvalidPayload, match="allow_insecure_http") as caught:
            attempt(secret)
        assert "word-of-a-header" not in str(caught.value)


@pytest.mark.parametrize("host", ["receiver.example.com", "10.0.0.1", "127.1", "[::ffff:a00:1]"])
def test_basic_over_http(connect: Connect, host: str) -> None:
    """Over http, credentials to another machine are refused unless the connection allows it."""
    given = {"host": f"http://{host}/", "login": USER, "password": PASSWORD}
    connect("receiver", **given)
    with pytest.raises(InvalidConnection, match="allow_insecure_http") as caught:
        send(WebhookHook("receiver"))
    assert caught.value.field == "schema"
    connect("receiver", **given, extra={"allow_insecure_http": True})
    assert WebhookHook("receiver").get_conn().scheme == "http"
    connect("receiver", host=f"http://{host}/")
    assert WebhookHook("receiver").get_conn().authorization is None
    with pytest.raises(InvalidConnection):
        WebhookHook(uri=f"http://user:{'x' * 8}@{host}/").get_conn()


def test_netrc_is_never_read(connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A .netrc that names the host neither adds nor changes credentials."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    with serving([answer()]) as server:
        send(hook_for(connect, server))
        connect("open", host=server.url)
        send(WebhookHook("open"))
    assert server.requests[0].headers["authorization"] == AUTHORIZATION
    assert "authorization" not in server.requests[1].headers


# --- proxies ---------------------------------------------------------------------------------------------


@pytest.fixture
def proxied(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that sends through a proxy, and yields what the proxy got."""

    def send_through(server: Server, url: str, **extra: Any) -> PostResult:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://pröxy:p%40ss@127.0.0.1:{server.port}")
        connect("receiver", host=url, extra={"timeout": TIMEOUT, **extra})
        return send(WebhookHook("receiver"))

    return send_through


def test_http_proxy(proxied: Any) -> None:
    """An http receiver is reached through the environment's proxy, which gets its own credentials."""
    with serving([answer()]) as proxy:
        assert proxied(proxy, "http://receiver.example.com/hook").acknowledged
    (request,) = proxy.requests
    assert request.request_line == "POST http://receiver.example.com/hook HTTP/1.1"
    encoded = base64.b64encode("pröxy:p@ss".encode()).decode()
    assert request.headers["proxy-authorization"] == f"Basic {encoded}"


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ([answer("407 Proxy Authentication Required")], "proxy: it answered 407"),
        ([answer("502 Bad Gateway")], "proxy: it answered 502"),
        ([5], f"proxy: no connection within {TIMEOUT:g} s"),
        ([RESET], "proxy: the connection broke before an answer came"),
    ],
    ids=["407", "502", "silent", "reset"],
)
def test_proxy_that_does_not_connect(proxied: Any, script: list[Any], error: str) -> None:
    """If a proxy opens no tunnel, the receiver got nothing, so it was no attempt."""
    with serving(script) as proxy:
        result = proxied(proxy, "https://receiver.example.com/hook")
    assert proxy.requests[0].request_line == "CONNECT receiver.example.com:443 HTTP/1.1"
    assert proxy.requests[0].body == b""
    assert "webhook-id" not in proxy.requests[0].headers
    assert (result.acknowledged, result.status, result.sent, result.error) == (False, None, False, error)


def test_no_proxy(proxied: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """``no_proxy``, the connection's extra and loopback addresses bypass the proxy."""
    with serving([answer()]) as proxy, serving([answer()]) as server:
        assert proxied(proxy, server.url).acknowledged
        addresses(monkeypatch, "127.0.0.1")
        named = f"http://receiver.example.com:{server.port}/"
        assert proxied(proxy, named, trust_env=False).acknowledged
        monkeypatch.setenv("no_proxy", "example.com")
        assert proxied(proxy, named).acknowledged
    assert proxy.connections == 0
    assert len(server.requests) == 3


def test_unusable_proxy(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unusable proxy is refused. The error doesn't show its credentials."""
    monkeypatch.setenv("https_proxy", "socks5://user:pr0xy-pass@127.0.0.1:1080")
    connect("receiver", host="https://receiver.example.com/")
    with pytest.raises(InvalidConnection) as caught:
        send(WebhookHook("receiver"))
    assert caught.value.conn_id == "proxy"
    assert "pr0xy-pass" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxy_credentials_are_masked(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, redact: Callable[[str], str], scheme: str
) -> None:
    """If a proxy is used, Airflow also masks its password and its Authorization."""
    encoded = base64.b64encode(b"proxy:masked/word").decode()
    monkeypatch.setenv(f"{scheme}_proxy", "http://proxy:masked%2Fword@proxy.example.com:3128")
    connect("direct", host=f"{scheme}://receiver.example.com", extra={"trust_env": False})
    WebhookHook("direct").get_conn()
    assert redact(f"a masked/word {encoded} b") == f"a masked/word {encoded} b"
    connect("receiver", host=f"{scheme}://receiver.example.com")
    WebhookHook("receiver").get_conn()
    for secret in ("masked/word", "masked%2Fword", encoded):
        assert redact(f"a {secret} b") == "a *** b"
    assert redact("a proxy Basic b") == "a proxy Basic b"


# --- many POSTs ------------------------------------------------------------------------------------------


def test_each_post_has_its_own_connection(connect: Connect) -> None:
    """Bytes left on a connection are never taken for the next answer."""
    late = answer("200 OK") + answer("200 OK")
    with serving(lambda n: [late, 0.05] if n == 0 else [answer("500 X")]) as server:
        hook = hook_for(connect, server)
        assert send(hook).acknowledged
        assert send(hook).status == 500
    assert server.connections == 2


def test_threads(insightly: RunningSandbox, connect: Connect) -> None:
    """Several threads share a hook. Each message arrives once, with its own id."""
    connect("receiver", host=insightly.bin_url("threads"))
    hook = WebhookHook("receiver")
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: hook.send(f'{{"n":{n}}}', message_id=f"msg_{n}"), range(100)))
    assert all(result.acknowledged for result in results)
    received = insightly.received("threads")
    assert sorted((kept["headers"]["webhook-id"], kept["body"]) for kept in received) == sorted(
        (f"msg_{n}", f'{{"n":{n}}}') for n in range(100)
    )


def test_pace(connect: Connect) -> None:
    """All threads together keep the receiver's requests a second."""
    with serving([answer()]) as server:
        hook = hook_for(connect, server, requests_per_second=20, timeout=5)
        started = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: send(hook), range(7)))
        assert 0.3 <= time.monotonic() - started < 1.5
    assert len(server.requests) == 7


# --- for people ------------------------------------------------------------------------------------------


def test_connection_test(insightly: RunningSandbox, connect: Connect) -> None:
    """The test of a connection POSTs an empty object, shows the result, and never raises."""
    url = insightly.bin_url("test")
    insightly.answer_with("test", username=USER, password=PASSWORD)
    connect("receiver", host=url, login=USER, password=PASSWORD)
    assert WebhookHook("receiver").test_connection() == (
        True,
        f"{insightly.url} acknowledged a test message with 200",
    )
    kept = insightly.received("test")[-1]
    assert (kept["body"], kept["headers"]["webhook-id"]) == ("{}", "msg_connection_test")
    connect("receiver", host=url, login=USER, password="wrong-one")
    ok, text = WebhookHook("receiver").test_connection()
    assert not ok
    assert text.endswith("check login and password")
    assert "wrong-one" not in text
    connect("receiver", host=insightly.url + "/nowhere")
    ok, text = WebhookHook("receiver").test_connection()
    assert not ok
    assert text.endswith("check the path") or "405" in text
    ok, text = WebhookHook("missing").test_connection()
    assert not ok
    assert "missing" in text
    connect("receiver", host="nonsense host")
    ok, text = WebhookHook("receiver").test_connection()
    assert not ok
    assert "host" in text


def test_endpoint_and_page(connect: Connect) -> None:
    """The hook shows its receiver's address without credentials, and the page of received messages."""
    page = "https://receiver.example.com/bin"
    extra = {"web_url": page, "path": "/hook?key=T0KEN"}
    connect("receiver", host="receiver.example.com", login=USER, password=PASSWORD, extra=extra)
    hook = WebhookHook("receiver")
    assert str(hook.get_conn()) == "https://receiver.example.com/hook"
    assert hook.web_url == page
    assert WebhookHook(uri="https://receiver.example.com").web_url == ""


def test_shown_headers(connect: Connect) -> None:
    """They are the headers that are sent, in order. None shows a secret or a value of the connection."""
    extra = {"headers": {"X-Tenant": "a secret place"}, "signing_secret": SECRETS[0]}
    with serving([answer()]) as server:
        hook = hook_for(connect, server, **extra)
        shown = hook.shown_headers(BODY, message_id="msg_1", headers={"X-Source": "crm"})
        send(hook, headers={"X-Source": "crm"})
    sent = server.requests[0].headers
    assert [name.lower() for name in shown] == [name for name in sent if name != "connection"]
    same = {name for name, value in shown.items() if sent[name.lower()] == value}
    assert {*shown} - same == {"Authorization", "X-Tenant", "webhook-timestamp", "webhook-signature"}
    for secret in (PASSWORD, AUTHORIZATION.removeprefix("Basic "), "a secret place", *SECRETS):
        assert secret not in str(shown)
