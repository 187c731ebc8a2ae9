"""What each status means, and what a receiver can ask for with its headers."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_insightly_hooks.core.errors import UndeliveredError
from airflow_insightly_hooks.hooks.webhook import WebhookHook
from airflow_insightly_hooks.operators.retry import RetryAfterPolicy
from tests.certificates import Authority
from tests.conftest import Connect
from tests.faults.conftest import BODY, Send, fault
from tests.network import NameService
from tests.servers import RESET, Server, answer, serving

FOLLOW = {"allow_redirects": True}


def redirect(to: str, status: int = 307, *headers: str) -> list[object]:
    return [answer(f"{status} Moved", f"Location: {to}", *headers)]


def bodies(server: Server) -> list[str]:
    return [request.body.decode() for request in server.requests]


# --- redirects -------------------------------------------------------------------------------------------


@fault(41, "a 3xx that leads nowhere", requests="fails")
@pytest.mark.parametrize("status", [300, 304, 305, 306, 399])
def test_3xx(send: Send, status: int) -> None:
    """A 3xx is a failure. One POST is made, and no redirect is followed."""
    with serving([answer(f"{status} X")]) as server:
        outcome = send(server.url)
    assert (outcome.acknowledged, outcome.status) == (False, status)
    assert bodies(server) == [BODY]


@fault(41, "a 3xx whose Location is not a valid address", requests="passes")
@pytest.mark.parametrize("location", ["http://127.0.0.1:99999/", "ftp://127.0.0.1/"])
def test_useless_location(send: Send, location: str) -> None:
    """It is a failure like any other 3xx, whether or not redirects are allowed."""
    with serving(redirect(location)) as server:
        assert not send(server.url).acknowledged
        assert not send(server.url, extra=FOLLOW).acknowledged
    assert bodies(server) == [BODY, BODY]


@fault(41, "a 3xx whose Location can't be read, or that has two", requests="fails")
@pytest.mark.parametrize("headers", [("Location: http://[",), ("Location: /a", "Location: /b")])
def test_unreadable_location(send: Send, headers: tuple[str, ...]) -> None:
    """It is a failure like any other 3xx, and raises no other error."""
    with serving(lambda n: [answer()] if n else [answer("307 X", *headers)]) as server:
        outcome = send(server.url, extra=FOLLOW)
    assert (outcome.acknowledged, outcome.status) == (False, 307)
    assert bodies(server) == [BODY]


@fault(42, "301, 302 or 303 to a page that answers 200", requests="fails")
@pytest.mark.parametrize("status", [301, 302, 303])
@pytest.mark.parametrize("extra", [{}, FOLLOW], ids=["", "allow_redirects"])
def test_get_instead_of_post(send: Send, status: int, extra: dict[str, Any]) -> None:
    """301, 302 and 303 are never followed. The 200 of an empty GET would be a false acknowledgement."""
    with serving(lambda n: [answer()] if n else redirect("/page", status)) as server:
        outcome = send(server.url, extra=extra)
    assert (outcome.acknowledged, outcome.status) == (False, status)
    assert [request.request_line for request in server.requests] == ["POST / HTTP/1.1"]


@fault(43, "307 or 308 to another host", requests="fails")
@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize(
    ("extra", "host"),
    [({}, "127.0.0.1"), (FOLLOW, "127.0.0.1"), (FOLLOW, "localhost"), (FOLLOW, "user:pw@127.0.0.1")],
)
def test_stranger(send: Send, status: int, extra: dict[str, Any], host: str) -> None:
    """A redirect to another host or port is never followed. Only the receiver gets body and keys."""
    extra = {**extra, "headers": {"X-Api-Key": "key-of-the-tests"}}
    with serving([answer()]) as stranger:
        with serving(redirect(f"http://{host}:{stranger.port}/", status)) as server:
            outcome = send(server.url, extra=extra)
    assert (outcome.acknowledged, outcome.status) == (False, status)
    assert stranger.connections == 0
    assert bodies(server) == [BODY]


@fault(43, "307 or 308 within the same scheme, host and port", requests="passes")
@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("whole", [False, True], ids=["a path", "a whole URI"])
def test_same_origin(send: Send, status: int, whole: bool) -> None:
    """With ``allow_redirects``, 307 and 308 within the same origin are followed, body and headers kept."""
    to = "/new/caf\xe9?a=1"

    def script(n: int) -> list[object]:
        return [answer("202 Accepted")] if n else redirect((server.url if whole else "") + to, status)

    with serving(script) as server:
        outcome = send(server.url, login="user", password="word", extra={**FOLLOW, "headers": {"X-A": "1"}})
    assert (outcome.acknowledged, outcome.status) == (True, 202)
    first, second = server.requests
    assert (first.request_line, second.request_line[:13]) == ("POST / HTTP/1.1", "POST /new/caf")
    assert (first.body, first.headers) == (second.body, second.headers)
    assert second.headers["authorization"] == "Basic dXNlcjp3b3Jk"


@fault(43, "redirects without end", requests="fails")
def test_redirects_without_end(send: Send) -> None:
    """At most five redirects are followed. The sixth counts as the answer, and acknowledges nothing."""
    with serving(lambda n: redirect(f"/{n}") if n < 6 else [answer()]) as server:
        outcome = send(server.url, extra=FOLLOW)
    assert (outcome.acknowledged, outcome.status) == (False, 307)
    assert bodies(server) == [BODY] * 6


@fault(43, "redirects that take their time", requests="fails")
def test_redirects_share_the_deadline(send: Send) -> None:
    """All redirects of a POST are one attempt with one deadline."""
    with serving(lambda n: [0.3, *(redirect(f"/{n}") if n < 3 else [answer()])]) as server:
        outcome = send(server.url, timeout=0.7, extra=FOLLOW)
    assert outcome.is_in_doubt()
    assert outcome.elapsed < 1
    assert len(server.requests) in (2, 3)


@fault(43, "the connection breaks behind a redirect", requests="passes")
def test_broken_behind_a_redirect(send: Send) -> None:
    """The message is in doubt, since it was read once."""
    with serving(lambda n: [RESET] if n else redirect("/new")) as server:
        assert send(server.url, extra=FOLLOW).is_in_doubt()
    assert bodies(server) == [BODY, BODY]


@fault(44, "a redirect to a metadata address", requests="fails")
@pytest.mark.parametrize("extra", [{}, FOLLOW], ids=["", "allow_redirects"])
def test_redirect_to_metadata(send: Send, monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any]) -> None:
    """A redirect to a metadata service is never followed, even if redirects are allowed."""
    NameService(monkeypatch, {"169.254.169.254": ["127.0.0.1"]})
    with serving([answer(body=b"credentials")]) as metadata:
        with serving(redirect(f"http://169.254.169.254:{metadata.port}/latest/")) as server:
            outcome = send(server.url, extra=extra)
    assert (outcome.acknowledged, outcome.status) == (False, 307)
    assert metadata.connections == 0


@fault(44, "a redirect from https to http", requests="fails")
@pytest.mark.parametrize("extra", [{}, FOLLOW], ids=["", "allow_redirects"])
def test_redirect_to_clear_text(send: Send, tmp_path: Path, extra: dict[str, Any]) -> None:
    """A redirect from https to http is never followed."""
    authority = Authority(tmp_path)
    with serving([answer()]) as clear:
        with serving(redirect(clear.url), tls=authority.server()) as server:
            outcome = send(server.url, extra={**extra, "verify": str(authority.file)})
    assert (outcome.acknowledged, outcome.status) == (False, 307)
    assert clear.connections == 0


# --- failures --------------------------------------------------------------------------------------------


@fault(45, "a 4xx", requests="passes")
@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 415, 422])
def test_4xx(send: Send, status: int) -> None:
    """A 4xx is no acknowledgement, and gets two more tries as Insightly's documentation says."""
    with serving([answer(f"{status} X")]) as server:
        outcome = send(server.url)
    assert (outcome.acknowledged, outcome.status) == (False, status)
    assert str(status) in (outcome.error or "")
    assert outcome.sent is not False
    assert not outcome.gone
    assert bodies(server) == [BODY]


@fault(46, "410, or a receiver that asks for no more", requests=None)
@pytest.mark.parametrize(
    ("status", "headers"), [("410 Gone", ()), ("422 X", ("webhook-delivery: abort-message",))]
)
def test_gone(send: Send, status: str, headers: tuple[str, ...]) -> None:
    """410 and Standard Webhooks' ``webhook-delivery: abort-message`` end the message's tries at once."""
    with serving([answer(status, *headers)]) as server:
        outcome = send(server.url)
    assert (outcome.acknowledged, outcome.gone, outcome.sent) == (False, True, True)
    assert bodies(server) == [BODY]


@fault(47, "408, 425, 429 or a 5xx", requests="passes")
@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_retried_statuses(send: Send, status: int) -> None:
    """They are no acknowledgement. The next try sends the message again, never the same try."""
    with serving([answer(f"{status} X", "Retry-After: 0")]) as server:
        outcome = send(server.url)
    assert (outcome.acknowledged, outcome.status) == (False, status)
    assert outcome.sent is not False
    assert not outcome.gone
    assert bodies(server) == [BODY]


# --- Retry-After -----------------------------------------------------------------------------------------


def delay(seconds: float | None) -> timedelta | None:
    """Return how long a task with a retry delay of 60 s waits if the receiver asks for these seconds."""
    task = SimpleNamespace(retry_delay=timedelta(seconds=60))
    report: Any = {"total": 1, "delivered": 0, "undelivered": []}
    context: Any = {"task": task}
    return RetryAfterPolicy().evaluate(UndeliveredError(report, seconds), 1, 3, context).retry_delay


@fault(48, "Retry-After in seconds", requests=None)
@pytest.mark.parametrize(
    ("asked", "waits"), [(0, 60), (7, 60), (90, 90), (3600, 3600), (86400, 3600), (99999999999, 3600)]
)
def test_seconds(send: Send, asked: int, waits: int) -> None:
    """The task waits for these seconds, at least its retry delay and at most an hour."""
    with serving([answer("429 Too Many Requests", f"Retry-After: {asked}")]) as server:
        outcome = send(server.url)
    assert outcome.retry_after == asked
    assert delay(outcome.retry_after) == timedelta(seconds=waits)


@fault(49, "Retry-After as a date", requests=None)
@pytest.mark.parametrize(
    ("ahead", "form"),
    [
        (120, "%a, %d %b %Y %H:%M:%S GMT"),
        (120, "%A, %d-%b-%y %H:%M:%S GMT"),
        (-3600, "%a, %d %b %Y %H:%M:%S GMT"),
    ],
    ids=["IMF-fixdate", "RFC 850", "past"],
)
def test_date(send: Send, ahead: int, form: str) -> None:
    """A date is compared with the sender's clock, not the receiver's. A past date means the retry delay."""
    date = (datetime.now(timezone.utc) + timedelta(seconds=ahead)).strftime(form)
    skewed = format_datetime(datetime.now(timezone.utc) + timedelta(days=1), usegmt=True)
    with serving([answer("503 X", f"Date: {skewed}", f"Retry-After: {date}")]) as server:
        outcome = send(server.url)
    assert outcome.retry_after is not None
    assert max(ahead, 0) - 5 < outcome.retry_after <= max(ahead, 0)
    assert delay(0) == timedelta(seconds=60)


@fault(50, "a Retry-After that can't be read", requests=None)
@pytest.mark.parametrize(
    "value",
    ["-5", "1e9", "1.5", "", "abc", "\xb2", "0x10", "1 2", "Fri, 99 Mar 2017 08:00:00 GMT", "9" * 5000],
)
def test_odd_retry_after(send: Send, value: str) -> None:
    """A value that is neither whole seconds nor a date is ignored. A huge number means an hour."""
    reply = b"HTTP/1.1 503 X\r\nRetry-After: " + value.encode("latin-1") + b"\r\nContent-Length: 0\r\n\r\n"
    with serving([reply]) as server:
        outcome = send(server.url)
    assert (outcome.acknowledged, outcome.status) == (False, 503)
    if value.startswith("9"):
        assert delay(outcome.retry_after) == timedelta(hours=1)
    else:
        assert outcome.retry_after is None
    assert bodies(server) == [BODY]


@fault(51, "two Retry-After headers", requests=None)
@pytest.mark.parametrize(
    ("values", "counts"), [(("9", "3"), 9), (("soon", "3"), 3), (("-1", "", "5", "7"), 5), (("a", "b"), None)]
)
def test_two_retry_after(send: Send, values: tuple[str, ...], counts: float | None) -> None:
    """The first value that can be read counts."""
    with serving([answer("503 X", *(f"Retry-After: {value}" for value in values))]) as server:
        assert send(server.url).retry_after == counts
    assert bodies(server) == [BODY]


# --- the body of a 2xx -----------------------------------------------------------------------------------


LOGIN_PAGE = b"<html><title>Log in</title>" + b" " * 20_000 + b'{"received": true}</html>'


@fault(52, "200 with a login page", requests="fails")
@pytest.mark.parametrize("page", [LOGIN_PAGE, b"", b'{"received": fals'], ids=["page", "empty", "error"])
def test_expected_body(send: Send, page: bytes) -> None:
    """With ``expect_body``, a 2xx without that text in the first 16 KiB of its body is no acknowledgement."""
    with serving([answer(body=page)]) as server:
        outcome = send(server.url, extra={"expect_body": '"received": true'})
    assert (outcome.acknowledged, outcome.status) == (False, 200)
    assert outcome.sent is not False
    assert "Log in" not in (outcome.error or "")
    assert bodies(server) == [BODY]


@fault(52, "200 with the text that is expected", requests="passes")
@pytest.mark.parametrize(
    "reply",
    [
        answer("201 Created", body='{"received": true, "by": "Zoë"}'.encode()),
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{"receiv\r\na\r\ned": true}\r\n0\r\n\r\n',
    ],
    ids=["whole", "in chunks"],
)
def test_expected_body_is_there(send: Send, reply: bytes) -> None:
    """The text may stand anywhere in the part that is read, even across chunks."""
    with serving([reply]) as server:
        assert send(server.url, extra={"expect_body": '"received": true'}).acknowledged
    assert bodies(server) == [BODY]


@fault(52, "200 with an error inside", requests="passes")
def test_any_2xx(send: Send) -> None:
    """By default every 2xx is an acknowledgement, whatever its body says."""
    with serving([answer(body=LOGIN_PAGE[:100])]) as server:
        assert send(server.url).acknowledged
    assert bodies(server) == [BODY]


# --- one receiver and the others -------------------------------------------------------------------------


@fault(53, "one receiver answers 429", requests=None)
def test_others_are_not_slowed(connect: Connect) -> None:
    """Each receiver has its own rate limit. A slow or busy receiver does not delay the others."""
    with serving([answer("429 X", "Retry-After: 60")]) as busy, serving([answer()]) as other:
        connect("busy", host=busy.url, extra={"requests_per_second": 2})
        connect("other", host=other.url)
        hooks = [WebhookHook("busy"), WebhookHook("other")]
        with ThreadPoolExecutor(8) as pool:
            throttled = [pool.submit(hooks[0].send, BODY, message_id=f"msg_{n}") for n in range(4)]
            started = time.monotonic()
            results = list(pool.map(lambda n: hooks[1].send(BODY, message_id=f"msg_{n}"), range(20)))
            elapsed = time.monotonic() - started
    assert elapsed < 1.4  # of the busy one, the fourth goes out after 1.5 s
    assert all(result.acknowledged for result in results)
    assert [future.result().retry_after for future in throttled] == [60] * 4
    assert (len(busy.requests), len(other.requests)) == (4, 20)
