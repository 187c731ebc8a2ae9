"""POSTs over TLS: which certificates are trusted, and the errors for others."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_insightly_hooks.core.errors import InvalidConnection
from airflow_insightly_hooks.hooks.webhook import PostResult, WebhookHook
from tests.certificates import Authority
from tests.conftest import Connect
from tests.servers import Server, answer, read_request, serving

TIMEOUT = 0.4


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def send(connect: Connect) -> Callable[..., PostResult]:
    def post(server: Server, **extra: Any) -> PostResult:
        connect(
            "receiver",
            host=f"{server.url}/hook",
            login="user",
            password="secret-word",
            extra={"timeout": TIMEOUT, **extra},
        )
        return WebhookHook("receiver").send("{}", message_id="msg_1")

    return post


def certainly_not_sent(result: PostResult) -> str:
    assert (result.acknowledged, result.status, result.sent) == (False, None, False)
    return result.error or ""


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_trusted_file(authority: Authority, send: Any, newest: ssl.TLSVersion) -> None:
    """A certificate of the connection's authority is trusted, with TLS 1.2 and 1.3."""
    with serving([answer()], tls=authority.server(newest=newest)) as server:
        assert send(server, verify=str(authority.file)).acknowledged
    assert server.requests[0].headers["authorization"] == "Basic dXNlcjpzZWNyZXQtd29yZA=="


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_trusted_by_the_environment(
    authority: Authority, send: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """If the connection names no authorities, the environment's file counts."""
    monkeypatch.setenv(name, str(authority.file))
    with serving([answer()], tls=authority.server()) as server:
        assert send(server).acknowledged


def test_environment_that_does_not_count(
    authority: Authority, send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a connection doesn't trust the environment, none of the environment's authorities count."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with serving([answer()], tls=authority.server()) as server:
        assert certainly_not_sent(send(server, trust_env=False)).startswith("TLS: ")


@pytest.mark.parametrize("verify", [False, "false", "False"])
def test_unverified(authority: Authority, send: Any, verify: Any) -> None:
    """Only a connection that says so accepts any certificate."""
    wrong = authority.server("192.0.2.1", until=timedelta(hours=-1))
    with serving([answer()], tls=wrong) as server:
        assert send(server, verify=verify).acknowledged


@pytest.mark.parametrize(
    ("given", "trusted", "words"),
    [
        ({}, False, "issuer"),
        ({"until": timedelta(hours=-1)}, True, "expired"),
        ({"since": timedelta(hours=1)}, True, "not yet valid"),
        ({"address": "192.0.2.1"}, True, "mismatch"),
    ],
    ids=["unknown authority", "expired", "not yet valid", "wrong address"],
)
def test_refused_certificates(
    authority: Authority, send: Any, given: dict[str, Any], trusted: bool, words: str
) -> None:
    """An untrusted certificate ends the connection before anything is sent, and the reason says so."""
    with serving([answer()], tls=authority.server(**given)) as server:
        result = send(server, **({"verify": str(authority.file)} if trusted else {}))
    error = certainly_not_sent(result)
    assert error.startswith("TLS: ")
    assert words in error
    assert server.requests == []


def test_old_tls(authority: Authority, send: Any) -> None:
    """A server without TLS 1.2 or later is refused."""
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context = authority.server(newest=ssl.TLSVersion.TLSv1_1)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with serving([answer()], tls=context) as server:
        assert certainly_not_sent(send(server, verify=str(authority.file))).startswith("TLS: ")


def test_plain_http_on_a_tls_port(authority: Authority, send: Any) -> None:
    """If a server answers with plain HTTP instead of TLS, nothing of the message was sent."""
    with serving([answer("400 Bad Request")], reads=False) as server:
        server.scheme = "https"
        error = certainly_not_sent(send(server, verify=str(authority.file)))
    assert error.startswith("TLS: ")


def test_tls_on_a_plain_port(authority: Authority, send: Any) -> None:
    """If a server expects TLS and gets plain HTTP, its answer isn't HTTP."""
    with serving([answer()], tls=authority.server()) as server:
        server.scheme = "http"
        result = send(server)
    assert (result.acknowledged, result.status, result.sent) == (False, None, True)


def test_handshake_hangs(send: Any) -> None:
    """A handshake that hangs ends at the time limit, and nothing was sent."""
    with serving([5], reads=False) as server:
        server.scheme = "https"
        result = send(server, verify=False)
    assert certainly_not_sent(result) == f"no connection within {TIMEOUT:g} s"
    assert result.elapsed < TIMEOUT + 1


def test_client_certificate(authority: Authority, send: Any) -> None:
    """A server that requires a client certificate acknowledges nothing without one."""
    tls = authority.server(asks_for_certificate=True, newest=ssl.TLSVersion.TLSv1_2)
    with serving([answer()], tls=tls) as server:
        result = send(server, verify=str(authority.file))
    assert not result.acknowledged
    assert server.requests == []


@pytest.mark.parametrize("files", ["{0}", "{0},{0}", " {0} , {0} "])
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_own_certificate(authority: Authority, send: Any, files: str, newest: ssl.TLSVersion) -> None:
    """A connection's client certificate is used if the receiver asks. Its key may be in a second file."""
    tls = authority.server(asks_for_certificate=True, newest=newest)
    with serving([answer()], tls=tls) as server:
        result = send(server, verify=str(authority.file), cert=files.format(authority.client()))
    assert (result.acknowledged, len(server.requests)) == (True, 1)


@pytest.mark.parametrize(
    ("files", "password"), [("{ca}", None), ("{client}", b"word"), ("{client},{ca}", None)]
)
def test_unusable_certificate(authority: Authority, send: Any, files: str, password: bytes | None) -> None:
    """A file without a key, or with a key that needs a password, is refused at once, without a prompt."""
    cert = files.format(ca=authority.file, client=authority.client(password))
    with serving([answer()], tls=authority.server()) as server:
        with pytest.raises(InvalidConnection) as caught:
            send(server, verify=str(authority.file), cert=cert)
    assert caught.value.field == "extra.cert"
    assert server.connections == 0


def test_file_without_certificates(tmp_path: Path, send: Any) -> None:
    """A file without certificates is refused before anything is sent."""
    file = tmp_path / "empty.pem"
    file.write_text("nothing\n")
    with serving([answer()]) as server, pytest.raises(InvalidConnection) as caught:
        send(server, verify=str(file))
    assert caught.value.field == "extra.verify"
    assert server.connections == 0


def test_tunnel(authority: Authority, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a proxy's tunnel, only the receiver gets the message and its credentials."""
    tls = authority.server("192.0.2.7")
    seen: list[Any] = []

    def receiver(connection: socket.socket) -> None:
        with tls.wrap_socket(connection, server_side=True) as wrapped:
            seen.append(read_request(wrapped))
            wrapped.sendall(answer())

    with serving([b"HTTP/1.1 200 Connected\r\n\r\n", receiver]) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        extra = {"timeout": 2, "verify": str(authority.file)}
        connect("receiver", host="https://192.0.2.7/hook", login="user", password="secret-word", extra=extra)
        result = WebhookHook("receiver").send("{}", message_id="msg_1")
    assert (result.acknowledged, result.sent) == (True, True)
    assert proxy.requests[0].headers.keys() == {"host", "accept"}
    assert seen[0].headers["webhook-id"] == "msg_1"


def test_tunnel_without_a_handshake(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a tunnel leads nowhere, the receiver got nothing."""
    with serving([b"HTTP/1.1 200 Connected\r\n\r\n", 5]) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        connect("receiver", host="https://192.0.2.7/hook", extra={"timeout": TIMEOUT})
        result = WebhookHook("receiver").send("{}", message_id="msg_1")
    assert certainly_not_sent(result) == f"no connection within {TIMEOUT:g} s"
