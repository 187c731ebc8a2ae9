"""Requests to Insightly's API: retries, waits, and the day's limit."""

from __future__ import annotations

import errno
import gzip
import os
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable
from datetime import datetime, timezone

import pytest

from airflow_insightly_hooks.core.errors import InvalidConnection
from airflow_insightly_hooks.hooks.api import answer_limits
from airflow_insightly_hooks.hooks.api.api_errors import (
    InsightlyAPIError,
    InsightlyRateLimitError,
    InsightlyUnreachable,
)
from airflow_insightly_hooks.hooks.api.client import Answer
from airflow_insightly_hooks.hooks.insightly import InsightlyHook
from airflow_insightly_hooks.hooks.process_registry import clear_process_registries
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.conftest import API_KEY, Connect, Logged
from tests.insightly import KEY, as_json, hook_for
from tests.network import NameService
from tests.servers import READ, RESET, answer, repeat, serving

pytestmark = pytest.mark.usefixtures("no_key_logged")

TOO_MANY = "429 Too Many Requests"
OUT_OF_SERVICE = "503 Service Unavailable"
NOON = datetime(2026, 7, 11, 12, tzinfo=timezone.utc)


def then_fine(*first: bytes) -> Callable[[int], list[bytes]]:
    """Return the script of a server that gives these answers first, and then a valid one."""
    return lambda n: [first[n] if n < len(first) else as_json({"CONTACT_ID": 1})]


@pytest.fixture
def noon(insightly: RunningSandbox) -> RunningSandbox:
    """Return the sandbox, with its clock at noon of a day."""
    insightly.configure(clock_offset=(NOON - datetime.now(timezone.utc)).total_seconds())
    return insightly


def requests_of(sandbox: RunningSandbox) -> int:
    return sum(sandbox.configure()["requests"].values())


# --- what an answer contains -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "total", "date"),
    [
        ([], None, None),
        (["X-Total-Count: 1234", "Date: Sat, 11 Jul 2026 12:00:00 GMT"], 1234, NOON),
        (["X-Total-Count: many", "Date: noon"], None, None),
        (["X-Total-Count: -1", "Date: Sat, 11 Jul 2026 14:00:00 +0200"], None, NOON),
    ],
)
def test_answer(connect: Connect, headers: list[str], total: int | None, date: datetime | None) -> None:
    """An answer has the JSON, the total number of records and the server's time, if it gives them."""
    with serving([as_json([7], "200 OK", *headers)]) as server:
        assert hook_for(connect, server)._get("/Contacts") == Answer([7], total, date)


# --- when there is no answer -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 504, 520])
def test_server_errors_are_asked_again(insightly: RunningSandbox, naps: list[float], status: int) -> None:
    """After a server error the request is repeated up to three times, quickly.

    Then the answer is read as usual.
    """
    insightly.configure(fault={"path": "/v3.1/Instance", "status": status, "times": 3})
    assert InsightlyHook().test_connection()[0]
    assert naps == [0.5, 1.0, 2.0]


def test_unreachable(insightly: RunningSandbox, naps: list[float]) -> None:
    """After three quick retries, the error names the host, the connection and the last status."""
    insightly.configure(fault={"path": "/v3.1/Instance", "status": 500})
    hook = InsightlyHook()
    with pytest.raises(InsightlyUnreachable, match="after three retries: it answered 500") as caught:
        hook.server_time()
    assert caught.value.status == 500
    assert caught.value.host == insightly.url.removeprefix("http://")
    assert hook.requests_made == 4


def test_quick_retries_are_jittered(insightly: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that fail together don't retry at the same time. A retry is never immediate."""
    delays: list[float] = []
    monkeypatch.setattr(
        "airflow_insightly_hooks.hooks.api.client.Client._wait",
        lambda _client, seconds: delays.append(seconds),
    )
    for _ in range(10):
        insightly.configure(fault={"path": "/v3.1/Instance", "status": 500, "times": 1})
        assert InsightlyHook().test_connection()[0]
    assert len(set(delays)) > 5
    assert all(0.25 <= delay <= 0.5 for delay in delays)


@pytest.mark.parametrize(
    "script",
    [
        [RESET],
        [],
        [0.7],
        [answer("200 OK", body=b'{"x": "0123456789"}')[:-5]],
        [answer("200 OK", body=b'{"x": "0123456789"}')[:-5], RESET],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{'x'"],
    ],
    ids=["reset", "closed", "silent", "cut", "cut by a reset", "cut in a chunk"],
)
def test_broken_connections_are_asked_again(
    connect: Connect, naps: list[float], script: list[object]
) -> None:
    """After a broken or silent connection, the request is repeated three times. Then the error is raised."""
    with (
        serving(script) as server,
        pytest.raises(InsightlyUnreachable, match="after three retries") as caught,
    ):
        hook_for(connect, server, timeout=0.2).get_record("Contacts", 1)
    assert caught.value.status is None
    assert len(server.requests) == 4
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "first",
    [[RESET], [answer(body=b'{"CONTACT_ID": 1')], [answer("200 OK", "Content-Encoding: gzip", body=b"no")]],
    ids=["reset", "cut, although of the length told", "undecodable"],
)
def test_recovers(connect: Connect, naps: list[float], first: list[object]) -> None:
    """One failure costs only its retry."""
    with serving(lambda n: first if n == 0 else [as_json({"CONTACT_ID": 1})]) as server:
        assert hook_for(connect, server).get_record("Contacts", 1) == {"CONTACT_ID": 1}
    assert naps == [0.5]


def test_refused_port(connect: Connect, naps: list[float]) -> None:
    """If nothing listens on a port, an error is raised after three retries."""
    with serving([]) as server:
        pass
    with pytest.raises(InsightlyUnreachable, match="connection refused") as caught:
        hook_for(connect, server).get_record("Contacts", 1)
    assert (caught.value.status, caught.value.reason) == (None, "connection refused")
    assert len(naps) == 3


def test_https_asked_of_an_http_server(connect: Connect, naps: list[float]) -> None:
    """The error says what is wrong with TLS."""
    with serving([answer()], reads=False) as server:
        connect("crm", "insightly", host=f"https://127.0.0.1:{server.port}/v3.1", password=KEY)
        with pytest.raises(InsightlyUnreachable, match="TLS: "):
            InsightlyHook("crm").get_record("Contacts", 1)


def test_unknown_host(connect: Connect, naps: list[float]) -> None:
    """If a host does not exist, the error mentions the pod. A name look-up may also fail temporarily."""
    connect("crm", "insightly", host="no-such-pod.invalid", password=KEY)
    with pytest.raises(InsightlyUnreachable, match="no such host; is the pod right") as caught:
        InsightlyHook("crm").get_record("Contacts", 1)
    assert caught.value.host == "no-such-pod.invalid"
    assert len(naps) == 3


def test_lack_of_file_descriptors_is_no_unknown_host(
    connect: Connect, naps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no file descriptor is left, the error of the look-up says so, and doesn't mention the pod."""

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    connect("crm", "insightly", host="na1", password=KEY)
    hook = InsightlyHook("crm")
    hook.get_conn()
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InsightlyUnreachable, match="this worker has no more file descriptors") as caught:
        hook.get_record("Contacts", 1)
    monkeypatch.undo()
    assert "pod" not in str(caught.value)


def test_dripping_answer_ends(connect: Connect, naps: list[float]) -> None:
    """Each read has its own time limit. A slow server is waited for, a silent one is not."""
    script = [b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n", *repeat(b"", 0.1, 1), b'{"CONTACT_ID":1}']
    with serving(script) as server:
        assert hook_for(connect, server, timeout=0.3).get_record("Contacts", 1) == {"CONTACT_ID": 1}


# --- 429 and 503 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [TOO_MANY, OUT_OF_SERVICE])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (["Retry-After: 3"], 3.0),
        (["Retry-After: 3", "X-RateLimit-Remaining: 0"], 3.0),
        (["Retry-After: 2"], 2.0),
        (["Retry-After: 0"], 0.1),
        (["Date: Sat, 11 Jul 2026 12:00:00 GMT", "Retry-After: Sat, 11 Jul 2026 12:00:40 GMT"], 40.0),
        (["Date: Sat, 11 Jul 2026 12:00:00 GMT", "Retry-After: Sat, 11 Jul 2026 11:00:00 GMT"], 0.1),
        (["X-RateLimit-Remaining: 17"], 1.0),
        (["Retry-After: -5"], 1.0),
        (["Retry-After: nan"], 1.0),
        (["Retry-After: soon"], 1.0),
    ],
)
def test_waits_as_told(
    connect: Connect, naps: list[float], status: str, headers: list[str], seconds: float
) -> None:
    """429 and 503 are waited out: as long as the answer asks, by the server's clock, or else a second."""
    with serving(then_fine(as_json({}, status, *headers))) as server:
        assert hook_for(connect, server).get_record("Contacts", 1) == {"CONTACT_ID": 1}
    assert naps == [seconds]


@pytest.mark.parametrize("status", [TOO_MANY, OUT_OF_SERVICE])
def test_backs_off(connect: Connect, naps: list[float], status: str) -> None:
    """If the answer doesn't say how long, each wait may be twice as long as the last, up to a minute."""
    with serving(then_fine(*[as_json({}, status)] * 8)) as server:
        hook = hook_for(connect, server)
        hook.patience = 300
        hook.get_record("Contacts", 1)
    assert naps == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize("status", [TOO_MANY, OUT_OF_SERVICE])
def test_what_is_told_is_the_least(connect: Connect, naps: list[float], status: str) -> None:
    """A server that always asks to wait 0 seconds isn't asked without end."""
    with serving(then_fine(*[as_json({}, status, "Retry-After: 0")] * 5)) as server:
        hook_for(connect, server).get_record("Contacts", 1)
    assert naps == [0.1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    ("status", "error"), [(TOO_MANY, InsightlyRateLimitError), (OUT_OF_SERVICE, InsightlyUnreachable)]
)
@pytest.mark.parametrize(
    ("retry_after", "requests", "slept"),
    [("50", 3, 100), ("120", 2, 120), ("121", 1, 0), ("99999", 1, 0), ("1000000000", 1, 0)],
)
def test_patience(
    connect: Connect,
    naps: list[float],
    status: str,
    error: type[InsightlyAPIError],
    retry_after: str,
    requests: int,
    slept: float,
) -> None:
    """A request has a limit for all its waits. If a wait would exceed it, the error is raised at once."""
    with serving([as_json({}, status, f"Retry-After: {retry_after}")]) as server:
        with pytest.raises(error) as caught:
            hook_for(connect, server).get_record("Contacts", 1)
    assert (len(server.requests), sum(naps)) == (requests, slept)
    assert type(caught.value) is error
    assert not getattr(caught.value, "day_is_spent", False)
    assert "for longer than the request may wait" in str(caught.value)


@pytest.mark.parametrize("status", [429, 503])
def test_no_patience(insightly: RunningSandbox, naps: list[float], status: int) -> None:
    """A hook with patience 0 doesn't wait after a 429 or 503."""
    insightly.configure(fault={"path": "/v3.1/Instance", "status": status, "retry_after": 1})
    hook = InsightlyHook()
    hook.patience = 0
    with pytest.raises(InsightlyAPIError):
        hook.server_time()
    assert hook.requests_made == 1
    assert naps == []


def test_longest_wait(connect: Connect, naps: list[float]) -> None:
    """No wait is longer than an hour, whatever the answer asks."""
    with serving(then_fine(as_json({}, OUT_OF_SERVICE, "Retry-After: 1000000000"))) as server:
        hook = hook_for(connect, server)
        hook.patience = 100_000
        hook.get_record("Contacts", 1)
    assert naps == [3600]


def test_a_429_holds_all_hooks(connect: Connect, naps: list[float]) -> None:
    """During the wait, other hooks of the same account don't ask either. Hooks of other accounts do."""
    with serving(
        lambda n: [as_json({}, TOO_MANY, "Retry-After: 30")] if n == 0 else [as_json({"CONTACT_ID": 1})]
    ) as server:
        first, second = hook_for(connect, server), hook_for(connect, server)
        first.patience = second.patience = 10
        for hook in (first, second):
            with pytest.raises(InsightlyRateLimitError):
                hook.get_record("Contacts", 1)
        assert (first.requests_made, second.requests_made) == (1, 0)
        second.patience = 120
        second.get_record("Contacts", 1)
        assert naps == [30]
        connect("other", "insightly", host=f"{server.url}/v3.1", password="another-key")
        InsightlyHook("other").get_record("Contacts", 1)
    assert naps == [30]


# --- requests per second ---------------------------------------------------------------------------------


def test_keeps_to_its_own_limit(connect: Connect) -> None:
    """All hooks and threads together make no more requests a second than the connection allows."""
    with serving([as_json({"CONTACT_ID": 1})]) as server:
        hooks = [hook_for(connect, server, requests_per_second=20) for _ in range(2)]
        asking = [threading.Thread(target=hook.get_record, args=("Contacts", 1)) for hook in hooks * 3]
        started = time.monotonic()
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
    assert time.monotonic() - started >= 0.25
    assert len(server.requests) == 6
    assert [hook.requests_made for hook in hooks] == [3, 3]


def test_the_latest_settings_hold(connect: Connect) -> None:
    """If two connections of one account have different limits, the one that was opened last counts."""
    with serving([as_json({"CONTACT_ID": 1})]) as server:
        slow = hook_for(connect, server, requests_per_second=0.01)
        slow.get_conn()
        fast = hook_for(connect, server)
        fast.get_conn()
        started = time.monotonic()
        for hook in (slow, fast, slow):
            hook.get_record("Contacts", 1)
    assert time.monotonic() - started < 30


# --- the day's requests ----------------------------------------------------------------------------------


def test_day_is_spent(noon: RunningSandbox, naps: list[float]) -> None:
    """After the refusal one call fails, and no hook of the process asks again before the named hour."""
    noon.configure(requests_per_day=1)
    InsightlyHook().server_time()
    for asked in (2, 2, 2):
        with pytest.raises(InsightlyRateLimitError, match="until 2026-07-12 00:00 UTC") as caught:
            InsightlyHook().get_record("Contacts", 1)
        assert (caught.value.day_is_spent, caught.value.status) == (True, 429)
        assert caught.value.resets_at == datetime(2026, 7, 12, tzinfo=timezone.utc)
        assert caught.value.share is None
        assert requests_of(noon) == asked
    assert naps == []


def test_asks_again_when_the_day_ends(insightly: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """From midnight UTC by the server's clock on, requests are made again."""
    before_midnight = datetime(2026, 7, 11, 23, 59, 59, tzinfo=timezone.utc)
    insightly.configure(
        requests_per_day=0, clock_offset=(before_midnight - datetime.now(timezone.utc)).total_seconds()
    )
    hook = InsightlyHook()
    with pytest.raises(InsightlyRateLimitError) as caught:
        hook.custom_fields("Contacts")
    assert caught.value.resets_at == datetime(2026, 7, 12, tzinfo=timezone.utc)
    insightly.configure(requests_per_day=100)
    deadline = time.monotonic() + 10
    while True:
        try:
            hook.custom_fields("Contacts")
            break
        except InsightlyRateLimitError:
            assert time.monotonic() < deadline, "it never asks again"
            time.sleep(0.05)
    assert hook.server_time() >= caught.value.resets_at
    assert hook.requests_made == 2


@pytest.mark.parametrize(
    "headers", [[], ["Retry-After: 43200"], ["Retry-After: Sun, 12 Jul 2026 00:00:00 GMT"]]
)
def test_nothing_remains(connect: Connect, naps: list[float], headers: list[str]) -> None:
    """A 429 with nothing remaining means the end of the day, unless it asks to wait for at most a minute."""
    refused = as_json(
        {}, TOO_MANY, "X-RateLimit-Remaining: 0", "Date: Sat, 11 Jul 2026 12:00:00 GMT", *headers
    )
    with serving([refused]) as server, pytest.raises(InsightlyRateLimitError) as caught:
        hook_for(connect, server).get_record("Contacts", 1)
    assert caught.value.day_is_spent
    assert len(server.requests) == 1


def test_nothing_remaining_is_no_refusal(connect: Connect) -> None:
    """Only a refusal by the API ends the day. A count of 0 in an answer doesn't."""
    with serving(
        [as_json({"CONTACT_ID": 1}, "200 OK", "X-RateLimit-Limit: 10", "X-RateLimit-Remaining: 0")]
    ) as server:
        hook = hook_for(connect, server)
        for _ in range(3):
            hook.get_record("Contacts", 1)
    assert len(server.requests) == 3


def share_of(sandbox: RunningSandbox, connect: Connect, requests_per_day: int) -> InsightlyHook:
    extra = {"requests_per_second": 10_000, "requests_per_day": requests_per_day}
    connect("share", "insightly", host=sandbox.api_url, password=API_KEY, extra=extra)
    return InsightlyHook("share")


def test_share(noon: RunningSandbox, connect: Connect) -> None:
    """When the account has made ``requests_per_day`` requests in any process, this connection stops."""
    noon.configure(requests_per_day=1000)
    others = InsightlyHook()
    for _ in range(3):
        others.custom_fields("Contacts")
    clear_process_registries()  # the others come from another process
    hook = share_of(noon, connect, 5)
    for _ in range(2):
        hook.custom_fields("Contacts")
    with pytest.raises(InsightlyRateLimitError, match=r"requests_per_day \(5\)") as caught:
        hook.custom_fields("Contacts")
    assert (caught.value.day_is_spent, caught.value.share) == (True, 5)
    assert caught.value.resets_at == datetime(2026, 7, 12, tzinfo=timezone.utc)
    assert requests_of(noon) == 5


def test_share_without_headers(connect: Connect) -> None:
    """Without counts from the API, the process's own requests are counted against the share."""
    with serving([as_json({"CONTACT_ID": 1})]) as server:
        for _ in range(3):
            hook_for(connect, server, requests_per_day=3).get_record("Contacts", 1)
        with pytest.raises(InsightlyRateLimitError, match="requests_per_day"):
            hook_for(connect, server, requests_per_day=3).get_record("Contacts", 1)
    assert len(server.requests) == 3


def test_few_left_is_warned_of_once(noon: RunningSandbox, logged: Logged) -> None:
    """When a fifth of the day is left, a warning gives the counts, once in a process and a day."""
    noon.configure(requests_per_day=10)
    for _ in range(10):
        InsightlyHook().custom_fields("Contacts")
    assert logged.messages("warning") == [
        "Connection 'insightly_default': 2 of 10 requests to Insightly are left until 2026-07-12 00:00 UTC"
    ]


def test_few_left_of_a_share(noon: RunningSandbox, connect: Connect, logged: Logged) -> None:
    """The last fifth of a share is warned of, however much the account has left."""
    for _ in range(5):
        share_of(noon, connect, 5).custom_fields("Contacts")
    (warning,) = logged.messages("warning")
    assert warning.startswith("Connection 'share': 1 of 5 requests to Insightly is left until")


def test_each_day_is_warned_of(connect: Connect, logged: Logged) -> None:
    """The next day it warns again. Nonsense in the headers causes no warning."""
    counts = ["X-RateLimit-Limit: 10", "X-RateLimit-Remaining: 1"]
    answers = [
        ["Date: Sat, 11 Jul 2026 12:00:00 GMT", "X-RateLimit-Limit: ten", "X-RateLimit-Remaining: -1"],
        ["Date: Sat, 11 Jul 2026 12:00:00 GMT", *counts],
        ["Date: Sat, 11 Jul 2026 23:00:00 GMT", *counts],
        ["Date: Sun, 12 Jul 2026 12:00:00 GMT", *counts],
    ]
    with serving(lambda n: [as_json({"CONTACT_ID": 1}, "200 OK", *answers[n])]) as server:
        for _ in answers:
            hook_for(connect, server).get_record("Contacts", 1)
    assert [warning[-20:] for warning in logged.messages("warning")] == [
        "2026-07-12 00:00 UTC",
        "2026-07-13 00:00 UTC",
    ]


@pytest.mark.parametrize(
    ("requests_per_day", "one", "two"),
    [(100_001, 15.0, 15.0), (1001, 86.4, 172.8), (101, 864.0, 1728.0), (2, 43_200.0, 43_200.0)],
)
def test_polls_are_spaced(noon: RunningSandbox, requests_per_day: int, one: float, two: float) -> None:
    """A poll interval is extended so that half of what is left lasts until midnight UTC."""
    noon.configure(requests_per_day=requests_per_day)
    hook = InsightlyHook()
    assert hook.spaced(15.0) == 15.0  # nothing is known yet
    hook.server_time()
    assert hook.spaced(15.0) == pytest.approx(one, rel=0.001)
    assert hook.spaced(15.0, requests=2) == pytest.approx(two, rel=0.001)


def test_polls_of_a_spent_day(noon: RunningSandbox) -> None:
    """After the day is spent, the next poll is when it ends."""
    noon.configure(requests_per_day=0)
    hook = InsightlyHook()
    with pytest.raises(InsightlyRateLimitError):
        hook.server_time()
    assert hook.spaced(15.0) == pytest.approx(12 * 3600, abs=30)


# --- what one answer may cost ----------------------------------------------------------------------------


def gzipped(size: int, *, layers: int = 1) -> bytes:
    """Return a gzip file of so many zeros, as JSON's white space."""
    body = b"[" + b" " * size + b"]"
    for _ in range(layers):
        body = gzip.compress(body)
    return body


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("chunked", [False, True])
def test_answer_that_explodes(connect: Connect, naps: list[float], layers: int, chunked: bool) -> None:
    """Of a small body that unpacks to a large one, max_answer_bytes are read, once, with little memory."""
    body = gzipped(200_000_000, layers=layers)
    assert len(body) < 250_000
    encoding = f"Content-Encoding: {', '.join(['gzip'] * layers)}"
    whole = answer("200 OK", encoding, body=body)
    if chunked:
        head = f"HTTP/1.1 200 OK\r\n{encoding}\r\nTransfer-Encoding: chunked\r\n\r\n"
        whole = head.encode() + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    with serving([whole]) as server:
        hook = hook_for(connect, server, max_answer_bytes=1_000_000, timeout=5)
        hook.get_conn()
        tracemalloc.start()
        try:
            with pytest.raises(InsightlyAPIError, match="at most 1000000 bytes") as caught:
                hook.custom_fields("Contacts")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 20_000_000
    assert caught.value.status == 200
    assert len(server.requests) == 1


def test_answer_without_an_end(connect: Connect, naps: list[float]) -> None:
    """Of an endless body without a length, max_answer_bytes are read."""
    with serving([b"HTTP/1.1 200 OK\r\n\r\n[", *repeat(b" " * 100_000, 0, 1_000)]) as server:
        with pytest.raises(InsightlyAPIError, match="max_answer_bytes"):
            hook_for(connect, server, max_answer_bytes=1_000_000).custom_fields("Contacts")
    assert len(server.requests) == 1


def test_largest_answer(connect: Connect) -> None:
    """A body of exactly the limit is read, packed or not, and the connection is kept."""
    body = b"[" + b" " * 99_998 + b"]"
    with serving([answer(body=body)]) as server:
        assert hook_for(connect, server, max_answer_bytes=100_000).custom_fields("Contacts") == []
        packed = answer("200 OK", "Content-Encoding: gzip", body=gzip.compress(body))
    with serving([packed]) as server:
        assert hook_for(connect, server, max_answer_bytes=100_000).custom_fields("Contacts") == []


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX-Filler: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2710\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
    ids=["status line", "header", "body", "chunk", "body without a length"],
)
def test_answer_by_single_bytes(connect: Connect, naps: list[float], start: bytes) -> None:
    """An answer that comes byte by byte ends after answer_timeout, although each read is fast."""
    with serving([start, *repeat(b"H", 0.05, 100)]) as server:
        hook = hook_for(connect, server, answer_timeout=0.4, timeout=2)
        started = time.monotonic()
        with pytest.raises(InsightlyAPIError, match=r"within 0\.4 s \(answer_timeout\)") as caught:
            hook.custom_fields("Contacts")
        assert 0.35 < time.monotonic() - started < 1.5
    assert type(caught.value) is InsightlyAPIError
    assert len(server.requests) == 1


def test_connections_are_kept(connect: Connect) -> None:
    """A complete answer leaves its connection for the next request, with the original time limit."""
    again = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
    with serving([again, READ, again, READ, 0.4, again]) as server:
        hook = hook_for(connect, server, answer_timeout=0.6, timeout=5)
        for _ in range(3):
            assert hook.custom_fields("Contacts") == []
            time.sleep(0.3)
    assert (server.connections, len(server.requests)) == (1, 3)


def test_name_of_a_metadata_address(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, naps: list[float]
) -> None:
    """A name that leads to a cloud's metadata service is an error that says so. Nothing is sent to it."""
    with serving([as_json([])]) as server:
        NameService(monkeypatch, {"metadata.example.com": ["127.0.0.1"]})
        monkeypatch.setattr(answer_limits, "why_not_sent_to", lambda address: f"{address} is metadata's")
        host = f"http://metadata.example.com:{server.port}/v3.1"
        connect("crm", "insightly", host=host, password=KEY, extra={"allow_insecure_http": True})
        with pytest.raises(InvalidConnection, match=r"127\.0\.0\.1 is metadata's") as caught:
            InsightlyHook("crm").custom_fields("Contacts")
        assert caught.value.field == "host"
    assert server.requests == []


def test_date_of_the_last_year(connect: Connect) -> None:
    """A Date that no clock can show counts as missing."""
    never = "Date: Fri, 31 Dec 9999 23:59:59 GMT"
    with serving([as_json({}, "200 OK", never)]) as server:
        hook = hook_for(connect, server)
        with pytest.raises(InsightlyAPIError, match="a Date header was expected"):
            hook.server_time()
        assert hook.spaced(60) == 60
