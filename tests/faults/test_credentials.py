"""Credentials, headers and hosts of a connection or URI: how they go out, and where they never show."""

from __future__ import annotations

import base64
import pickle
import socket
import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
import urllib3

from airflow_insightly_hooks.core.errors import InvalidConnection, InvalidPayload
from airflow_insightly_hooks.hooks.webhook import WebhookHook
from tests.conftest import Connect, Logged
from tests.faults.conftest import BODY, Outcome, Send, fault
from tests.network import NameService
from tests.servers import Server, answer, read_request, serving

SECRET = "Pa55-of-the-tests"
SHORT = "q7~Z"
"""A password that Airflow's masking leaves as it is, since it has fewer than five characters."""


def basic(credentials: str) -> str:
    return f"Basic {base64.b64encode(credentials.encode()).decode()}"


def with_user(server: Server, information: str, path: str = "/hook") -> str:
    return f"http://{information}@{server.host}:{server.port}{path}"


def authorizations(server: Server) -> list[str | None]:
    return [request.headers.get("authorization") for request in server.requests]


def refused(outcome: Outcome, server: Server) -> bool:
    """Return whether nothing was sent, and the error shows no secret."""
    shown = outcome.error or ""
    return outcome.is_certainly_undelivered() and server.connections == 0 and SECRET not in shown


def send_with(headers: dict[str, str]) -> None:
    WebhookHook("receiver").send(BODY, message_id="msg_1", headers=headers)


# --- user information and Basic authentication -----------------------------------------------------------


@fault(61, "user information with %3A, %40 and %2F, with ':' and '@'", requests="passes")
@pytest.mark.parametrize(
    ("information", "sent"),
    [
        ("user:a%3Ab", "user:a:b"),
        ("user:a:b", "user:a:b"),
        ("us%40er:a%40b", "us@er:a@b"),
        ("user:a@b", "user:a@b"),
        ("user:a%2Fb%3Fc%23d", "user:a/b?c#d"),
        ("user:100%2525", "user:100%25"),
        ("user:a+b", "user:a+b"),
    ],
)
def test_user_information(send: Send, information: str, sent: str) -> None:
    """User information is split at the first ':' and the last '@', and decoded once."""
    with serving([answer()]) as server:
        assert send(with_user(server, information)).acknowledged
    assert authorizations(server) == [basic(sent)]
    assert server.requests[0].headers["host"] == f"127.0.0.1:{server.port}"


@fault(62, "a user name alone", requests="fails")
def test_user_name_alone(send: Send) -> None:
    """A user name alone is sent as ``user:``."""
    with serving([answer()]) as server:
        assert send(with_user(server, "user")).acknowledged
    assert authorizations(server) == ["Basic dXNlcjo="]


@fault(63, "':' in a user name", requests="fails")
@pytest.mark.parametrize("by", ["login", "URI"])
def test_colon_in_user_name(send: Send, by: str) -> None:
    """A user name with ':' is refused, since the receiver would split it elsewhere (RFC 7617)."""
    with serving([answer()]) as server:
        if by == "URI":
            outcome = send(with_user(server, f"us%3Aer:{SECRET}"))
        else:
            outcome = send(server.url, login="us:er", password=SECRET)
    assert refused(outcome, server)


@fault(64, "credentials that are not ASCII", requests="fails")
@pytest.mark.parametrize("by", ["login", "URI"])
@pytest.mark.parametrize(("user", "password"), [("récepteur", "pässwörd"), ("user", "日本語")])
def test_utf_8(send: Send, by: str, user: str, password: str) -> None:
    """Credentials go out in UTF-8."""
    with serving([answer()]) as server:
        if by == "URI":
            outcome = send(with_user(server, f"{user}:{password}"))
        else:
            outcome = send(server.url, login=user, password=password)
    assert outcome.acknowledged
    assert authorizations(server) == [basic(f"{user}:{password}")]


@fault(65, "a bad percent escape in a password", requests="fails")
@pytest.mark.parametrize("password", [f"{SECRET}%", f"{SECRET}%2", f"%GG{SECRET}", f"%FF{SECRET}"])
def test_bad_escape(send: Send, password: str) -> None:
    """User information that can't be decoded is refused, without its text in the message."""
    with serving([answer()]) as server:
        outcome = send(with_user(server, f"user:{password}"))
    assert refused(outcome, server)


@fault(65, "a raw '/', '#' or '?' in a password", requests="fails")
@pytest.mark.parametrize("password", [f"12/{SECRET}", f"{SECRET}/x", f"{SECRET}?x"])
def test_raw_delimiter(send: Send, password: str) -> None:
    """A password that cuts its URI short is refused, without its text in the message."""
    with serving([answer()]) as server:
        outcome = send(with_user(server, f"user:{password}"))
    assert refused(outcome, server)
    assert SECRET not in (outcome.error or "")


# --- headers and targets ---------------------------------------------------------------------------------


@fault(66, "CR, LF, NUL or control characters in a header", requests="fails")
@pytest.mark.parametrize(
    "value",
    [
        f"{SECRET}\r\nX-B: 1",
        f"{SECRET}\n",
        f"{SECRET}\x00",
        f"{SECRET}\x1b[31m",
        f"{SECRET}\x7f",
        f"{SECRET}é",
    ],
)
def test_header_value(send: Send, value: str) -> None:
    """A value that no header can hold is refused before sending. The error names the header only."""
    with serving([answer()]) as server:
        outcome = send(server.url, extra={"headers": {"X-Api-Key": value}})
    assert refused(outcome, server)
    assert "X-Api-Key" in (outcome.error or "")


@fault(66, "a header name that is not valid", requests="fails")
@pytest.mark.parametrize("name", ["X A", "X-\x00", "X-É", "X\t"])
def test_header_name(send: Send, name: str) -> None:
    """A header name that is not a token is refused before anything is sent."""
    with serving([answer()]) as server:
        outcome = send(server.url, extra={"headers": {name: SECRET}})
    assert refused(outcome, server)


@fault(66, "a header's name with a ':', with CR and LF, or without a character", requests="passes")
@pytest.mark.parametrize("name", ["", "X:A", "X-A\r\nX-B"])
def test_header_name_that_splits(send: Send, name: str) -> None:
    """A header name that could become two headers is refused before anything is sent."""
    with serving([answer()]) as server:
        outcome = send(server.url, extra={"headers": {name: SECRET}})
    assert refused(outcome, server)


OWN = [
    "Content-Type",
    "content-length",
    "Host",
    "Transfer-Encoding",
    "webhook-id",
    "Webhook-Signature",
    "Expect",
]


@fault(66, "a connection's header that the sender sets itself", requests="fails")
@pytest.mark.parametrize("name", OWN)
def test_protected_headers(send: Send, name: str) -> None:
    """A connection may not set headers that frame the request, describe its content or name the message."""
    with serving([answer()]) as server:
        outcome = send(server.url, extra={"headers": {name: "7"}})
    assert refused(outcome, server)
    assert name in (outcome.error or "")


@fault(66, "an operator's header that the sender sets itself", requests=None)
def test_operators_protected_headers(connect: Connect) -> None:
    """An operator may not set these headers, either. They are refused before anything is sent."""
    with serving([answer()]) as server:
        connect("receiver", host=server.url)
        for name in OWN:
            for use in (WebhookHook("receiver").check_headers, send_with):
                with pytest.raises(InvalidPayload, match=name):
                    use({name: "7"})
    assert server.connections == 0


@fault(66, "two Authorizations", requests=None)
def test_two_authorizations(connect: Connect) -> None:
    """A second Authorization is refused. Nothing replaces a connection's credentials."""
    headers = {"Authorization": f"Bearer {SECRET}"}
    with serving([answer()]) as server:
        connect("receiver", host=server.url, login="user", password="word", extra={"headers": headers})
        with pytest.raises(InvalidConnection, match="give one"):
            send_with({})
        for given in ({"login": "user", "password": "word"}, {"extra": {"headers": {"authorization": "x"}}}):
            connect("receiver", host=server.url, **given)
            with pytest.raises(InvalidPayload, match="an Authorization already") as caught:
                send_with(headers)
            assert SECRET not in str(caught.value)
        connect("receiver", host=server.url)
        send_with(headers)
    assert authorizations(server) == [f"Bearer {SECRET}"]


@fault(67, "CR, LF, NUL or spaces in path or host", requests="fails")
@pytest.mark.parametrize("piece", ["\r\nX-B: 1", "\n", "\x00", "a b", "\t", "\x7f", "\\..\\x"])
def test_control_characters_in_a_path(send: Send, piece: str) -> None:
    """A path with control characters, spaces or backslashes is refused. It is never corrected."""
    with serving([answer()]) as server:
        outcome = send(f"{server.url}/hook{piece}end")
    assert refused(outcome, server)


@fault(67, "CR, LF or NUL in a host", requests="passes")
@pytest.mark.parametrize("piece", ["\r\n", "\n", "\x00", "\t"])
def test_control_characters_in_a_host(send: Send, piece: str) -> None:
    """A host with control characters is refused. It is never turned into another host."""
    with serving([answer()]) as server:
        outcome = send(f"http://user:{SECRET}@127.0{piece}.0.1:{server.port}/")
    assert refused(outcome, server)


# --- secrets ---------------------------------------------------------------------------------------------


@pytest.fixture
def shows(logged: Logged) -> Callable[[Outcome], bool]:
    """Return whether a secret is shown by an outcome or by anything that was logged."""

    def look(outcome: Outcome) -> bool:
        text = (outcome.error or "") + repr(outcome) + logged.text
        encoded = basic(f"user:{SECRET}").removeprefix("Basic ")
        return any(secret in text for secret in (SECRET, SHORT, encoded, "T0KEN"))

    return look


@fault(68, "secrets in the error of a connection that fails", requests="fails")
def test_secrets_in_errors(send: Send, shows: Any) -> None:
    """The error of a POST that fails holds neither credentials nor the query, which may hold tokens."""
    with serving([]) as server:
        pass
    outcome = send(with_user(server, f"user:{SECRET}", "/hook?token=T0KEN"))
    assert outcome.is_certainly_undelivered()
    assert not shows(outcome)


@fault(68, "secrets in the error of a status", requests="fails")
def test_secrets_in_a_status(send: Send, shows: Any) -> None:
    """The error of a status that is no acknowledgement holds neither credentials nor the query."""
    with serving([answer("401 Unauthorized", body=SECRET.encode())]) as server:
        outcome = send(with_user(server, f"user:{SECRET}", "/hook?token=T0KEN"))
    assert (outcome.acknowledged, outcome.status) == (False, 401)
    assert not shows(outcome)
    assert authorizations(server) == [basic(f"user:{SECRET}")]


@fault(68, "secrets in a traceback", requests=None)
@pytest.mark.parametrize(
    "uri",
    [f"http://user:{SECRET}%@h/", f"http://us%3Aer:{SECRET}@h/", f"http://u:{SECRET}@[::/", f"x://{SECRET}"],
)
def test_secrets_in_tracebacks(connect: Connect, uri: str) -> None:
    """The error has no cause, and neither its traceback nor its pickle holds the URI's secret."""
    connect("receiver", host=uri)
    for hook in (WebhookHook("receiver"), WebhookHook(uri=uri)):
        with pytest.raises(InvalidConnection) as caught:
            hook.send(BODY, message_id="msg_1")
        error = caught.value
        assert error.__cause__ is None
        assert SECRET not in "".join(traceback.format_exception(error))
        assert SECRET not in repr(pickle.loads(pickle.dumps(error)))  # noqa: S301 — it was pickled here


@fault(68, "a receiver that answers with the credentials that it got", requests=None)
def test_echoed_credentials(connect: Connect, logged: Logged) -> None:
    """With ``keep_response``, credentials that a receiver echoes are removed from the shown response."""

    def echo(connection: socket.socket) -> None:
        request = read_request(connection)
        assert request is not None
        sent = request.headers["authorization"]
        echoed = f"{sent} is user:{SECRET}, {quote(SECRET)}, {sent[:-6]}..., {SHORT}"
        connection.sendall(answer("403 Forbidden", body=echoed.encode()))

    with serving([echo], reads=False) as server:
        extra = {"keep_response": True, "headers": {"X-Key": SHORT}}
        connect("receiver", host=with_user(server, f"user:{SECRET}"), extra=extra)
        result = WebhookHook("receiver").send(BODY, message_id="msg_1")
    assert result.response == "Basic *** is user:***, ***, Basic ***..., ***"
    shown = f"{result!r} {result.response} {logged.text}"
    assert SECRET not in shown
    assert basic(f"user:{SECRET}").removeprefix("Basic ") not in shown


@fault(69, "a short password, which Airflow doesn't mask", requests="passes")
@pytest.mark.parametrize("script", [[answer()], [answer("401 X")], [b"nonsense"], []])
def test_secrets_in_logs(send: Send, shows: Any, script: list[object]) -> None:
    """No log line holds a password, however short, whether or not the POST succeeds."""
    with serving(script) as server:
        outcome = send(server.url, login="user", password=SHORT)
    assert len(server.requests) == 1
    assert not shows(outcome)


@fault(69, "secrets in the texts of a hook, an endpoint and the test of a connection", requests=None)
def test_secrets_in_texts(connect: Connect, shows: Any) -> None:
    """No such text holds a secret, since it can get into rendered fields and XCom."""
    with serving([answer("403 X", f"X-Echo: {SECRET}")]) as server:
        connect("receiver", host=with_user(server, f"user:{SECRET}", "/hook?token=T0KEN"))
        hook = WebhookHook("receiver")
        ok, text = hook.test_connection()
        shown = f"{text} {hook.get_conn()} {hook.get_conn()!r} {vars(hook)} {hook!r}"
    assert not ok
    assert not shows(Outcome(False, None, shown, 0))


# --- hosts -----------------------------------------------------------------------------------------------


@fault(70, "an IPv6 address", requests="passes")
@pytest.mark.parametrize("host", ["[::1]", "[0:0::1]"])
def test_ipv6(send: Send, host: str) -> None:
    """An IPv6 address works, and is written in brackets in ``Host``."""
    with serving([answer()], address="::1") as server:
        assert send(f"http://{host}:{server.port}/hook").acknowledged
    assert server.requests[0].headers["host"].removeprefix(host) in (
        f":{server.port}",
        f"[::1]:{server.port}",
    )


@fault(70, "an IPv6 address with a zone", requests=None)
def test_ipv6_zone(send: Send) -> None:
    """An address with a zone is read correctly, and refused because it is link-local."""
    outcome = send("http://[fe80::1%25lo]:8080/hook")
    assert outcome.is_certainly_undelivered()
    assert "link-local" in (outcome.error or "")


@fault(71, "a host name that is not ASCII", requests="passes")
@pytest.mark.parametrize("host", ["bücher.example", "BÜCHER.example", "xn--bcher-kva.example"])
def test_idn(send: Send, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """A name is converted to IDNA once, for the look-up and for ``Host``."""
    names = NameService(monkeypatch, {"xn--bcher-kva.example": ["127.0.0.1"]})
    with serving([answer()]) as server:
        assert send(f"http://{host}:{server.port}/").acknowledged
    assert server.requests[0].headers["host"] == f"xn--bcher-kva.example:{server.port}"
    assert set(names.asked) == {"xn--bcher-kva.example"}


@fault(71, "a host name with an empty label, or one over 63 characters", requests="fails")
@pytest.mark.parametrize("host", [f"{'a' * 64}.example", "a..example"])
def test_bad_label(send: Send, host: str) -> None:
    """The name is refused when the connection is read, with an error of this package."""
    outcome = send(f"http://user:{SECRET}@{host}/")
    assert outcome.is_certainly_undelivered()
    assert SECRET not in (outcome.error or "")


@fault(71, "a host name that is not valid", requests="passes")
@pytest.mark.parametrize("host", [".example", f"{'é' * 64}.example", "a_b!c"])
def test_no_host_name(send: Send, host: str, request: pytest.FixtureRequest) -> None:
    """The name is refused when the connection is read, and nothing is looked up."""
    outcome = send(f"http://user:{SECRET}@{host}/")
    assert outcome.is_certainly_undelivered()
    is_plain = request.node.callspec.params["send"] == "requests"
    if not (is_plain and urllib3.__version__ < "2.8"):  # the error of an older one shows the whole URL
        assert SECRET not in (outcome.error or "")


@fault(72, "a text that is not an http(s) URI", requests="passes")
@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "://127.0.0.1/",
        "http://",
        "http:///hook",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:port/",
        "http://127.0.0.1 /",
        "http://127.0. 0.1/",
    ],
)
def test_no_uri(send: Send, uri: str) -> None:
    """The text is refused when the connection is read."""
    outcome = send(uri)
    assert outcome.is_certainly_undelivered()
    assert outcome.error


@fault(72, "a backslash in a URI", requests="fails")
def test_backslash(send: Send) -> None:
    """A backslash is refused, because it is unclear where the host ends."""
    with serving([answer()]) as server:
        outcome = send(f"{server.url}\\@other.example.com/")
    assert refused(outcome, server)


@fault(72, "port 0, which a client may take for 80", requests="fails")
def test_port_0(send: Send) -> None:
    """Port 0 in a URI is refused."""
    outcome = send("http://127.0.0.1:0/")
    assert outcome.is_certainly_undelivered()
    assert "port 0" in (outcome.error or "")


@fault(73, "host, schema and port of a connection", requests=None)
@pytest.mark.parametrize(
    ("fields", "speaks"),
    [
        ({"host": "127.0.0.1"}, "https"),
        ({"host": "127.0.0.1", "schema": "https"}, "https"),
        ({"host": "127.0.0.1", "schema": "http"}, "http"),
        ({"host": "https://127.0.0.1:{port}"}, "https"),
        ({"host": "http://127.0.0.1:{port}"}, "http"),
    ],
)
def test_scheme(connect: Connect, fields: dict[str, Any], speaks: str) -> None:
    """https is used unless ``schema`` or the URI says http. https never becomes http."""
    first: list[bytes] = []
    with serving([lambda connection: first.append(connection.recv(5)), answer()], reads=False) as server:
        given = {**fields, "host": fields["host"].format(port=server.port)}
        given |= {} if "://" in given["host"] else {"port": server.port}
        connect("receiver", **given, extra={"timeout": 1})
        WebhookHook("receiver").send(BODY, message_id="msg_1")
    assert server.connections == 1
    assert first == [b"POST "] if speaks == "http" else first[0].startswith(b"\x16\x03")


@fault(73, "a connection that contradicts itself", requests=None)
@pytest.mark.parametrize(
    "fields",
    [
        {"host": "https://127.0.0.1", "schema": "http"},
        {"host": "http://127.0.0.1", "port": 443},
        {"host": "127.0.0.1/hook", "schema": "http"},
        {"host": "127.0.0.1", "schema": "ftp"},
        {"host": f"http://user:{SECRET}@127.0.0.1", "login": "user"},
    ],
)
def test_two_meanings(connect: Connect, fields: dict[str, Any]) -> None:
    """A connection that could mean two addresses, or two users, is refused."""
    connect("receiver", **fields)
    with pytest.raises(InvalidConnection) as caught:
        WebhookHook("receiver").send(BODY, message_id="msg_1")
    assert (caught.value.conn_id, caught.value.field) == ("receiver", "host")
    assert SECRET not in str(caught.value)
