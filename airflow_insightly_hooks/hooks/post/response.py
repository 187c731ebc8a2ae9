"""Reading a response with h11: which ones are taken, and how much of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import h11
import httpcore

from airflow_insightly_hooks.hooks.post.deadline import DeadlineExceeded

__all__ = ["BODY_LIMIT", "Head", "InvalidResponse", "Response", "new_client", "read_body", "take_head"]

BODY_LIMIT = 16 * 1024
"""Bytes of a response's body that are kept at most."""
HEADERS_LIMIT = 100
"""Header lines that a response has at most, as with Python's own client."""
HEADER_LIMIT = 64 * 1024
"""Bytes that one of them has at most."""
HEAD_LIMIT = 100 * 1024
"""Bytes that the head of a response has at most, be it interim or final."""
TAIL_LIMIT = 4 * BODY_LIMIT
"""Bytes that are taken behind a head at most: a body may be wrapped into chunks, and have a trailer."""

_START = b"HTTP/1."
_VERSIONS = (b"1.0", b"1.1")
_FRAMING = {"content-length", "transfer-encoding"}


class InvalidResponse(Exception):
    """What came is no response of HTTP/1.1."""


@dataclass(frozen=True)
class Head:
    """The head of a final response: its status, and its headers by lower-cased name."""

    status: int
    headers: list[tuple[str, str]]


@dataclass(frozen=True)
class Response(Head):
    """A final response.

    :param note: a note where its body was odd.
    :param body: what was read of the body, undecoded, ``BODY_LIMIT`` bytes at most.
    :param is_early: whether it began before the request was completely sent.
    """

    note: str | None = None
    body: bytes = field(default=b"", repr=False)
    is_early: bool = False


def new_client() -> h11.Connection:
    """Return h11's view of a connection on which nothing has happened yet."""
    return h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)


def take_head(http: h11.Connection) -> Head | None:
    """Take the head of the final response out of what has come; interim ones before it are skipped.

    :returns: ``None`` while it isn't whole.
    :raises InvalidResponse: if what has come is no response, or asks for another protocol.
    """
    while (event := _next_event(http)) is not h11.NEED_DATA:
        if isinstance(event, h11.Response):
            return _checked(event)
        if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
            raise InvalidResponse
    # h11 waits for the end of the head, which another protocol's greeting never has.
    if not _START.startswith(http.trailing_data[0][: len(_START)]):
        raise InvalidResponse
    return None


def read_body(http: h11.Connection, read: Callable[[], bytes]) -> tuple[bytes, str | None]:
    """Read a little of the body, so that a receiver that is writing isn't cut off.

    :param read: returns what has come, once something has; nothing at the end.
    :returns: what was read, and a note where it isn't all.
    """
    body = bytearray()
    taken = 0
    with suppress(httpcore.NetworkError, httpcore.TimeoutException, DeadlineExceeded, InvalidResponse):
        while not isinstance(event := _next_event(http), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                body += event.data[: BODY_LIMIT - len(body)]
                continue
            if len(body) == BODY_LIMIT:
                return bytes(body), f"its answer was longer than {BODY_LIMIT} bytes"
            if event is not h11.NEED_DATA or taken > TAIL_LIMIT:
                raise InvalidResponse
            data = read()
            taken += len(data)
            http.receive_data(data)
        return bytes(body), None
    return bytes(body), "its answer broke off behind the headers"


def _next_event(http: h11.Connection) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
    try:
        return http.next_event()
    except h11.RemoteProtocolError:
        raise InvalidResponse from None


def _checked(head: h11.Response) -> Head:
    """Return a head that tells clearly where its body ends, and isn't too long."""
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
    is_too_long = len(headers) > HEADERS_LIMIT or any(len(n) + len(v) > HEADER_LIMIT for n, v in headers)
    if is_too_long or head.http_version not in _VERSIONS or {name for name, _ in headers} >= _FRAMING:
        raise InvalidResponse
    return Head(head.status_code, headers)
