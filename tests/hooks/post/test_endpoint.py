"""Where a webhook is sent and with which credentials: tables of connections and URIs."""

from __future__ import annotations

import base64
import re
import time
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_insightly_hooks.core.errors import InvalidConnection
from airflow_insightly_hooks.hooks.post.endpoint import Endpoint

PASSWORD = "Pa55-of-the-tests"


def connection(host: str | None = None, **fields: Any) -> Any:
    fields = {"schema": None, "port": None, "login": None, "password": None, **fields}
    return SimpleNamespace(conn_id="receiver", host=host, **fields)


def credentials(endpoint: Endpoint) -> str | None:
    """Return ``user:password`` as the receiver decodes it."""
    if endpoint.authorization is None:
        return None
    assert endpoint.authorization.startswith("Basic ")
    return base64.b64decode(endpoint.authorization.removeprefix("Basic "), validate=True).decode()


# --- URIs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("https://receiver.example.com", "https://receiver.example.com/"),
        ("http://receiver.example.com/hook", "http://receiver.example.com/hook"),
        ("https://receiver.example.com:443/hook", "https://receiver.example.com/hook"),
        ("https://receiver.example.com:8443/hook", "https://receiver.example.com:8443/hook"),
        ("http://receiver.example.com:443/", "http://receiver.example.com:443/"),
        ("HTTPS://Receiver.Example.COM/Hook", "https://receiver.example.com/Hook"),
        ("https://receiver.example.com?a=1&b=%20", "https://receiver.example.com/?a=1&b=%20"),
        ("https://receiver.example.com/a%2Fb//c/../d", "https://receiver.example.com/a%2Fb//c/../d"),
        ("https://receiver.example.com/café", "https://receiver.example.com/caf%C3%A9"),
        ("https://receiver.example.com/#part", "https://receiver.example.com/"),
        ("https://receiver.example.com./", "https://receiver.example.com./"),
        ("https://my_host.internal/", "https://my_host.internal/"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080/"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("https://[2001:DB8:0::1]/", "https://[2001:db8::1]/"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
        (f"https://{'a' * 63}.example/", f"https://{'a' * 63}.example/"),
    ],
)
def test_uri_means_url(uri: str, url: str) -> None:
    """A URI keeps its path as written.

    Host and scheme are in lower case; the scheme's usual port is dropped.
    """
    assert Endpoint.from_uri(uri).url == url


@pytest.mark.parametrize(
    ("information", "sent"),
    [
        ("user:secret-word", "user:secret-word"),
        ("user", "user:"),
        ("user:", "user:"),
        (":secret-word", ":secret-word"),
        ("user:a%3Ab", "user:a:b"),
        ("user:a:b", "user:a:b"),
        ("user:a%40b", "user:a@b"),
        ("user:a@b", "user:a@b"),
        ("us%40er:a%2Fb%23c%3Fd", "us@er:a/b#c?d"),
        ("user:100%25%32%30", "user:100%20"),
        ("r%C3%A9cepteur:p%C3%A4ss", "récepteur:päss"),
        ("récepteur:päss", "récepteur:päss"),
    ],
)
def test_user_information(information: str, sent: str) -> None:
    """User information is split at the first ':' and the last '@', decoded once, and sent as UTF-8."""
    endpoint = Endpoint.from_uri(f"https://{information}@receiver.example.com/hook")
    assert credentials(endpoint) == sent
    assert endpoint.url == "https://receiver.example.com/hook"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "receiver.example.com/hook",
        "//receiver.example.com/",
        "ftp://receiver.example.com/",
        "file:///etc/passwd",
        "https://",
        "https:///hook",
        "https:receiver.example.com",
        f"https://user:{PASSWORD}@/hook",
        f"https://user:{PASSWORD}@:8443/hook",
        f"https://user:{PASSWORD}@receiver.example.com:0/",
        f"https://user:{PASSWORD}@receiver.example.com:99999/",
        f"https://user:{PASSWORD}@receiver.example.com:port/",
        f"https://user:{PASSWORD}@receiver example.com/",
        f"https://user:{PASSWORD}@receiver.example.com/a b",
        f"https://user:{PASSWORD}@receiver.example.com\\@other.example.com/",
        f"https://user:{PASSWORD}@receiver.example.com/\r\nX-Header: 1",
        f"https://user:{PASSWORD}\r\n@receiver.example.com/",
        f"https://user:{PASSWORD}\x00@receiver.example.com/",
        f"https://user:{PASSWORD}%@receiver.example.com/",
        f"https://user:{PASSWORD}%2@receiver.example.com/",
        f"https://user:{PASSWORD}%GG@receiver.example.com/",
        f"https://user:%FF{PASSWORD}@receiver.example.com/",
        f"https://user:{PASSWORD}/x@receiver.example.com/",
        f"https://user:{PASSWORD}#x@receiver.example.com/",
        f"https://user:{PASSWORD}?x@receiver.example.com/",
        f"https://user:12/{PASSWORD}@receiver.example.com/",
        f"https://user:12#{PASSWORD}@receiver.example.com/",
        f"https://user:a@b/{PASSWORD}@receiver.example.com/",
        f"https://user:a@b?{PASSWORD}@receiver.example.com/",
        f"https://us%3Aer:{PASSWORD}@receiver.example.com/",
        f"https://user:{PASSWORD}@[::1/",
        f"https://user:{PASSWORD}@[not-an-address]/",
        f"https://user:{PASSWORD}@[fe80::1%eth0]/",
        f"https://user:{PASSWORD}@[fe80::1%25]/",
        f"https://user:{PASSWORD}@[fe80::1%25a:b]/",
        f"https://user:{PASSWORD}@receiver%25x/",
        f"https://user:{PASSWORD}@receiver..example.com/",
        f"https://user:{PASSWORD}@.example.com/",
        f"https://user:{PASSWORD}@-receiver.example.com/",
        f"https://user:{PASSWORD}@{'a' * 64}.example.com/",
        f"https://user:{PASSWORD}@{'abcd.' * 51}com/",
        f"https://user:{PASSWORD}@{'é' * 64}.example.com/",
        f"https://user:{PASSWORD}@re!ceiver.example.com/",
        f"https://user:{PASSWORD}@receiver.example.com%2Fpath/",
    ],
)
def test_refused_uri(uri: str) -> None:
    """Anything but a usable http(s) URI is refused when it is read. The error doesn't show its text."""
    with pytest.raises(InvalidConnection) as caught:
        Endpoint.from_uri(uri, "receiver")
    assert caught.value.conn_id == "receiver"
    assert caught.value.field in ("host", "URI", "login")
    assert PASSWORD not in str(caught.value) + repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_long_host_is_refused_at_once() -> None:
    """The time for checking a host doesn't depend on the number of ways to split it."""
    started = time.monotonic()
    with pytest.raises(InvalidConnection):
        Endpoint.from_uri(f"https://{'a' * 60}!/")
    assert time.monotonic() - started < 1


# --- connections -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "path", "url"),
    [
        ({"host": "receiver.example.com"}, "", "https://receiver.example.com/"),
        ({"host": " receiver.example.com "}, "", "https://receiver.example.com/"),
        ({"host": "receiver.example.com", "port": 8443}, "", "https://receiver.example.com:8443/"),
        ({"host": "receiver.example.com", "port": 80}, "", "https://receiver.example.com:80/"),
        ({"host": "receiver.example.com", "schema": "http"}, "", "http://receiver.example.com/"),
        (
            {"host": "receiver.example.com", "schema": "http", "port": 8080},
            "/hook?a=1",
            "http://receiver.example.com:8080/hook?a=1",
        ),
        ({"host": "https://receiver.example.com:8443/a?b=1"}, "", "https://receiver.example.com:8443/a?b=1"),
        (
            {"host": "https://receiver.example.com/a/?b=1"},
            "/c?d=2",
            "https://receiver.example.com/a/c?b=1&d=2",
        ),
        ({"host": "https://receiver.example.com"}, "/c", "https://receiver.example.com/c"),
        ({"host": "::1", "schema": "http", "port": 8080}, "", "http://[::1]:8080/"),
        ({"host": "[::1]", "schema": "http"}, "", "http://[::1]/"),
        ({"host": "fe80::1%eth0", "schema": "http"}, "", "http://[fe80::1%eth0]/"),
        ({"host": "[fe80::1%25eth0]", "port": 8443}, "", "https://[fe80::1%eth0]:8443/"),
    ],
)
def test_connection_means_url(given: dict[str, Any], path: str, url: str) -> None:
    """A host with '://' is the whole URI.

    Otherwise schema, host and port count, with https as the default.
    """
    assert Endpoint.from_connection(connection(**given), path).url == url


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, None),
        ({"login": "user", "password": "a:b@c/%20"}, "user:a:b@c/%20"),
        ({"login": "user"}, "user:"),
        ({"password": "secret-word"}, ":secret-word"),
        ({"login": "récepteur", "password": "日本"}, "récepteur:日本"),
    ],
)
def test_connection_credentials(given: dict[str, Any], sent: str | None) -> None:
    """Login and password are used as they are. If both are empty, no credentials are sent."""
    assert credentials(Endpoint.from_connection(connection("receiver.example.com", **given))) == sent


@pytest.mark.parametrize(
    ("given", "path", "field"),
    [
        ({"host": None}, "", "host"),
        ({"host": "  "}, "", "host"),
        ({"host": "https://receiver.example.com", "schema": "https"}, "", "host"),
        ({"host": "https://receiver.example.com", "port": 443}, "", "host"),
        ({"host": "receiver.example.com", "schema": "ftp"}, "", "host"),
        ({"host": "receiver.example.com", "port": -1}, "", "host"),
        ({"host": "receiver.example.com:0"}, "", "host"),
        ({"host": "receiver.example.com", "port": 70000}, "", "host"),
        ({"host": "receiver.example.com/hook", "port": 8443}, "", "host"),
        ({"host": "receiver.example.com?hook", "port": 8443}, "", "host"),
        ({"host": "receiver.example.com#hook"}, "", "host"),
        ({"host": f"user:{PASSWORD}@receiver.example.com"}, "", "host"),
        ({"host": "receiver.example.com\r\nX: 1"}, "", "host"),
        ({"host": "https://user@receiver.example.com", "login": "user"}, "", "host"),
        ({"host": f"https://user:{PASSWORD}@receiver.example.com", "password": PASSWORD}, "", "host"),
        ({"host": "receiver.example.com", "login": f"us:er{PASSWORD}"}, "", "login"),
        ({"host": "receiver.example.com"}, "hook", "extra.path"),
        ({"host": "receiver.example.com"}, "/a b", "extra.path"),
        ({"host": "receiver.example.com"}, "/a%", "extra.path"),
        ({"host": "receiver.example.com"}, "/a#b", "extra.path"),
        ({"host": "receiver.example.com"}, "/a\nb", "extra.path"),
    ],
)
def test_refused_connection(given: dict[str, Any], path: str, field: str) -> None:
    """A connection with a missing or ambiguous address is refused. The error names the field."""
    with pytest.raises(InvalidConnection) as caught:
        Endpoint.from_connection(connection(**given), path)
    assert (caught.value.conn_id, caught.value.field) == ("receiver", field)
    assert PASSWORD not in str(caught.value)


# --- redirects -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/new?a=1", "https://receiver.example.com/new?a=1"),
        ("new", "https://receiver.example.com/a/new"),
        ("?b=2", "https://receiver.example.com/a/hook?b=2"),
        ("https://RECEIVER.example.com:443/x#part", "https://receiver.example.com/x"),
        ("https://receiver.example.com", "https://receiver.example.com/"),
        ("//receiver.example.com/@me", "https://receiver.example.com/@me"),
        ("/caf\u00c3\u00a9", "https://receiver.example.com/caf%C3%A9"),
        ("http://receiver.example.com/", None),
        ("https://receiver.example.com:8443/", None),
        ("https://other.example.com/", None),
        ("//other.example.com/", None),
        ("https://user@receiver.example.com/", None),
        ("https://receiver.example.com@other.example.com/", None),
        ("https://receiver.example.com\\@other.example.com/", None),
        ("/a b", None),
        ("/a\tb", None),
        ("https://[", None),
        ("https://receiver.example.com:99999/", None),
        ("javascript:alert(1)", None),
        ("ftp://receiver.example.com/", None),
    ],
)
def test_redirected(location: str, url: str | None) -> None:
    """A redirect to another path of the same origin keeps the credentials. Any other leads nowhere."""
    endpoint = Endpoint.from_uri(f"https://user:{PASSWORD}@receiver.example.com/a/hook?token=1")
    to = endpoint.redirected(location)
    assert (to and to.url) == url
    assert to is None or credentials(to) == f"user:{PASSWORD}"


# --- what an endpoint shows ------------------------------------------------------------------------------


def test_text_holds_no_secrets() -> None:
    """Neither the text nor the repr of an endpoint has credentials or the query, which may contain tokens."""
    endpoint = Endpoint.from_uri(f"https://the-user:{PASSWORD}@receiver.example.com:8443/hook?token=T0KEN")
    assert str(endpoint) == "https://receiver.example.com:8443/hook"
    assert endpoint.origin == "https://receiver.example.com:8443"
    for text in (str(endpoint), repr(endpoint)):
        assert not re.search(f"the-user|{PASSWORD}|T0KEN", text)


@pytest.mark.parametrize(
    ("uri", "header"),
    [
        ("https://receiver.example.com", "receiver.example.com"),
        ("https://receiver.example.com:8443/x", "receiver.example.com:8443"),
        ("http://receiver.example.com:443", "receiver.example.com:443"),
        ("http://[::1]", "[::1]"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("http://[fe80::1%25eth0]:8080", "[fe80::1]:8080"),
    ],
)
def test_host_header(uri: str, header: str) -> None:
    """``Host`` has an IPv6 address in brackets, without its zone. The scheme's usual port is left out."""
    assert Endpoint.from_uri(uri).host_header == header


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("[::1]", True),
        ("receiver.example.com", False),
        ("localhost.example.com", False),
        ("10.0.0.1", False),
        ("127.1", False),
        ("2130706433", False),
    ],
)
def test_loopback(host: str, is_loopback: bool) -> None:
    """Only addresses that are loopback in their usual spelling count. No name is looked up."""
    assert Endpoint.from_uri(f"http://{host}/").is_loopback is is_loopback
