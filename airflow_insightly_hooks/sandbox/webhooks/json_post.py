"""A POST in a coroutine. It has its own connection, and uses no redirects, no proxies and no ``.netrc``."""

from __future__ import annotations

import asyncio
import base64
import ssl
from urllib.parse import urlsplit

import h11

__all__ = ["JSONPost"]

MAX_READ = 64 * 1024
"""How many bytes are read at once."""


class JSONPost:
    """POSTs JSON to one URI. A POST that is cancelled closes its connection at once.

    :param uri: an http or https URI without credentials.
    :param username: the user name of Basic authentication. If both this and ``password`` are ``None``,
        requests have no credentials.
    :param password: the password.
    """

    def __init__(self, uri: str, username: str | None = None, password: str | None = None) -> None:
        parts = urlsplit(uri)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._port = parts.hostname, parts.port or (80 if self._tls is None else 443)
        self._target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        self._headers = [("Host", parts.netloc), ("Content-Type", "application/json")]
        if username is not None or password is not None:
            credentials = base64.b64encode(f"{username or ''}:{password or ''}".encode()).decode()
            self._headers.append(("Authorization", f"Basic {credentials}"))

    async def send(self, body: bytes) -> int:
        """POST a body, read the whole answer, and return its status.

        :raises OSError: if there is no connection, or it breaks.
        :raises h11.ProtocolError: if the answer is not HTTP, or is not whole.
        """
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        try:
            connection = h11.Connection(h11.CLIENT)
            headers = [*self._headers, ("Content-Length", str(len(body))), ("Connection", "close")]
            request = h11.Request(method="POST", target=self._target, headers=headers)
            for event in (request, h11.Data(body), h11.EndOfMessage()):
                writer.write(connection.send(event) or b"")
            await writer.drain()
            return await _status(connection, reader)
        finally:
            writer.transport.abort()


async def _status(connection: h11.Connection, reader: asyncio.StreamReader) -> int:
    status = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(MAX_READ))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.EndOfMessage):
            return status
        elif isinstance(event, h11.ConnectionClosed):
            raise ConnectionError("the receiver closed the connection without an answer")
