"""Reading a response of HTTP/1.1: llhttp finds its parts, and what is odd about them is refused here."""

from __future__ import annotations

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

__all__ = ["BODY_LIMIT", "InvalidResponse", "ResponseReader"]

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

_START = b"HTTP/"
_FRAMING = {"content-length", "transfer-encoding"}


class InvalidResponse(Exception):
    """What came is no response of HTTP/1.1."""


class ResponseReader:
    """Takes what comes, and tells how far the response to one request is; interim ones are skipped.

    :ivar status: of the final response, once its head is whole; 0 until then.
    :ivar headers: its headers, names in lower case.
    :ivar body: what has come of its body, undecoded, ``BODY_LIMIT`` bytes at most.
    :ivar is_complete: whether all of it has come; whatever comes behind it is ignored.
    :ivar is_broken: whether the end of the body will not come, or can't be told.
    """

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        # What these let pass can't confuse one response with another, since the connection serves no other
        # request: control characters in a value; an interim response that says it is the last; lines that
        # end without CR (RFC 9112, 2.2).
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_keep_alive=True, lenient_optional_cr_before_lf=True
        )
        self._start = b""
        self._head_length = 0
        self._tail_length = 0
        self._lines: list[tuple[bytes, bytes]] = []
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.body = bytearray()
        self.is_complete = False
        self.is_broken = False

    @property
    def is_too_long(self) -> bool:
        """Whether its body is at least as long as what is kept of one, and not at its end."""
        return not self.is_complete and len(self.body) >= BODY_LIMIT

    def feed(self, data: bytes) -> None:
        """Take what has come; nothing at the connection's end.

        :raises InvalidResponse: if that can't be before a whole head.
        """
        self._check_start(data)
        try:
            if data:
                self._parser.feed_data(data)
            else:
                self._end()
        except (HttpParserError, HttpParserUpgrade, InvalidResponse):
            if not self.status:
                raise InvalidResponse from None
            self.is_broken = not self.is_complete
        if self.status:
            self._tail_length += len(data)
            self.is_broken = self.is_broken or (self._tail_length > TAIL_LIMIT and not self.is_complete)
        else:
            self._head_length += len(data)
            if self._head_length > HEAD_LIMIT:
                raise InvalidResponse

    def _check_start(self, data: bytes) -> None:
        """Refuse what begins as another protocol that llhttp knows, such as RTSP.

        :raises InvalidResponse: if what has come at first doesn't begin as HTTP does.
        """
        if len(self._start) < len(_START):
            self._start = (self._start + data).lstrip(b"\r\n")[: len(_START)]
            if not _START.startswith(self._start):
                raise InvalidResponse

    def _end(self) -> None:
        """Take account of the connection's end, which ends a body that doesn't tell where it ends."""
        if not self.status or any(name in _FRAMING for name, _ in self.headers):
            raise InvalidResponse
        self.is_complete = True

    # --- what the parser calls; an exception ends its work ----------------------------------------------

    def on_message_begin(self) -> None:
        """Begin anew: what came before was an interim response, if it wasn't the final one."""
        if self.is_complete:
            raise InvalidResponse
        self._lines = []
        self._head_length = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header line; of a trailer, behind a body, nothing."""
        if self.status:
            return
        self._lines.append((name.lower(), value.strip()))
        is_malformed = name != name.strip() or b"\0" in value
        if is_malformed or len(self._lines) > HEADERS_LIMIT or len(name) + len(value) > HEADER_LIMIT:
            raise InvalidResponse

    def on_headers_complete(self) -> None:
        """See what kind of response it is."""
        if self._parser.get_http_version() not in ("1.1", "1.0"):
            raise InvalidResponse
        status = self._parser.get_status_code()
        if status == 101 or status < 100:  # no protocol but this one is asked for
            raise InvalidResponse
        if status < 200:
            return
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._lines]
        if {name for name, _ in headers} >= _FRAMING:  # it tells where the body ends in two ways
            raise InvalidResponse
        self.status, self.headers = status, headers

    def on_body(self, data: bytes) -> None:
        """Keep so much of it as is asked for."""
        self.body += data[: BODY_LIMIT - len(self.body)]

    def on_message_complete(self) -> None:
        """Take no more, once the final response is whole."""
        self.is_complete = bool(self.status)
