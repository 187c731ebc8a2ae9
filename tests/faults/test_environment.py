"""Connections that were used before, and the machine's environment: proxies, ``.netrc``, CA bundles."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_insightly_hooks.hooks.webhook import WebhookHook
from tests.certificates import Authority
from tests.conftest import Connect
from tests.faults.conftest import BODY, Send, fault
from tests.network import tunnel
from tests.servers import READ, RESET, Server, answer, serving

KEPT_OPEN = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
RECEIVER = "receiver.example.com"
BASIC = base64.b64encode(b"user:word-of-the-tests").decode()

UseProxy = Callable[[Server], None]


@pytest.fixture
def use_proxy(monkeypatch: pytest.MonkeyPatch) -> UseProxy:
    """Have the environment name a proxy."""

    def use(proxy: Server) -> None:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, proxy.url)

    return use


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """Return an authority that the environment variable ``REQUESTS_CA_BUNDLE`` names as trusted."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    return authority


def request_lines(server: Server) -> list[str]:
    return [request.request_line for request in server.requests]


def asks_for_a_tunnel(proxy: Server) -> bytes:
    """Check that a proxy was asked for a tunnel, once, and return all bytes that it could read."""
    (request,) = proxy.requests
    assert request.request_line.startswith(f"CONNECT {RECEIVER}:443 HTTP/1.")
    return request.head + request.body


# --- connections that were used before -------------------------------------------------------------------


@fault(54, "the peer closed an idle connection", requests="passes")
def test_closed_while_idle(send: Send) -> None:
    """The next message goes out once, on a new connection."""
    with serving([KEPT_OPEN]) as server:
        assert send(server.url, session=True).acknowledged
        time.sleep(0.1)  # until the end of the connection has arrived
        assert send(server.url, session=True).acknowledged
    assert [request.body.decode() for request in server.requests] == [BODY, BODY]
    assert server.connections == 2


@fault(54, "the peer closes a kept connection when the next message comes", requests=None)
def test_closed_while_sending(connect: Connect) -> None:
    """If the next message may have been read, it is in doubt and is sent again under the same id."""
    with serving(lambda n: [KEPT_OPEN, READ] if n == 0 else [answer()]) as server:
        connect("receiver", host=server.url, extra={"timeout": 1})
        hook = WebhookHook("receiver")
        assert hook.send(BODY, message_id="msg_1").acknowledged
        results = [hook.send(BODY, message_id="msg_2") for _ in range(2)]
    assert results[-1].acknowledged
    received = [request.headers["webhook-id"] for request in server.requests]
    assert received == ["msg_1", "msg_2", "msg_2"]
    assert all(result.sent for result in results)


@fault(55, "a silent retry by the library", requests="passes")
@pytest.mark.parametrize("script", [[], [RESET], [answer("503 X", "Retry-After: 0")]])
def test_no_silent_retry(send: Send, script: list[object]) -> None:
    """One attempt is one POST. No library sends it again."""
    with serving(script) as server:
        outcome = send(server.url)
    assert not outcome.acknowledged
    assert outcome.sent is not False
    assert (len(server.requests), server.connections) == (1, 1)


@fault(56, "a receiver that sets cookies", requests="fails")
def test_cookies(send: Send) -> None:
    """No cookie is sent back with the next message."""
    with serving([answer("200 OK", "Set-Cookie: session=1; Path=/")]) as server:
        assert send(server.url, session=True).acknowledged
        assert send(server.url, session=True).acknowledged
    assert len(server.requests) == 2
    assert not any("cookie" in request.headers for request in server.requests)


@fault(56, "a redirect that sets cookies", requests="fails")
def test_cookies_of_a_redirect(send: Send) -> None:
    """No cookie is sent back when a redirect is followed."""
    reply = answer("307 Moved", "Location: /new", "Set-Cookie: session=1; Path=/")
    with serving(lambda n: [answer()] if n else [reply]) as server:
        assert send(server.url, extra={"allow_redirects": True}).acknowledged
    assert request_lines(server) == ["POST / HTTP/1.1", "POST /new HTTP/1.1"]
    assert not any("cookie" in request.headers for request in server.requests)


# --- proxies ---------------------------------------------------------------------------------------------


@fault(57, "a proxy in the environment, a receiver on http", requests="passes")
def test_http_by_proxy(send: Send, use_proxy: UseProxy) -> None:
    """The environment's proxy is used, and gets the whole message for the receiver."""
    with serving([answer("201 Created")]) as proxy:
        use_proxy(proxy)
        outcome = send(f"http://{RECEIVER}/hook?a=1")
    assert (outcome.acknowledged, outcome.status) == (True, 201)
    (request,) = proxy.requests
    assert request.request_line == f"POST http://{RECEIVER}/hook?a=1 HTTP/1.1"
    assert (request.body.decode(), request.headers["host"]) == (BODY, RECEIVER)


@fault(57, "a proxy in the environment, a receiver on https", requests="passes")
def test_https_by_proxy(send: Send, use_proxy: UseProxy, authority: Authority) -> None:
    """A receiver on https is reached through a tunnel: the proxy sees neither credentials nor message."""
    with serving([answer()], tls=authority.server(RECEIVER)) as server:
        with serving(tunnel(server.port)) as proxy:
            use_proxy(proxy)
            outcome = send(f"https://{RECEIVER}/hook", login="user", password="word-of-the-tests")
    assert outcome.acknowledged
    assert BASIC.encode() not in asks_for_a_tunnel(proxy)
    (request,) = server.requests
    assert (request.body.decode(), request.headers["authorization"]) == (BODY, f"Basic {BASIC}")


@fault(57, "a proxy in the environment, a receiver that is an IPv6 address")
def test_ipv6_address_by_proxy(connect: Connect, use_proxy: UseProxy, authority: Authority) -> None:
    """The proxy gets the address in brackets. The certificate is checked for it without brackets."""
    with serving([answer()], tls=authority.server("2001:db8::1")) as server:
        with serving(lambda n: [answer()] if n else tunnel(server.port)) as proxy:
            use_proxy(proxy)
            for scheme in ("https", "http"):
                connect("receiver", host=f"{scheme}://[2001:db8::1]/hook", extra={"timeout": 1})
                assert WebhookHook("receiver").send(BODY, message_id="msg_1").acknowledged
    by_tunnel, in_clear = proxy.requests
    assert by_tunnel.request_line == "CONNECT [2001:db8::1]:443 HTTP/1.1"
    assert by_tunnel.headers["host"] == "[2001:db8::1]:443"
    assert in_clear.request_line == "POST http://[2001:db8::1]/hook HTTP/1.1"
    assert [request.headers["host"] for request in (*server.requests, in_clear)] == ["[2001:db8::1]"] * 2


@fault(57, "credentials over http through a proxy", requests="fails")
@pytest.mark.parametrize("by", ["login", "URI", "header"])
def test_credentials_in_clear_by_proxy(send: Send, use_proxy: UseProxy, by: str) -> None:
    """Credentials over http are refused through a proxy as without one, unless the connection allows it."""
    user = "user:word-of-the-tests@" if by == "URI" else ""
    given = {"login": "user", "password": "word-of-the-tests"} if by == "login" else {}
    extra = {"allow_insecure_http": False}
    extra |= {"headers": {"Authorization": f"Basic {BASIC}"}} if by == "header" else {}
    with serving([answer()]) as proxy:
        use_proxy(proxy)
        outcome = send(f"http://{user}{RECEIVER}/hook", extra=extra, **given)
    assert outcome.is_certainly_undelivered()
    assert "allow_insecure_http" in (outcome.error or "")
    assert proxy.connections == 0


@fault(57, "a proxy in the environment that is not to be used", requests="fails")
def test_environment_turned_off(send: Send, use_proxy: UseProxy) -> None:
    """With ``trust_env`` off, the environment's proxy is not used."""
    with serving([answer()]) as proxy:
        use_proxy(proxy)
        outcome = send("http://receiver.invalid/hook", extra={"trust_env": False})
    assert outcome.is_certainly_undelivered()
    assert proxy.connections == 0


@fault(57, "a receiver that no_proxy names", requests="passes")
def test_no_proxy(send: Send, use_proxy: UseProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Receivers that ``no_proxy`` names are reached directly."""
    monkeypatch.setenv("no_proxy", "127.0.0.1,other.example.com")
    with serving([answer("500 X")]) as proxy, serving([answer()]) as server:
        use_proxy(proxy)
        assert send(server.url).acknowledged
    assert proxy.connections == 0
    assert request_lines(server) == ["POST / HTTP/1.1"]


@fault(58, "the proxy opens no tunnel", requests="passes")
@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "403 Forbidden", "502 Bad Gateway"])
def test_no_tunnel(send: Send, use_proxy: UseProxy, status: str) -> None:
    """The error names the proxy, and no attempt is counted, since the receiver got nothing."""
    with serving([answer(status)]) as proxy:
        use_proxy(proxy)
        outcome = send(f"https://{RECEIVER}/hook")
    assert outcome.is_certainly_undelivered()
    assert "proxy" in (outcome.error or "").lower()
    assert status[:3] in (outcome.error or "")
    asks_for_a_tunnel(proxy)


@fault(58, "the proxy takes no connection", requests="passes")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_proxy_there(send: Send, use_proxy: UseProxy, scheme: str) -> None:
    """The error names the proxy, and no attempt is counted."""
    with serving([]) as proxy:
        pass
    use_proxy(proxy)
    outcome = send(f"{scheme}://{RECEIVER}/hook")
    assert outcome.is_certainly_undelivered()
    assert "proxy" in (outcome.error or "").lower()


@fault(58, "the proxy's own 407 for a receiver on http", requests="fails")
def test_407_on_http(send: Send, use_proxy: UseProxy) -> None:
    """The error names the proxy, not the receiver, and no attempt is counted."""
    with serving([answer("407 Proxy Authentication Required")]) as proxy:
        use_proxy(proxy)
        outcome = send(f"http://{RECEIVER}/hook")
    assert outcome.is_certainly_undelivered()
    assert "proxy" in (outcome.error or "").lower()


@fault(58, "a 407 without a proxy", requests="passes")
def test_407_of_a_receiver(send: Send) -> None:
    """A receiver's own 407 is a failure like any other status."""
    with serving([answer("407 Proxy Authentication Required")]) as server:
        outcome = send(server.url)
    assert (outcome.acknowledged, outcome.status) == (False, 407)
    assert outcome.sent is not False


@fault(58, "the tunnel leads to another host", requests="passes")
def test_tls_in_a_tunnel(send: Send, use_proxy: UseProxy, authority: Authority) -> None:
    """The certificate at the end of the tunnel is checked. The error does not blame the proxy."""
    with serving([answer()], tls=authority.server("other.example.com")) as server:
        with serving(tunnel(server.port)) as proxy:
            use_proxy(proxy)
            outcome = send(f"https://{RECEIVER}/hook")
    assert outcome.is_certainly_undelivered()
    assert "mismatch" in (outcome.error or "").lower()
    assert "proxy" not in (outcome.error or "").lower()
    assert server.requests == []


@fault(58, "a proxy over TLS opens no tunnel", requests="passes")
def test_proxy_over_tls(send: Send, use_proxy: UseProxy, authority: Authority) -> None:
    """The error names the proxy, and no attempt is counted, either."""
    with serving([answer("502 Bad Gateway")], tls=authority.server()) as proxy:
        use_proxy(proxy)
        outcome = send(f"https://{RECEIVER}/hook")
    assert outcome.is_certainly_undelivered()
    assert "proxy" in (outcome.error or "").lower()
    assert "502" in (outcome.error or "")
    asks_for_a_tunnel(proxy)


# --- files of the machine --------------------------------------------------------------------------------


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a .netrc with credentials for every host."""
    file = tmp_path / ".netrc"
    file.write_text("default login somebody password else\n")
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))
    monkeypatch.setenv("HOME", str(tmp_path))


@fault(59, "a .netrc that knows the receiver", requests="fails")
@pytest.mark.usefixtures("netrc")
def test_netrc_adds_nothing(send: Send) -> None:
    """``.netrc`` is never read, so no credentials are added."""
    with serving([answer()]) as server:
        assert send(server.url).acknowledged
    assert "authorization" not in server.requests[0].headers


@fault(59, "a .netrc, and an Authorization header", requests="fails")
@pytest.mark.usefixtures("netrc")
def test_netrc_replaces_nothing(send: Send) -> None:
    """``.netrc`` is never read, so the connection's Authorization stays as it is."""
    with serving([answer()]) as server:
        assert send(
            server.url, extra={"headers": {"Authorization": "Bearer token-of-the-tests"}}
        ).acknowledged
    assert server.requests[0].headers["authorization"] == "Bearer token-of-the-tests"


@fault(59, "a .netrc, and user information in the URI", requests="fails")
@pytest.mark.usefixtures("netrc")
def test_netrc_and_user_information(send: Send) -> None:
    """``.netrc`` is never read, so the user information of the URI is sent."""
    with serving([answer()]) as server:
        assert send(server.url.replace("//", "//user:word-of-the-tests@")).acknowledged
    assert server.requests[0].headers["authorization"] == f"Basic {BASIC}"


@fault(60, "REQUESTS_CA_BUNDLE", requests="passes")
def test_requests_ca_bundle(send: Send, authority: Authority) -> None:
    """``REQUESTS_CA_BUNDLE`` names the trusted authorities if the connection names none."""
    with serving([answer()], tls=authority.server()) as server:
        assert send(server.url).acknowledged
    assert [request.body.decode() for request in server.requests] == [BODY]


@fault(60, "SSL_CERT_FILE", requests="fails")
def test_ssl_cert_file(send: Send, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """``SSL_CERT_FILE``, Python's own variable, counts as well."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with serving([answer()], tls=authority.server()) as server:
        assert send(server.url).acknowledged
    assert [request.body.decode() for request in server.requests] == [BODY]


@fault(60, "a CA bundle in the environment that is not to be used", requests="fails")
def test_ca_bundle_turned_off(send: Send, authority: Authority) -> None:
    """With ``trust_env`` off, the environment's bundle is not used."""
    with serving([answer()], tls=authority.server()) as server:
        outcome = send(server.url, extra={"trust_env": False})
    assert outcome.is_certainly_undelivered()
    assert "certificate" in (outcome.error or "")
    assert server.requests == []
