"""What an answer is, however it comes in pieces; and what is none."""

from __future__ import annotations

import gc
import weakref
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_insightly_hooks.hooks.post import response
from airflow_insightly_hooks.hooks.post.response import (
    BODY_LIMIT,
    HEAD_LIMIT,
    TAIL_LIMIT,
    InvalidResponse,
    ResponseReader,
)

OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = b"Content-Length: 0\r\n\r\n"
END = b""
"""The connection's end."""


def read(*pieces: bytes) -> tuple[int, bytes, str]:
    """Return the status, the body, and how the answer ended."""
    reader = ResponseReader()
    for piece in pieces:
        reader.feed(piece)
    ended = "complete" if reader.is_complete else "broken" if reader.is_broken else "open"
    return reader.status, bytes(reader.body), ended


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
        ([OK + b"Content-Length: 2\r\n\r\nh"], (200, b"h", "open")),
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
        ([b"\r\n" + OK + EMPTY], (200, b"", "complete")),
        ([b"\n", OK + EMPTY], (200, b"", "complete")),
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
    """The final answer counts, with as much of its body as came, and nothing behind it."""
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
        *(
            [OK + b"Content-Length: " + length + b"\r\n\r\nhi"]
            for length in (b"-1", b"+2", b"0x2", b"", b"2, 2")
        ),
        [OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi"],
        [OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi"],
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
    """Another protocol, a head that isn't whole, or one that tells in no clear way where the body ends."""
    assert is_none(*pieces)


def test_headers() -> None:
    """Names are in lower case, values without the white space around them, empty ones included."""
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\n")
    reader.feed(OK + b"X-Empty:\r\nRetry-After:  5 \r\nX-Latin: \xe9\r\nContent-Length: 0\r\n\r\n")
    assert reader.headers == [
        ("x-empty", ""),
        ("retry-after", "5"),
        ("x-latin", "é"),
        ("content-length", "0"),
    ]


def test_endless_interim_answers_are_no_long_head() -> None:
    """What came before an interim answer's end counts no more for the limit of a head."""
    reader = ResponseReader()
    for _ in range(10_000):
        reader.feed(b"HTTP/1.1 102 Processing\r\n\r\n")
    assert reader.status == 0
    reader.feed(OK + EMPTY)
    assert reader.is_complete


def test_a_long_body_is_cut() -> None:
    """No more is kept than the limit, and one that is exactly as long is whole."""
    reader = ResponseReader()
    reader.feed(OK + b"Content-Length: %d\r\n\r\n" % (BODY_LIMIT + 1) + b"x" * BODY_LIMIT)
    assert (reader.is_too_long, reader.is_complete) == (True, False)
    reader.feed(b"x")
    assert (len(reader.body), reader.is_complete) == (BODY_LIMIT, True)
    exact = ResponseReader()
    exact.feed(OK + b"Content-Length: %d\r\n\r\n" % BODY_LIMIT + b"x" * BODY_LIMIT)
    assert (exact.is_too_long, exact.is_complete) == (False, True)


@pytest.mark.parametrize("tail", [b"2;" + b"x" * 1_000, b"0\r\nX: " + b"x" * 1_000])
def test_what_stands_around_a_body_has_an_end(tail: bytes) -> None:
    """A chunk's extension or a trailer that never ends is given up."""
    reader = ResponseReader()
    reader.feed(OK + b"Transfer-Encoding: chunked\r\n\r\n" + tail)
    fed = 0
    while not reader.is_broken:
        reader.feed(b"x" * 16_384)
        fed += 16_384
    assert fed <= TAIL_LIMIT + 16_384
    assert (reader.status, reader.is_complete) == (200, False)


def test_readers_are_no_cycles() -> None:
    """A reader goes when nobody has it any more: collecting a hundred thousand takes its time, or memory."""
    reader = ResponseReader()
    reader.feed(OK + EMPTY)
    message = weakref.ref(reader._message)
    gc.disable()
    try:
        del reader
        assert message() is None
    finally:
        gc.enable()


def test_a_time_out_of_the_task_is_none_of_the_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a signal's handler raises while a response is read is raised, and not taken for its fault."""

    class TimeOut(BaseException):
        pass

    def interrupted(*_: object) -> None:
        raise TimeOut

    monkeypatch.setattr(response._Message, "on_header", interrupted)
    with pytest.raises(TimeOut):
        ResponseReader().feed(OK + EMPTY)


ANSWERS = (
    OK + b"Content-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + b"HTTP/1.1 503 No\r\nRetry-After: 7\r\n" + EMPTY,
    OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    OK + b"X-Empty:\r\nX-Folded: one\r\n two\r\n\r\nuntil the end",
)


@given(st.sampled_from(ANSWERS), st.lists(st.integers(1, 200), max_size=8))
@example(ANSWERS[1], list(range(1, 150)))
def test_pieces_make_no_difference(answer: bytes, cuts: list[int]) -> None:
    """However an answer is cut into pieces, the same is read."""
    bounds = [0, *sorted({cut for cut in cuts if cut < len(answer)}), len(answer)]
    whole, pieced = ResponseReader(), ResponseReader()
    whole.feed(answer)
    for start, end in pairwise(bounds):
        pieced.feed(answer[start:end])
    for reader in (whole, pieced):
        reader.feed(END)
    for name in ("status", "headers", "body", "is_complete", "is_broken"):
        assert getattr(whole, name) == getattr(pieced, name)


@given(st.sampled_from((b"", OK, b"HTTP/1.1 ", *ANSWERS)), st.lists(st.binary(max_size=60), max_size=6))
def test_nonsense_is_no_answer(start: bytes, pieces: list[bytes]) -> None:
    """Whatever comes, what is read is an answer, or no answer is told of: nothing else is raised."""
    reader = ResponseReader()
    try:
        for piece in (start, *pieces):
            reader.feed(piece)
    except InvalidResponse:
        assert reader.status == 0
    else:
        assert reader.status == 0 or 200 <= reader.status <= 999
