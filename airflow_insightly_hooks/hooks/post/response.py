"""Read a response with h11: check its head, and limit its size."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import h11
import httpcore

from airflow_insightly_hooks.hooks.post.deadline import DeadlineExceeded

__all__ = ["BODY_LIMIT", "Head", "InvalidResponse", "Response", "new_client", "read_body", "take_head"]

BODY_LIMIT = 16 * 1024
"""The most bytes of a response's body that are kept."""
HEADERS_LIMIT = 100
"""The most header lines of a response, as in Python's own client."""
HEADER_LIMIT = 64 * 1024
"""The most bytes of one header line."""
HEAD_LIMIT = 100 * 1024
"""The most bytes of the head of an interim or final response."""
TAIL_LIMIT = 4 * BODY_LIMIT
"""The most bytes that are read after a head. They are more than a body: it may have chunks and a trailer."""

_START = b"HTTP/1."
_VERSIONS = (b"1.0", b"1.1")
_FRAMING = {"content-length", "transfer-encoding"}


class InvalidResponse(Exception):
    """The received bytes are not a response of HTTP/1.1."""


@dataclass(frozen=True)
class Head:
    """The head of a final response: its status, and its headers as pairs of lower-case name and value."""

    status: int
    headers: list[tuple[str, str]]


@dataclass(frozen=True)
class Response(Head):
    """A final response.

    :param note: a note if the body was too long or incomplete; otherwise ``None``.
    :param body: the part of the body that was read, not decoded, with at most ``BODY_LIMIT`` bytes.
    :param is_early: whether it began before the request was completely sent.
    """

    note: str | None = None
    body: bytes = field(default=b"", repr=False)
    is_early: bool = False


def new_client() -> h11.Connection:
    """Return h11's state of a new connection."""
    return h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)


def take_head(http: h11.Connection) -> Head | None:
    """Return the head of the final response from the received bytes, and skip interim responses.

    :returns: the head; ``None`` if it isn't complete yet.
    :raises InvalidResponse: if the bytes are not a response, or the response asks for another protocol.
    """
    while (event := _next_event(http)) is not h11.NEED_DATA:
        if isinstance(event, h11.Response):
            return _checked(event)
        if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
            raise InvalidResponse
    # h11 waits for the end of the head. Another protocol's greeting never has one, so check its beginning.
    if not _START.startswith(http.trailing_data[0][: len(_START)]):
        raise InvalidResponse
    return None


def read_body(http: h11.Connection, read: Callable[[], bytes]) -> tuple[bytes, str | None]:
    """Read the beginning of the body, so that a receiver that is still writing isn't cut off.

    :param read: waits for bytes and returns them; returns no bytes at the end.
    :returns: the bytes of the body, and a note if they aren't all of it.
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
    return bytes(body), "its answer broke off after the headers"


def _next_event(http: h11.Connection) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
    try:
        return http.next_event()
    except h11.RemoteProtocolError:
        raise InvalidResponse from None


def _checked(head: h11.Response) -> Head:
    """Return a head's status and headers.

    :raises InvalidResponse: if it is too long, has another version, or leaves the body's end unclear.
    """
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
    is_too_long = len(headers) > HEADERS_LIMIT or any(len(n) + len(v) > HEADER_LIMIT for n, v in headers)
    if is_too_long or head.http_version not in _VERSIONS or {name for name, _ in headers} >= _FRAMING:
        raise InvalidResponse
    return Head(head.status_code, headers)
