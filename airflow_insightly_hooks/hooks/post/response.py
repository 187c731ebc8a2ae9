"""Reading a response of HTTP/1.1, sans I/O: a head of the form that RFC 9112 gives, then a body by llhttp."""

from __future__ import annotations

import re

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

_START = b"HTTP/1."
_STATUS_LINE = rb"HTTP/1\.[01] (?P<status>[1-9][0-9]{2})(?: [^\0\r\n]*)?\r?\n"
_HEADER_LINE = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\0\r\n]*\r?\n(?:[ \t][^\0\r\n]*\r?\n)*"
_HEAD = re.compile(rb"%s(?:%s)*\r?\n" % (_STATUS_LINE, _HEADER_LINE))
"""Other than by RFC 9112, values may hold control characters: they confuse nothing, and are never logged."""
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_FRAMING = {"content-length", "transfer-encoding"}


class InvalidResponse(Exception):
    """What came is no response of HTTP/1.1."""


class ResponseReader:
    """Takes what comes, and tells how far the response to one request is; interim ones are skipped.

    :ivar status: of the final response, once its head is whole; 0 until then.
    :ivar headers: its headers, names in lower case.
    :ivar is_broken: whether the end of the body will not come, or can't be told.
    """

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail_length = 0
        self._message = _Message()
        self._parser = HttpResponseParser(self._message)
        # What a head may hold is checked here; lines may end without CR (RFC 9112, 2.2).
        self._parser.set_dangerous_leniencies(lenient_headers=True, lenient_optional_cr_before_lf=True)
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.is_broken = False

    @property
    def body(self) -> bytes:
        """What has come of its body, undecoded, ``BODY_LIMIT`` bytes at most."""
        return bytes(self._message.body)

    @property
    def has_begun(self) -> bool:
        """Whether something of the final response has come (or of an interim one that isn't whole yet)."""
        return bool(self.status or self._head)

    @property
    def is_complete(self) -> bool:
        """Whether all of it has come; whatever comes behind it is ignored."""
        return self._message.is_complete

    @property
    def is_too_long(self) -> bool:
        """Whether its body is at least as long as what is kept of one, and not at its end."""
        return not self.is_complete and len(self._message.body) >= BODY_LIMIT

    def feed(self, data: bytes) -> None:
        """Take what has come; nothing at the connection's end.

        :raises InvalidResponse: if that can't be before a whole head.
        """
        if not self.status:
            data = self._take_heads(data)
        elif not data:
            self._end()
        if self.status and data:
            self._take_body(data)

    def _take_heads(self, data: bytes) -> bytes:
        """Take heads up to the final one; return what comes behind that."""
        if not data:
            raise InvalidResponse
        self._head += data
        searched = len(self._head) - len(data) - 3  # an end may have begun before
        while True:
            if self._head.startswith((b"\r", b"\n")):  # which are none of a head (RFC 9112, 2.2)
                self._head[:] = self._head.lstrip(b"\r\n")
            if not _START.startswith(self._head[: len(_START)]):
                raise InvalidResponse
            end = _HEAD_END.search(self._head, max(0, searched))
            if len(self._head) > HEAD_LIMIT and (end is None or end.end() > HEAD_LIMIT):
                raise InvalidResponse
            if end is None:
                return b""
            head, rest = bytes(self._head[: end.end()]), bytes(self._head[end.end() :])
            self._take_head(head)
            if self.status:
                self._head.clear()
                return rest
            self._head[:], searched = rest, 0

    def _take_head(self, head: bytes) -> None:
        match = _HEAD.fullmatch(head)
        status = int(match["status"]) if match is not None else 0
        if not status or status == 101:  # no other protocol was asked for
            raise InvalidResponse
        if status < 200:
            return
        self._parse(head)
        message = self._message
        names = {name for name, _ in message.headers}
        if self.is_broken or not message.has_head or names >= _FRAMING:  # two ways to tell where a body ends
            raise InvalidResponse
        self.status, self.headers = status, message.headers

    def _take_body(self, data: bytes) -> None:
        self._parse(data)
        self._tail_length += len(data)
        if self._tail_length > TAIL_LIMIT:
            self.is_broken = True
        self.is_broken = self.is_broken and not self.is_complete

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if error.__context__ is not None and not isinstance(error.__context__, InvalidResponse):
                raise error.__context__ from None  # what a signal's handler raised, such as a task's time-out
            self.is_broken = True

    def _end(self) -> None:
        """Take account of the connection's end, which ends a body that doesn't tell where it ends."""
        if any(name in _FRAMING for name, _ in self.headers):
            self.is_broken = not self.is_complete
        else:
            self._message.is_complete = True


class _Message:
    """What the parser tells of the final response. It knows no parser, so that there are no cycles."""

    def __init__(self) -> None:
        self.headers: list[tuple[str, str]] = []
        self.body = bytearray()
        self.has_head = False
        self.is_complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; of a trailer, behind a body, nothing."""
        if self.has_head:
            return
        if len(self.headers) == HEADERS_LIMIT or len(name) + len(value) > HEADER_LIMIT:
            raise InvalidResponse
        self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")))

    def on_headers_complete(self) -> None:
        """Take no more headers."""
        self.has_head = True

    def on_body(self, data: bytes) -> None:
        """Keep so much of it as is asked for."""
        if not self.is_complete:
            self.body += data[: BODY_LIMIT - len(self.body)]

    def on_message_complete(self) -> None:
        """Note that it is whole; what comes behind it is none of it."""
        self.is_complete = True
