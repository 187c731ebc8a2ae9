"""Faults 20 to 40: while the sender waits for the answer and reads it."""

from __future__ import annotations

import gzip
import socket
import time
import tracemalloc
from typing import Any

import pytest

from airflow_insightly_hooks.core.errors import UndeliveredError
from tests import deliveries
from tests.conftest import Connect, Logged, run_context
from tests.faults.conftest import BODY, MESSAGE_ID, Send, fault
from tests.servers import READ, RESET, answer, repeat, serving

TIMEOUT = 0.4
MORE = 0.5
"""Seconds that a busy machine may add."""
OK = b"HTTP/1.1 200 OK\r\n"
FAILED = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
KEPT_ALIVE = OK + b"Content-Length: 0\r\n\r\n"
"""A 200 of a server that doesn't heed ``Connection: close``."""


def in_time(elapsed: float) -> bool:
    return TIMEOUT * 0.9 <= elapsed < TIMEOUT + MORE


def deliver(context: dict[str, Any]) -> dict[str, Any]:
    return dict(deliveries.deliver(context, [deliveries.payload_of(MESSAGE_ID, 1, BODY)]))


# --- one deadline ----------------------------------------------------------------------------------------


@fault(20, "no answer", requests="passes")
def test_no_answer(send: Send) -> None:
    """The POST ends at the deadline, and whether the message has arrived is in doubt."""
    with serving([3]) as server:
        outcome = send(server.url, timeout=TIMEOUT)
    assert outcome.is_in_doubt()
    assert in_time(outcome.elapsed)
    assert outcome.error_has(f"no answer within {TIMEOUT:g} s", "timed out")
    assert len(server.requests) == 1


@fault(20, "no answer: retry")
def test_no_answer_is_retried(connect: Connect) -> None:
    """A POST without an answer counts as an attempt. The task's next try sends the same bytes and id."""
    context = run_context()
    with serving(lambda n: [3] if n == 0 else [answer()]) as server:
        connect("webhook_default", host=server.url, extra={"timeout": TIMEOUT})
        with pytest.raises(UndeliveredError) as caught:
            deliver(context)
        report = deliver(context)
    assert [item["attempts"] for item in caught.value.report["undelivered"]] == [1]
    assert (report["delivered"], report["attempts"]) == (1, 2)
    first, second = server.requests
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])


@fault(21, "headers come a byte at a time", requests="fails")
@pytest.mark.parametrize(
    "script",
    [
        [step for one in OK for step in (bytes([one]), 0.08)],
        [OK + b"X: ", *repeat(b"x", 0.1, 12)],
        [OK, *repeat(b"X: 1\r\n", 0.1, 12)],
    ],
    ids=["status line", "header", "headers"],
)
def test_dripping_headers(send: Send, script: list[Any]) -> None:
    """Headers that are not complete at the deadline are no answer, however slowly they come."""
    with serving(script) as server:
        outcome = send(server.url, timeout=TIMEOUT)
    assert outcome.is_in_doubt()
    assert in_time(outcome.elapsed)


@fault(22, "the body comes a byte at a time", requests="fails")
@pytest.mark.parametrize(
    ("status", "header", "piece"),
    [
        (200, b"Content-Length: 999", b"x"),
        (200, b"Transfer-Encoding: chunked", b"1\r\nx\r\n"),
        (500, b"X: 1", b"x"),
    ],
    ids=["length", "chunked", "until close"],
)
def test_dripping_body(send: Send, status: int, header: bytes, piece: bytes) -> None:
    """Reading the body ends at the deadline. The status, which was already read, decides."""
    head = f"HTTP/1.1 {status} X\r\n".encode() + header + b"\r\n\r\n"
    with serving([head, *repeat(piece, 0.1, 11)]) as server:
        outcome = send(server.url, timeout=TIMEOUT)
    assert (outcome.acknowledged, outcome.status) == (status == 200, status)
    assert in_time(outcome.elapsed)


@fault(23, "an endless body", requests="fails")
def test_endless_body(send: Send) -> None:
    """At most 16 KiB of a body are read, and then the connection is closed."""
    ended: list[float] = []

    def pour(connection: socket.socket) -> None:
        started = time.monotonic()
        try:
            while time.monotonic() - started < 0.9:
                connection.sendall(b"x" * 65536)
        except OSError:
            ended.append(time.monotonic() - started)

    with serving([OK + b"\r\n", pour]) as server:
        outcome = send(server.url, timeout=TIMEOUT)
    assert (outcome.acknowledged, outcome.status) == (True, 200)
    assert outcome.error_has("its answer was longer than 16384 bytes", "")
    assert outcome.elapsed < TIMEOUT
    assert ended, "the connection was not closed"


@fault(24, "100 Continue without end", requests="fails")
@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n"])
def test_endless_interim_answers(send: Send, interim: bytes) -> None:
    """The POST ends at the deadline. Interim answers acknowledge nothing."""
    with serving(repeat(interim, 0.05, 22)) as server:
        outcome = send(server.url, timeout=TIMEOUT)
    assert outcome.is_in_doubt()
    assert in_time(outcome.elapsed)


# --- interim answers -------------------------------------------------------------------------------------


@fault(25, "102 or 103, then the final answer", requests="fails")
@pytest.mark.parametrize("interim", ["102 Processing", "103 Early Hints"])
@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("pause", [0, 0.1], ids=["together", "apart"])
def test_interim_answers(send: Send, interim: str, status: int, pause: float) -> None:
    """Interim answers are skipped, and the final one decides."""
    first = f"HTTP/1.1 {interim}\r\nLink: </style.css>\r\n\r\n".encode() * 2
    with serving(
        [first, pause, answer(f"{status} X")] if pause else [first + answer(f"{status} X")]
    ) as server:
        outcome = send(server.url)
    assert (outcome.acknowledged, outcome.status) == (status == 200, status)
    assert len(server.requests) == 1


@fault(25, "100, then the final answer", requests="passes")
@pytest.mark.parametrize("status", [200, 500])
def test_continue(send: Send, status: int) -> None:
    """A 100 is skipped, though the sender didn't ask for it."""
    with serving([b"HTTP/1.1 100 Continue\r\n\r\n" + answer(f"{status} X")]) as server:
        outcome = send(server.url)
    assert (outcome.acknowledged, outcome.status) == (status == 200, status)


@fault(26, "101 Switching Protocols", requests="fails")
def test_switching_protocols(send: Send) -> None:
    """A switch to another protocol is a failure, and the connection is closed."""
    closed: list[bytes] = []
    upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
    with serving([upgrade, lambda connection: closed.append(connection.recv(1))]) as server:
        outcome = send(server.url)
    assert not outcome.acknowledged
    assert closed == [b""]


# --- bodies that break -----------------------------------------------------------------------------------


BROKEN = [
    [OK + b"Content-Length: 99\r\n\r\nabc"],
    [OK + b"Content-Length: 99\r\n\r\nabc", 0.05, RESET],
    [OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"],
    [OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n", 0.05, RESET],
    [OK + b"Transfer-Encoding: chunked\r\n\r\nno hex\r\n"],
]


@fault(27, "200 with a body that breaks off", requests="fails")
@pytest.mark.parametrize("script", BROKEN, ids=["cut", "reset", "cut chunk", "reset chunk", "no chunk"])
def test_broken_body(send: Send, script: list[Any]) -> None:
    """The message counts as delivered, with a note. The connection is closed."""
    with serving(script) as server:
        outcome = send(server.url)
    assert (outcome.acknowledged, outcome.status) == (True, 200)
    assert outcome.error_has("its answer broke off after the headers", "")
    assert len(server.requests) == 1


@fault(28, "204 or 304 with a body", requests="passes")
@pytest.mark.parametrize("status", [204, 304])
def test_body_where_none_can_be(send: Send, status: int) -> None:
    """The body is ignored, and is not taken for the answer to the next message."""
    odd = f"HTTP/1.1 {status} X\r\nContent-Length: {len(KEPT_ALIVE)}\r\n\r\n".encode() + KEPT_ALIVE
    with serving(lambda n: [odd, READ, FAILED] if n == 0 else [FAILED]) as server:
        first = send(server.url, session=True)
        second = send(server.url, session=True)
    assert first.status == status
    assert (second.acknowledged, second.status) == (False, 500)


@fault(28, "a 304 is no acknowledgement", requests="fails")
def test_not_modified(send: Send) -> None:
    """A 304 acknowledges nothing."""
    with serving([b"HTTP/1.1 304 Not Modified\r\n\r\nbody"]) as server:
        outcome = send(server.url)
    assert (outcome.acknowledged, outcome.status) == (False, 304)


def is_not_lost(send: Send, first_answer: bytes, late: bytes) -> None:
    """Assert that the server's 500 for the second message is reported for the second message.

    :param late: what the server still sends on the first message's connection, just before that 500.
    """
    with serving(lambda n: [first_answer, READ, late + FAILED] if n == 0 else [FAILED]) as server:
        first = send(server.url, session=True)
        second = send(server.url, session=True)
    assert first.status is not None
    assert len(server.requests) == 2
    assert (second.acknowledged, second.status) == (False, 500), "a lost message was not reported"


@fault(29, "surplus bytes after the body", requests="fails")
@pytest.mark.parametrize("status", [200, 202])
def test_surplus_bytes(send: Send, status: int) -> None:
    """Bytes after an answer's body are never taken for the answer to the next message."""
    is_not_lost(send, KEPT_ALIVE.replace(b"200", str(status).encode()), late=KEPT_ALIVE)


@fault(29, "surplus bytes right behind the body", requests="passes")
def test_surplus_bytes_at_once(send: Send) -> None:
    """Bytes that arrive together with an answer are never taken for the answer to the next message."""
    is_not_lost(send, KEPT_ALIVE + KEPT_ALIVE, late=b"")


@fault(30, "the late final answer after a 103", requests="fails")
def test_late_answer(send: Send) -> None:
    """The final answer after an interim one belongs to its own message, however late it comes."""
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
    with serving(lambda n: [early, 0.2, KEPT_ALIVE, READ, FAILED] if n == 0 else [FAILED]) as server:
        first = send(server.url, session=True)
        second = send(server.url, session=True)
    assert (first.acknowledged, first.status) == (True, 200)
    assert (second.acknowledged, second.status) == (False, 500)


@fault(30, "the final answer after a 103 comes after the deadline", requests="fails")
def test_answer_after_the_deadline(send: Send) -> None:
    """An answer that comes after the deadline is never taken for the answer to the next message."""
    early = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    with serving(lambda n: [early, READ, KEPT_ALIVE + FAILED] if n == 0 else [FAILED]) as server:
        first = send(server.url, session=True, timeout=TIMEOUT)
        second = send(server.url, session=True, timeout=TIMEOUT)
    assert first.is_in_doubt()
    assert (second.acknowledged, second.status) == (False, 500)


# --- answers that are not valid --------------------------------------------------------------------------


def is_no_answer(send: Send, reply: bytes) -> None:
    """Assert that a reply acknowledges nothing, and that the message's delivery is in doubt."""
    with serving([reply]) as server:
        outcome = send(server.url)
    assert outcome.is_in_doubt()
    assert outcome.error_has("protocol: the answer is not HTTP/1.1", "")
    assert (server.connections, len(server.requests)) == (1, 1)


@fault(31, "two lengths that differ", requests="passes")
@pytest.mark.parametrize("lengths", ["Content-Length: 5\r\nContent-Length: 7", "Content-Length: 5, 7"])
def test_two_lengths(send: Send, lengths: str) -> None:
    """An answer with two different lengths acknowledges nothing, and its connection is closed."""
    is_no_answer(send, OK + lengths.encode() + b"\r\n\r\nabcdefg")


@fault(31, "a negative length, or a length beside chunks", requests="fails")
@pytest.mark.parametrize(
    "headers",
    ["Content-Length: -5", "Content-Length: 5\r\nTransfer-Encoding: chunked", "Content-Length: five"],
)
def test_no_length(send: Send, headers: str) -> None:
    """An answer without a clear end acknowledges nothing, and its connection is closed."""
    is_no_answer(send, OK + headers.encode() + b"\r\n\r\n0\r\n\r\n")


@fault(32, "a malformed status line", requests="passes")
@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/2.0 200 OK",
        b"ICY 200 OK",
        b"HTTP 200 OK",
        b"HTTP/1.1 OK",
        b"HTTP/1.1 2OO OK",
        b"HTTP/1.1 20 OK",
        b"220 mail.example.com ESMTP",
        b"\x00\xff\xfe",
        b"",
    ],
)
def test_malformed_status_line(send: Send, line: bytes) -> None:
    """An answer that doesn't begin with a valid status line of HTTP/1.1 acknowledges nothing."""
    is_no_answer(send, line + b"\r\nContent-Length: 0\r\n\r\n")


@fault(32, "an answer that is cut in its headers", requests="fails")
@pytest.mark.parametrize(
    "reply", [b"HTTP/1.1 200", OK, OK + b"Content-Le", OK + b"Content-Length: 0\r\n"], ids=range(4)
)
def test_partial_headers(send: Send, reply: bytes) -> None:
    """An answer that ends before its headers do acknowledges nothing, even if it has a status."""
    is_no_answer(send, reply)


@fault(33, "status 000, 099", requests="passes")
@pytest.mark.parametrize("status", ["000", "099"])
def test_status_too_small(send: Send, status: str) -> None:
    """An answer with a status below 100 acknowledges nothing."""
    is_no_answer(send, f"HTTP/1.1 {status} OK\r\nContent-Length: 0\r\n\r\n".encode())


@fault(33, "status 600, 999", requests="fails")
@pytest.mark.parametrize("status", [600, 999])
def test_status_too_big(send: Send, status: int) -> None:
    """An answer with a status above 599 acknowledges nothing."""
    with serving([answer(f"{status} OK")]) as server:
        outcome = send(server.url)
    assert (outcome.acknowledged, outcome.status) == (False, status)


@fault(34, "too many headers, or too long ones", requests="passes")
@pytest.mark.parametrize(
    "headers",
    [b"X: 1\r\n" * 101, b"X: " + b"x" * 66_000 + b"\r\n", b"X: " + b"x" * 200_000 + b"\r\n"],
    ids=["101 headers", "66 kB", "200 kB"],
)
def test_too_many_headers(send: Send, headers: bytes) -> None:
    """An answer with more than 100 headers, or a header over 64 KiB, acknowledges nothing."""
    is_no_answer(send, OK + headers + b"Content-Length: 0\r\n\r\n")


@fault(35, "a bad header line before Retry-After", requests="passes")
@pytest.mark.parametrize("line", [b"no colon", b"Bad Name: 1", b": no name", b"X: \x00"])
def test_bad_header_line(send: Send, line: bytes) -> None:
    """If one header line is bad, no header counts. The task waits for its own retry delay."""
    headers = line + b"\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
    with serving([b"HTTP/1.1 503 Service Unavailable\r\n" + headers]) as server:
        outcome = send(server.url)
    assert (outcome.acknowledged, outcome.retry_after) == (False, None)
    assert len(server.requests) == 1


# --- what an answer holds --------------------------------------------------------------------------------


@fault(36, "a gzip bomb", requests="fails")
def test_gzip_bomb(send: Send) -> None:
    """A body is never decompressed, so it can't grow. The status alone counts."""
    bomb = gzip.compress(bytes(20_000_000), 9)
    with serving([answer("200 OK", "Content-Encoding: gzip", body=bomb)]) as server:
        send(server.url)  # loads what is loaded only once
        tracemalloc.start()
        try:
            outcome = send(server.url)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert outcome.acknowledged
    assert peak < 5_000_000


@fault(36, "a receiver that compresses answers on request")
def test_identity(send: Send) -> None:
    """The request asks for an answer without compression."""
    with serving([answer()]) as server:
        assert send(server.url).acknowledged
    assert server.requests[0].headers["accept-encoding"] == "identity"


@fault(37, "bad gzip, bad deflate", requests="fails")
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_bad_compression(send: Send, coding: str) -> None:
    """A 2xx counts even if its body can't be decompressed."""
    with serving([answer("200 OK", f"Content-Encoding: {coding}", body=b"\x1f\x8b\xff\xff\xff")]) as server:
        outcome = send(server.url)
    assert (outcome.acknowledged, outcome.status, outcome.error) == (True, 200, None)


@fault(37, "an unknown charset, a binary body", requests="passes")
@pytest.mark.parametrize("content_type", ["text/html; charset=no-such", "application/json", "x"])
def test_binary_body(send: Send, content_type: str) -> None:
    """A 2xx counts even if its body is not text."""
    with serving([answer("200 OK", f"Content-Type: {content_type}", body=bytes(range(256)))]) as server:
        outcome = send(server.url)
    assert (outcome.acknowledged, outcome.status, outcome.error) == (True, 200, None)


ODD = "\x1b[31mred\x1b[0m \x07 \x9b"


def odd_answer(status: int, words: str) -> bytes:
    """Return an answer that has these words wherever a receiver can put text."""
    text = words.encode("latin-1")
    head = b"HTTP/1.1 %d %s\r\nX-Words: %s\r\nContent-Length: %d\r\n\r\n" % (
        status,
        text,
        text,
        len(text) + 12,
    )
    return head + text + b"\nFAKE LINE\r\n"


@fault(38, "control characters and escapes in an answer", requests="fails")
@pytest.mark.parametrize("status", [400, 500])
def test_control_characters(send: Send, logged: Logged, status: int) -> None:
    """No control character of an answer gets into a log or a record."""
    with serving([odd_answer(status, ODD)]) as server:
        outcome = send(server.url)
    assert (outcome.acknowledged, outcome.status) == (False, status)
    assert (outcome.error or "").isprintable()
    assert "\x07" not in logged.text
    assert "red" not in logged.text.replace("redirect", "")


@fault(38, "control characters and escapes in an answer to a task")
def test_control_characters_in_a_task(connect: Connect, logged: Logged) -> None:
    """No control character of an answer gets into a task's log or its report."""
    context = run_context()
    with serving([odd_answer(500, ODD)]) as server:
        connect("webhook_default", host=server.url)
        with pytest.raises(UndeliveredError) as caught:
            deliver(context)
    (item,) = caught.value.report["undelivered"]
    assert (item["status"], (item["error"] or "").isprintable()) == (500, True)
    assert str(caught.value).isprintable()
    for text in ("\x07", "\x1b[31mred", "FAKE LINE"):
        assert text not in logged.text


SECRET = "dXNlcjpzZWNyZXQtd29yZC1vZi10aGUtdGVzdHM="


@fault(39, "the answer echoes Authorization or the message", requests="fails")
@pytest.mark.parametrize("status", [400, 500])
def test_echo(send: Send, logged: Logged, status: int) -> None:
    """If an answer repeats the credentials or the message, neither gets into a log or a record."""
    with serving([odd_answer(status, f"Basic {SECRET} {BODY}")]) as server:
        outcome = send(server.url, login="user", password="secret-word-of-the-tests")
    assert server.requests[0].headers["authorization"] == f"Basic {SECRET}"
    assert outcome.status == status
    for text in (SECRET, "TASK_ID"):
        assert text not in (outcome.error or "")
        assert text not in logged.text


@fault(39, "the answer to a task echoes Authorization or the message")
@pytest.mark.parametrize("status", [200, 500])
def test_echo_in_a_task(connect: Connect, logged: Logged, status: int) -> None:
    """If an answer repeats the credentials or the message, neither gets into a task's log or XCom."""
    context = run_context()
    with serving([odd_answer(status, f"Basic {SECRET} {BODY}")]) as server:
        connect("webhook_default", host=server.url, login="user", password="secret-word-of-the-tests")
        if status == 200:
            shown = repr(deliver(context))
        else:
            with pytest.raises(UndeliveredError) as caught:
                deliver(context)
            shown = f"{caught.value} {context['ti'].xcom}"
    for text in (SECRET, "TASK_ID"):
        assert text not in shown
        assert text not in logged.text


@fault(40, "a huge reason phrase", requests="fails")
def test_huge_reason(send: Send) -> None:
    """A long reason phrase is left out of the error, and the status counts."""
    with serving([answer("500 " + "x" * 60_000)]) as server:
        outcome = send(server.url)
    assert (outcome.acknowledged, outcome.status) == (False, 500)
    assert len(outcome.error or "") < 500


@fault(40, "a reason phrase that isn't ASCII, or isn't there", requests="passes")
@pytest.mark.parametrize("reason", [b" \xff\xfe\x80", b" Erreur r\xc3\xa9seau", b" ", b""])
@pytest.mark.parametrize("status", [200, 500])
def test_odd_reason(send: Send, status: int, reason: bytes) -> None:
    """The status counts, whatever the reason phrase holds."""
    with serving([b"HTTP/1.1 %d%s\r\nContent-Length: 0\r\n\r\n" % (status, reason)]) as server:
        outcome = send(server.url)
    assert (outcome.acknowledged, outcome.status) == (status == 200, status)
