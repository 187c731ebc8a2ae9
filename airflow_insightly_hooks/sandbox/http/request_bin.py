"""A request bin: it keeps the requests that are POSTed to it, and sends the configured response."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from airflow_insightly_hooks.sandbox.crm.error_answers import BadRequest
from airflow_insightly_hooks.sandbox.crm.value_checks import checked_integer, checked_number

__all__ = ["BinResponse", "ReceivedRequest", "RequestBin"]

MAX_REQUESTS = 10_000
MAX_KEPT = 256 * 2**20
"""How many characters of bodies a bin keeps in all. The oldest requests are dropped, but never the newest."""
OK = 200
UNAUTHORISED = 401
HEADER_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class ReceivedRequest:
    """A request that a bin has received.

    :param received_at: the time in UTC, in ISO 8601 with milliseconds.
    :param headers: the headers by their names in lower case, without those that hold credentials.
    :param body: the body's exact text.
    :param username: the user name of Basic authentication; ``None`` if the request had no credentials.
    :param acknowledged_with: the HTTP status of the response.
    """

    received_at: str
    headers: dict[str, str]
    body: str
    username: str | None
    acknowledged_with: int


@dataclass
class BinResponse:
    """How a bin answers.

    :param status: the HTTP status.
    :param times: how many POSTs get this response; later ones get 200. ``None`` for all.
    :param delay: seconds to wait before the response is sent.
    :param headers: headers of the response, such as ``Location`` or ``Retry-After``.
    :param match: only POSTs whose body contains this text get this response; others get 200 at once.
    :param username: the user name that Basic authentication must have. If both this and ``password`` are
        ``None``, a request needs no credentials.
    :param password: the password that it must have.
    """

    status: int = OK
    times: int | None = None
    delay: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    match: str = ""
    username: str | None = None
    password: str | None = None

    @classmethod
    def parse(cls, given: dict[str, Any]) -> BinResponse:
        """Return the response that a request's body describes.

        :raises BadRequest: if a key is unknown, or a value is of the wrong kind. The error names the key.
        """
        unknown = given.keys() - cls.__dataclass_fields__.keys()
        if unknown:
            raise BadRequest(f"A setting of a bin must be one of {', '.join(cls.__dataclass_fields__)}.")
        response = cls(**{name: value for name, value in given.items() if value is not None})
        response.status = checked_integer("status", response.status, 200, 599)
        response.delay = checked_number("delay", response.delay, 0, 3600)
        if response.times is not None:
            response.times = checked_integer("times", response.times)
        for name in ("match", "username", "password"):
            if not isinstance(getattr(response, name), (str, type(None))):
                raise BadRequest(f"{name} is not a text.")
        headers = response.headers
        if not isinstance(headers, dict) or not all(_is_header(*header) for header in headers.items()):
            raise BadRequest("headers must be an object of header names and ASCII texts.")
        return response

    def accepts(self, credentials: tuple[str, str] | None) -> bool:
        """Whether a request with these credentials is accepted."""
        if self.username is None and self.password is None:
            return True
        return credentials == (self.username or "", self.password or "")

    def response_to(self, body: str) -> BinResponse:
        """Return the response to a POST of ``body``, and count it towards ``times``."""
        if self.match not in body or self.times == 0:
            return BinResponse()
        if self.times is not None:
            self.times -= 1
        return self


class RequestBin:
    """Keeps the last requests, oldest first.

    :ivar requests: the requests.
    :ivar response: how the bin answers.
    """

    def __init__(self) -> None:
        self.requests: deque[ReceivedRequest] = deque()
        self.response = BinResponse()
        self._kept = 0  # characters of their bodies

    def receive(
        self, received_at: str, headers: dict[str, str], body: str, credentials: tuple[str, str] | None
    ) -> BinResponse:
        """Keep a request, and return the response to it."""
        if self.response.accepts(credentials):
            response = self.response.response_to(body)
        else:
            response = BinResponse(
                status=UNAUTHORISED, headers={"WWW-Authenticate": 'Basic realm="request bin"'}
            )
        username = credentials[0] if credentials else None
        if len(self.requests) == MAX_REQUESTS:
            self._drop_oldest()
        self.requests.append(ReceivedRequest(received_at, headers, body, username, response.status))
        self._kept += len(body)
        while self._kept > MAX_KEPT and len(self.requests) > 1:
            self._drop_oldest()
        return response

    def _drop_oldest(self) -> None:
        self._kept -= len(self.requests.popleft().body)


def _is_header(name: Any, value: Any) -> bool:
    """Whether a response may have this header. Only the server sets headers that frame the body."""
    if not isinstance(name, str) or not isinstance(value, str):
        return False
    framing = name.lower() in ("content-length", "content-type", "transfer-encoding", "connection")
    return bool(HEADER_NAME.fullmatch(name)) and not framing and value.isascii() and value.isprintable()
