"""Which responses are valid, in whatever pieces they come, and which are refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import h11
import httpcore
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_insightly_hooks.hooks.post.response import (
    BODY_LIMIT,
    HEAD_LIMIT,
    TAIL_LIMIT,
    Head,
    InvalidResponse,
    new_client,
    read_body,
    take_head,
)

OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = b"Content-Length: 0\r\n\r\n"
END = b""
"""The end of the connection."""


def asked() -> h11.Connection:
    """Return a connection on which a request was sent."""
    http = new_client()
    http.send(h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
    http.send(h11.EndOfMessage())
    return http


def read_all(*pieces: bytes) -> tuple[Head, bytes, str | None, int]:
    """Return the head, the body, the note of it, and how many bytes were read.

    :raises AssertionError: if the pieces end before the head does.
    """
    http, length = asked(), 0
    coming = iter(pieces)

    def read() -> bytes:
        nonlocal length
        try:
            piece = next(coming)
        except StopIteration:
            raise httpcore.ReadTimeout from None
        length += len(piece)
        return piece

    head = None
    while head is None:
        http.receive_data(read())
        head = take_head(http)
    return head, *read_body(http, read), length


def read(*pieces: bytes) -> tuple[int, bytes, str]:
    """Return the status, the body, and how the response ended."""
    head, body, note, _ = read_all(*pieces)
    return head.status, body, "complete" if note is None else "broken"


def is_none(*pieces: bytes) -> bool:
    try:
        read(*pieces)
    except InvalidResponse:
        return True
    return False


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([OK + b"Content-Length: 2\r\n\r\nhi"], (200, b"hi", "complete")),
        ([OK + b"Content-Length: 2\r\n\r\nh"], (200, b"h", "broken")),
        ([OK + b"Content-Length: 2\r\n\r\nh", END], (200, b"h", "broken")),
        ([OK + b"\r\nhi", END], (200, b"hi", "complete")),
        ([b"HTTP/1.0 500 No\r\n\r\nhi", END], (500, b"hi", "complete")),
        ([b"HTTP/1.1 204 None\r\nContent-Length: 2\r\n\r\nhi"], (204, b"", "complete")),
        ([b"HTTP/1.1 200\r\n" + EMPTY], (200, b"", "complete")),
        ([b"HTTP/1.1 999 Odd\r\n" + EMPTY], (999, b"", "complete")),
        ([OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX: 1\r\n\r\n"], (200, b"hi", "complete")),
        ([OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nzz\r\n"], (200, b"hi", "broken")),
        ([OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", END], (200, b"hi", "broken")),
        ([b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi"], (200, b"hi", "complete")),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 500 No\r\n" + EMPTY], (500, b"", "complete")),
        ([b"HTTP/1.1 103 Hints\r\nConnection: close\r\n\r\n", OK + EMPTY], (200, b"", "complete")),
        ([b"HTTP/1.0 100 Continue\r\n\r\n", OK + EMPTY], (200, b"", "complete")),
        ([OK + EMPTY, b"HTTP/1.1 500 No\r\n" + EMPTY], (200, b"", "complete")),
        ([OK + EMPTY + b"HTTP/1.1 500 No\r\n" + EMPTY], (200, b"", "complete")),
        ([OK + b"X: \x1b[31m\x07\r\n" + EMPTY], (200, b"", "complete")),
        ([OK + b"Upgrade: h2c\r\nConnection: Upgrade\r\n" + EMPTY], (200, b"", "complete")),
    ],
)
def test_answers(pieces: list[bytes], expected: tuple[int, bytes, str]) -> None:
    """The final response counts, with as much of its body as came, and nothing after it."""
    assert read(*pieces) == expected


@pytest.mark.parametrize(
    "pieces",
    [
        [END],
        [OK, END],
        [b"HTTP/1.1 100 Continue\r\n\r\n", END],
        [b"HTTP/1.1 101 Switching\r\n\r\n"],
        [b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"],
        *([b"HTTP/1.1 " + status + b" X\r\n" + EMPTY] for status in (b"099", b"000", b"20", b"2000", b"2x0")),
        *(
            [version + b" 200 OK\r\n" + EMPTY]
            for version in (b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.2", b"http/1.1")
        ),
        [b"RTSP/1.0 200 OK\r\n" + EMPTY],
        [b"\r\n", b"R", b"TSP/1.0 200 OK\r\n" + EMPTY],
        [b"ICY 200 OK\r\n\r\n"],
        [b"HTTP/1.1 100 Continue\r\n\r\nRTSP/1.0 200 OK\r\n" + EMPTY],
        [OK + b" \r\n", END],
        [OK + b" X: folded onto nothing\r\n" + EMPTY],
        [b"HTTP/1.1 200 O\0K\r\n" + EMPTY],
        [b"HTTP/1.1 200 O\rK\r\n" + EMPTY],
        [b"SSH-2.0-OpenSSH_9.6\r\n"],
        *([OK + b"Content-Length: " + length + b"\r\n\r\nhi"] for length in (b"-1", b"+2", b"0x2", b"")),
        [OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi"],
        [OK + b"Content-Length : 2\r\n\r\nhi"],
        [OK + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n"],
        [OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
        [OK + b"no colon\r\n" + EMPTY],
        [OK + b"X: a\0b\r\n" + EMPTY],
        [OK + b"X: a\rb\r\n" + EMPTY],
        [OK + b"X: 1\r\n" * 101 + EMPTY],
        [OK + b"X: " + b"x" * 65_537 + b"\r\n" + EMPTY],
        [OK + b"X: ", *[b"x" * 1_000] * (HEAD_LIMIT // 1_000 + 1)],
    ],
)
def test_what_is_no_answer(pieces: list[bytes]) -> None:
    """Refused: another protocol, an incomplete head, and a head that leaves the body's end unclear."""
    assert is_none(*pieces)


def test_headers() -> None:
    """Names are in lower case. Values have no white space around them, and may be empty."""
    head, *_ = read_all(
        b"HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\n",
        OK + b"X-Empty:\r\nRetry-After:  5 \r\nX-Latin: \xe9\r\nContent-Length: 0\r\n\r\n",
    )
    assert head.headers == [
        ("x-empty", ""),
        ("retry-after", "5"),
        ("x-latin", "é"),
        ("content-length", "0"),
    ]


def test_endless_interim_answers_are_no_long_head() -> None:
    """Bytes before the end of an interim response don't count for the limit of a head."""
    assert read(*[b"HTTP/1.1 102 Processing\r\n\r\n"] * 10_000, OK + EMPTY) == (200, b"", "complete")


def test_a_long_body_is_cut() -> None:
    """No more than the limit is kept. A body of exactly the limit is complete."""
    _, body, note, length = read_all(
        OK + b"Content-Length: %d\r\n\r\n" % (10 * BODY_LIMIT), *[b"x" * 1_024] * 160
    )
    assert (len(body), note) == (BODY_LIMIT, f"its answer was longer than {BODY_LIMIT} bytes")
    assert length < BODY_LIMIT + 2_048
    _, body, note, _ = read_all(OK + b"Content-Length: %d\r\n\r\n" % BODY_LIMIT + b"x" * BODY_LIMIT)
    assert (len(body), note) == (BODY_LIMIT, None)


@pytest.mark.parametrize("tail", [b"2;" + b"x" * 1_000, b"0\r\nX: " + b"x" * 1_000])
def test_what_stands_around_a_body_has_an_end(tail: bytes) -> None:
    """An endless chunk extension or trailer is given up."""
    pieces = [OK + b"Transfer-Encoding: chunked\r\n\r\n" + tail, *[b"x" * 1_024] * 1_000]
    head, _, note, length = read_all(*pieces)
    assert (head.status, note) == (200, "its answer broke off after the headers")
    assert length <= TAIL_LIMIT + 4_096


ANSWERS = (
    OK + b"Content-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + b"HTTP/1.1 503 No\r\nRetry-After: 7\r\n" + EMPTY,
    OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    OK + b"X-Empty:\r\nX-Folded: one\r\n two\r\n\r\nuntil the end",
)


@given(st.sampled_from(ANSWERS), st.lists(st.integers(1, 200), max_size=8))
@example(ANSWERS[1], list(range(1, 150)))
def test_pieces_make_no_difference(answer: bytes, cuts: list[int]) -> None:
    """However a response is cut into pieces, the result is the same."""
    bounds = [0, *sorted({cut for cut in cuts if cut < len(answer)}), len(answer)]
    pieces = [answer[start:end] for start, end in pairwise(bounds)]
    assert read_all(*pieces, END)[:3] == read_all(answer, END)[:3]


@given(st.sampled_from((b"", OK, b"HTTP/1.1 ", *ANSWERS)), st.lists(st.binary(max_size=60), max_size=6))
def test_nonsense_is_no_answer(start: bytes, pieces: list[bytes]) -> None:
    """Any bytes give a response, or the error that there is none. No other error is raised."""
    outcome: Any = None
    try:
        outcome = read_all(start, *pieces)
    except (InvalidResponse, httpcore.ReadTimeout):
        return
    assert 200 <= outcome[0].status <= 999
