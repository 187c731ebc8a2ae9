"""Findings about an Insightly account, played by the sandbox."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_insightly_hooks.diagnosis.findings import OK, PROBLEM, SKIPPED, WARNING, Finding
from airflow_insightly_hooks.diagnosis.insightly_account import (
    check_account,
    judge_clock,
    judge_requests_left,
)
from airflow_insightly_hooks.hooks.api import client
from airflow_insightly_hooks.hooks.api.limiter import RequestsLeft
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.conftest import API_KEY, Connect, Logged

WRONG_KEY = "wrong-key-of-the-tests"
ENDS = datetime(2026, 3, 11, tzinfo=timezone.utc)


def checked(record_types: Sequence[str] | None = ("Contacts",)) -> list[Finding]:
    findings = list(check_account("insightly_default", record_types))
    assert {finding.subject for finding in findings} == {"connection insightly_default"}
    assert all(finding.what_to_do for finding in findings if finding.level in (WARNING, PROBLEM))
    return findings


def levels(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    """Return each finding's level and its first words."""
    return [(finding.level, " ".join(finding.finding.split()[:3])) for finding in findings]


@pytest.fixture(autouse=True)
def _no_naps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat failed requests at once."""
    monkeypatch.setattr(client.Client, "_wait", lambda _client, _seconds: None)


def account(connect: Connect, host: str, **fields: Any) -> None:
    given = {"host": host, "password": API_KEY, "extra": {"requests_per_second": 10_000, "timeout": 2}}
    connect("insightly_default", "insightly", **{**given, **fields})


@pytest.fixture
def good(sandbox: RunningSandbox, connect: Connect) -> RunningSandbox:
    account(connect, sandbox.api_url)
    return sandbox


def test_an_account_in_order(good: RunningSandbox) -> None:
    """Key, clock, record types and requests left have a finding each. The check takes two requests."""
    findings = checked()
    assert [finding.level for finding in findings] == [OK] * 4
    assert findings[1].finding.startswith("its clock and this machine's are at most ")
    assert findings[2].finding == "can be read: Contacts"
    assert findings[0].finding.endswith("(account 'Sandbox Trading')")
    assert "requests are left until" in findings[3].finding
    assert sum(good.configure()["requests"].values()) == 2


def test_a_wrong_key(good: RunningSandbox, connect: Connect, logged: Logged) -> None:
    """A refused key is one finding, which says where to look and doesn't show the key."""
    account(connect, good.api_url, password=WRONG_KEY)
    (finding,) = checked()
    assert (finding.level, finding.finding) == (PROBLEM, f"{good.api_url} refuses the API key (401)")
    assert "User Settings" in finding.what_to_do
    assert WRONG_KEY not in logged.text + repr(finding)


def test_no_such_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that isn't there is a problem, too, and no error."""
    monkeypatch.delenv("AIRFLOW_CONN_INSIGHTLY_DEFAULT", raising=False)
    (finding,) = checked()
    assert (finding.level, finding.finding[:27]) == (PROBLEM, "there is no such connection")


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"password": ""}, "password"), ({"extra": {"timeout": "soon"}}, "extra.timeout")],
)
def test_an_unusable_connection(
    good: RunningSandbox, connect: Connect, fields: dict[str, Any], named: str
) -> None:
    """A mistake in a connection is named with its field, and no request is made."""
    account(connect, good.api_url, **fields)
    (finding,) = checked()
    assert finding.level == PROBLEM
    assert finding.finding.startswith(f"{named}: ")
    assert finding.what_to_do == f"Change {named} of the connection."
    assert not sum(good.configure()["requests"].values())


def test_a_wrong_pod(connect: Connect) -> None:
    """A pod that doesn't exist has no address. The finding asks whether it is the right pod."""
    account(connect, "nosuchpod7")
    (finding,) = checked()
    assert (finding.level, finding.finding) == (
        PROBLEM,
        "api.nosuchpod7.insightly.com can't be used: there is no such host",
    )
    assert "Check the pod" in finding.what_to_do


def test_nothing_listens(connect: Connect) -> None:
    """A host that takes no connection is named."""
    account(connect, "http://127.0.0.1:9/v3.1")
    (finding,) = checked()
    assert (finding.level, finding.finding) == (PROBLEM, "127.0.0.1:9 can't be used: connection refused")
    assert finding.what_to_do == "Check host and port."


def test_a_key_in_the_login(good: RunningSandbox, connect: Connect) -> None:
    """A key in the login works, with a warning."""
    account(connect, good.api_url, login=API_KEY, password="")
    first = checked()[0]
    assert (first.level, first.finding[:29]) == (WARNING, "the API key is in the login, ")


def test_a_record_type_that_must_be_readable(good: RunningSandbox) -> None:
    """A requested record type that can't be read is a problem, by permission or by plan."""
    good.configure(no_access=["Ticket"], not_in_plan=["Product"])
    findings = checked(["Contacts", "Ticket", "Product"])
    assert [(f.level, f.finding) for f in findings[2:5]] == [
        (OK, "can be read: Contacts"),
        (PROBLEM, "can't be read (403): Ticket"),
        (PROBLEM, "can't be read (404): Product"),
    ]
    assert "permission" in findings[3].what_to_do
    assert "plan" in findings[4].what_to_do


def test_all_record_types(good: RunningSandbox) -> None:
    """By default all types are tried with one request each. A warning names the unreadable ones."""
    good.configure(no_access=["Ticket"])
    findings = checked(None)
    assert (findings[3].level, findings[3].finding) == (WARNING, "can't be read (403): Ticket")
    assert "Contacts, " in findings[2].finding
    assert sum(good.configure()["requests"].values()) == 1 + 27


@pytest.mark.parametrize(
    ("offset", "level", "says"),
    [(3600, PROBLEM, "ahead of"), (-3600, PROBLEM, "behind"), (90, WARNING, "ahead of"), (5, OK, "apart")],
)
def test_the_clock(good: RunningSandbox, offset: float, level: str, says: str) -> None:
    """The API server's clock and this machine's are compared."""
    good.configure(clock_offset=offset)
    clock = checked()[1]
    assert (clock.level, says in clock.finding) == (level, True)


def test_no_requests_left(good: RunningSandbox) -> None:
    """A day whose requests are spent is a problem, and says until when."""
    good.configure(requests_per_day=0)
    (finding,) = checked()
    assert (finding.level, finding.finding[:26]) == (PROBLEM, "no requests are left until")


def test_the_day_ends_while_it_is_asked(good: RunningSandbox) -> None:
    """If the checks use up the last requests, the findings until then are reported, too."""
    good.configure(requests_per_day=3)
    found = levels(checked(["Contacts", "Tasks", "Leads"]))
    assert found[0][0] == OK
    assert (PROBLEM, "no requests are") in found


@pytest.mark.parametrize(
    ("counts", "level"),
    [
        (RequestsLeft(50_000, 100_000, ENDS), OK),
        (RequestsLeft(20_000, 100_000, ENDS), WARNING),
        (RequestsLeft(0, 100_000, ENDS), PROBLEM),
        (None, SKIPPED),
    ],
)
def test_requests_left(counts: RequestsLeft | None, level: str) -> None:
    """A fifth of the day's requests is a warning, 0 is a problem. Without a count there is neither."""
    finding = judge_requests_left("x", counts)
    assert finding.level == level
    if counts is not None:
        assert finding.finding.endswith(" of 100,000 requests are left until 2026-03-11 00:00 UTC")


@pytest.mark.parametrize(
    ("ahead", "level"),
    [(0.0, OK), (-29.0, OK), (30.0, WARNING), (-299.0, WARNING), (300.0, PROBLEM), (-1e6, PROBLEM)],
)
def test_clock_limits(ahead: float, level: str) -> None:
    """A difference of 30 s is a warning, and of 300 s a problem."""
    assert judge_clock("x", ahead).level == level


def test_findings_are_json(good: RunningSandbox) -> None:
    """A finding can be shown as JSON, by its names."""
    shown = json.loads(json.dumps([finding._asdict() for finding in checked()]))
    assert set(shown[0]) == {"subject", "level", "finding", "what_to_do"}
