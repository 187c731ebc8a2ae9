"""A request bin: it keeps what is POSTed to it, and answers as it is told to."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from airflow_insightly_hooks.sandbox.crm.api_errors import BadRequest
from airflow_insightly_hooks.sandbox.crm.value_checks import checked_integer, checked_number

__all__ = ["BinResponse", "ReceivedRequest", "RequestBin"]

MAX_REQUESTS = 10_000
OK = 200
UNAUTHORISED = 401
HEADER_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class ReceivedRequest:
    """A request that came.

    :param received_at: when, in ISO 8601, UTC, with milliseconds.
    :param headers: by name in lower case, without those that hold credentials.
    :param body: the body's exact text.
    :param username: from Basic authentication; ``None`` where there was none.
    :param acknowledged_with: the HTTP status that it was answered with.
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
    :param times: how many POSTs are answered so, the rest with 200; ``None`` for all.
    :param delay: seconds to wait before answering.
    :param headers: headers of the answer, such as ``Location`` or ``Retry-After``.
    :param match: answer so only the POSTs whose body contains this text, the rest with 200 at once.
    :param username: what Basic authentication must say; ``None`` asks for none.
    :param password: likewise.
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
        """Read it from a request's body.

        :raises BadRequest: naming the key that is unknown or of the wrong kind.
        """
        unknown = given.keys() - cls.__dataclass_fields__.keys()
        if unknown:
            raise BadRequest(f"A bin can be told {', '.join(cls.__dataclass_fields__)}, nothing else.")
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
            raise BadRequest("headers is not an object of headers, each an ASCII text.")
        return response

    def accepts(self, credentials: tuple[str, str] | None) -> bool:
        """Whether a request with these credentials may leave something here."""
        if self.username is None and self.password is None:
            return True
        return credentials == (self.username or "", self.password or "")

    def response_to(self, body: str) -> BinResponse:
        """Return the answer to a POST of ``body``; counts one time."""
        if self.match not in body or self.times == 0:
            return BinResponse()
        if self.times is not None:
            self.times -= 1
        return self


class RequestBin:
    """Keeps the last requests, oldest first."""

    def __init__(self) -> None:
        self.requests: deque[ReceivedRequest] = deque(maxlen=MAX_REQUESTS)
        self.response = BinResponse()

    def receive(
        self, received_at: str, headers: dict[str, str], body: str, credentials: tuple[str, str] | None
    ) -> BinResponse:
        """Keep a request, and return the answer to it."""
        if self.response.accepts(credentials):
            response = self.response.response_to(body)
        else:
            response = BinResponse(
                status=UNAUTHORISED, headers={"WWW-Authenticate": 'Basic realm="request bin"'}
            )
        username = credentials[0] if credentials else None
        self.requests.append(ReceivedRequest(received_at, headers, body, username, response.status))
        return response


def _is_header(name: Any, value: Any) -> bool:
    """Whether it may stand in an answer; those that frame the body are the server's own."""
    if not isinstance(name, str) or not isinstance(value, str):
        return False
    framing = name.lower() in ("content-length", "content-type", "transfer-encoding", "connection")
    return bool(HEADER_NAME.fullmatch(name)) and not framing and value.isascii() and value.isprintable()
