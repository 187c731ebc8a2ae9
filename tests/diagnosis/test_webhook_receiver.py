"""Findings about receivers, on real sockets, without sending them anything."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from airflow_insightly_hooks.diagnosis.findings import OK, PROBLEM, WARNING, Finding
from airflow_insightly_hooks.diagnosis.webhook_receiver import check_receiver
from tests.certificates import Authority
from tests.conftest import Connect, Logged
from tests.network import NameService, tunnel
from tests.receiver import receiving
from tests.servers import answer, serving

PASSWORD = "Pa55-of-the-tests"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture(autouse=True)
def _nothing_secret(logged: Logged) -> Iterator[None]:
    yield
    assert PASSWORD not in logged.text


def checked(
    connect: Connect, host: str, *, posts: bool = False, fields: dict[str, Any] | None = None, **extra: Any
) -> list[Finding]:
    given = {"login": "user", "password": PASSWORD, **(fields or {})}
    connect("receiver", host=host, extra={"timeout": 2, **extra}, **given)
    findings = list(check_receiver("receiver", posts=posts))
    assert {finding.subject for finding in findings} == {"connection receiver"}
    assert all(finding.what_to_do for finding in findings if finding.level in (WARNING, PROBLEM))
    assert PASSWORD not in repr(findings)
    return findings


def shown(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.level, finding.finding) for finding in findings]


# --- connecting ------------------------------------------------------------------------------------------


def test_nothing_is_sent(connect: Connect) -> None:
    """A receiver gets one connection, and no byte."""
    received: list[bytes] = []
    with serving([lambda connection: received.append(connection.recv(9))], reads=False) as server:
        findings = checked(connect, server.url)
    assert shown(findings) == [(OK, f"{server.url} accepts connections")]
    assert (server.connections, received) == (1, [b""])


def test_the_answer_where_that_is_asked_for(connect: Connect) -> None:
    """With ``posts``, an empty JSON object is POSTed, and the answer is reported."""
    with serving([answer("401 Unauthorized")]) as server:
        findings = checked(connect, server.url, posts=True)
    assert [request.body for request in server.requests if request.body] == [b"{}"]
    assert findings[-1].level == PROBLEM
    assert "answered 401: the credentials are refused" in findings[-1].finding


def test_an_acknowledgement(connect: Connect) -> None:
    """A receiver that acknowledges the empty object is in order."""
    with serving([answer("202 Accepted")]) as server:
        findings = checked(connect, server.url, posts=True)
    assert shown(findings)[-1] == (OK, f"{server.url} acknowledged a test message with 202")


@pytest.mark.parametrize(
    ("host", "reason", "advice"),
    [
        ("http://127.0.0.1:9", "connection refused", "Check that the receiver is running"),
        ("https://nosuchhost.example.com", "the host can't be looked up", "Check the host."),
        ("https://169.254.169.254", "metadata addresses are not allowed", "Give another host"),
    ],
)
def test_no_connection(connect: Connect, host: str, reason: str, advice: str) -> None:
    """Every failure to connect is reported, with what to do about it."""
    (finding,) = checked(connect, host)
    assert (finding.level, reason in finding.finding) == (PROBLEM, True)
    assert finding.what_to_do.startswith(advice)


def test_an_address_of_a_private_network(connect: Connect) -> None:
    """Without ``allow_private_networks`` a private network is refused, and the field is named."""
    with serving([]) as server:
        (finding,) = checked(connect, server.url, allow_private_networks=False)
    assert (finding.level, server.connections) == (PROBLEM, 0)
    assert finding.what_to_do.startswith("Set allow_private_networks")


def test_a_missing_or_unusable_connection(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that isn't there, or has a mistake, is a problem."""
    monkeypatch.delenv("AIRFLOW_CONN_RECEIVER", raising=False)
    (missing,) = check_receiver("receiver")
    assert (missing.level, missing.finding[:27]) == (PROBLEM, "there is no such connection")
    (unusable,) = checked(connect, "https://x.example.com", timeout="soon")
    assert unusable.finding.startswith("extra.timeout: ")


# --- TLS -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "level"), [(1, WARNING), (13, WARNING), (15, OK), (400, OK)], ids=lambda value: str(value)
)
def test_for_how_long_a_certificate_is_valid(
    connect: Connect, authority: Authority, days: int, level: str
) -> None:
    """TLS version and last valid day are shown. A certificate that expires within two weeks is a warning."""
    tls = authority.server(until=timedelta(days=days, hours=1))
    with receiving(tls=tls) as receiver:
        findings = checked(connect, receiver.url, verify=str(authority.file))
    ends = datetime.now(timezone.utc) + timedelta(days=days, hours=1)
    assert findings[1].level == level
    assert findings[1].finding.startswith(f"TLSv1.3, certificate valid until {ends:%Y-%m-}")
    assert f"({days} day" in findings[1].finding
    assert receiver.posts == []


def test_an_old_version_of_tls(connect: Connect, authority: Authority) -> None:
    """The finding names the TLS version in use."""
    tls = authority.server(until=timedelta(days=99), newest=ssl.TLSVersion.TLSv1_2)
    with receiving(tls=tls) as receiver:
        findings = checked(connect, receiver.url, verify=str(authority.file))
    assert findings[1].finding.startswith("TLSv1.2, ")


def test_an_expired_certificate(connect: Connect, authority: Authority) -> None:
    """An expired certificate is a problem, and its owner has to renew it."""
    tls = authority.server(since=timedelta(days=-9), until=timedelta(days=-1))
    with receiving(tls=tls) as receiver:
        (finding,) = checked(connect, receiver.url, verify=str(authority.file))
    assert (finding.level, "TLS: certificate has expired" in finding.finding) == (PROBLEM, True)
    assert finding.what_to_do.startswith("Its owner has to renew it")


def test_a_certificate_that_is_not_verified(connect: Connect, authority: Authority) -> None:
    """A warning says that ``verify`` is off, and another names an expired certificate."""
    tls = authority.server(since=timedelta(days=-9), until=timedelta(days=-1))
    with receiving(tls=tls) as receiver:
        findings = checked(connect, receiver.url, verify=False)
    assert [finding.level for finding in findings] == [WARNING, OK, WARNING]
    assert findings[0].finding.startswith("its certificate is not verified")
    assert findings[2].finding.endswith("(expired)")


@pytest.mark.parametrize(
    ("certified", "says", "advice"),
    [
        ("127.0.0.2", "mismatch", "The certificate belongs to another host"),
        ("", "TLS: ", "Give the file of its"),
    ],
)
def test_a_certificate_that_is_refused(
    connect: Connect, authority: Authority, tmp_path: Path, certified: str, says: str, advice: str
) -> None:
    """Another host's certificate, or one of an untrusted authority, is a problem."""
    (tmp_path / "other").mkdir()
    trusted = authority if certified else Authority(tmp_path / "other")
    with receiving(tls=authority.server(certified or "127.0.0.1")) as receiver:
        (finding,) = checked(connect, receiver.url, verify=str(trusted.file))
    assert (finding.level, says in finding.finding) == (PROBLEM, True)
    assert finding.what_to_do.startswith(advice)


def test_through_a_proxy(connect: Connect, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver behind a proxy is reached through its tunnel. The proxy's password isn't shown."""
    tls = authority.server("receiver.example.com", until=timedelta(days=99))
    with receiving(tls=tls) as receiver, serving(tunnel(receiver.port)) as proxy:
        address = proxy.url.replace("http://", f"http://user:{PASSWORD}@")
        monkeypatch.setenv("https_proxy", address)
        findings = checked(connect, "https://receiver.example.com", verify=str(authority.file))
    through = f"https://receiver.example.com accepts connections through the proxy {proxy.url}"
    assert shown(findings)[0] == (OK, through)
    assert findings[1].level == OK


# --- who else can read, or send -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "extra", "begins"),
    [
        ({}, {}, "records and credentials go to http://receiver.example.com:9 without encryption"),
        ({"login": "", "password": ""}, {}, "records go to http://receiver.example.com:9 without encryption"),
    ],
)
def test_plain_http(
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, Any],
    extra: dict[str, Any],
    begins: str,
) -> None:
    """A warning says that records and credentials go over the network unencrypted."""
    NameService(monkeypatch, {"receiver.example.com": ["127.0.0.1"]})
    findings = checked(
        connect, "http://receiver.example.com:9", fields=fields, allow_insecure_http=True, **extra
    )
    assert findings[0].level == WARNING
    assert findings[0].finding.startswith(begins)


@pytest.mark.parametrize(
    ("fields", "extra", "says"),
    [
        ({"login": "", "password": ""}, {}, "it has no password"),
        ({"password": ""}, {}, "it has a login without a password"),
        ({"login": "", "password": ""}, {"headers": {"X-Token": "abcdef"}}, None),
        ({"login": "", "password": ""}, {"signing_secret": "c" * 32}, None),
        ({}, {}, None),
    ],
)
def test_missing_credentials(
    connect: Connect, fields: dict[str, Any], extra: dict[str, Any], says: str | None
) -> None:
    """Without password, header and signature, a warning says that the receiver can't know the sender."""
    with serving([]) as server:
        findings = checked(connect, server.url, fields=fields, **extra)
    warnings = [finding.finding for finding in findings if finding.level == WARNING]
    assert [warning[: len(says or "")] for warning in warnings] == ([says] if says else [])
