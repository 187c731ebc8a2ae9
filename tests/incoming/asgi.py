"""Requests to an ASGI application, as a server passes them on, without a socket."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Message

__all__ = ["LOGIN", "PASSWORD", "Answer", "ask", "asked", "basic"]

Headers = Iterable[tuple[str, str | bytes]]

LOGIN, PASSWORD = "insightly", "correct horse"


@dataclass(frozen=True)
class Answer:
    """An answer.

    :ivar read: how many parts of the body the application has read.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    read: int

    @property
    def detail(self) -> str:
        detail: str = json.loads(self.body)["detail"]
        return detail


def basic(login: str = LOGIN, password: str = PASSWORD, charset: str = "utf-8") -> tuple[str, str]:
    """Return the header of Basic authentication."""
    return "Authorization", f"Basic {base64.b64encode(f'{login}:{password}'.encode(charset)).decode()}"


async def ask(
    app: ASGIApp,
    path: str,
    body: bytes | Sequence[bytes] = b"",
    headers: Headers = (),
    *,
    method: str = "POST",
    pause: float = 0.0,
    breaks_off: bool = False,
) -> Answer:
    """Send a request.

    :param path: as in the request line, with the query.
    :param body: in one part or several.
    :param pause: seconds before each part.
    :param breaks_off: whether the sender goes away before the last part.
    """
    parts = [body] if isinstance(body, bytes) else list(body)
    raw_path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote_to_bytes(raw_path).decode(errors="replace"),
        "raw_path": raw_path.encode(errors="replace"),
        "query_string": query.encode("latin-1", "replace"),
        "root_path": "",
        "headers": [
            (name.lower().encode("latin-1"), value if isinstance(value, bytes) else value.encode("latin-1"))
            for name, value in headers
        ],
        "client": ("192.0.2.1", 4242),
        "server": ("192.0.2.2", 8080),
        "state": {},
    }
    read = 0
    sent: list[Message] = []

    async def receive() -> Message:
        nonlocal read
        await asyncio.sleep(pause)
        if read == len(parts):
            return {"type": "http.disconnect"}
        read += 1
        if breaks_off and read == len(parts):
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": parts[read - 1], "more_body": read < len(parts)}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *chunks = sent
    return Answer(
        start["status"],
        {name.decode(): value.decode() for name, value in start["headers"]},
        b"".join(chunk.get("body", b"") for chunk in chunks),
        read,
    )


def asked(app: ASGIApp, path: str, *arguments: Any, **options: Any) -> Answer:
    """Send one request, in an event loop of its own."""
    return asyncio.run(ask(app, path, *arguments, **options))
