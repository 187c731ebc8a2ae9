"""How long one answer of the API may take, how large it may be, and who may give it.

``requests`` has a time limit for each read only, so that a server which sends a byte now and then is waited
for without an end. It has none for a body's size, and a small compressed body may hold gigabytes.
"""

from __future__ import annotations

import http.client
import io
import socket
import threading
import time
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import WeakSet

import requests
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool

from airflow_insightly_hooks.hooks.blocked_addresses import why_not_sent_to

__all__ = ["AddressRefused", "AnswerTooLarge", "AnswerTooSlow", "LimitedAdapter", "read_body"]

PIECE = 64 * 1024
"""Bytes that are unpacked between two looks at the size."""


class AnswerTooSlow(TimeoutError):
    """An answer was not whole in time."""


class AnswerTooLarge(Exception):
    """An answer has more bytes, unpacked, than are allowed."""


class AddressRefused(Exception):
    """The host's address is one that is not asked; the text says why."""


class LimitedAdapter(HTTPAdapter):
    """Sends as ``requests`` does; from the request's end, an answer has so many ``seconds`` to be whole.

    A host whose address is link-local, or of a cloud's metadata service, is sent nothing.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._open = _OpenSockets()
        super().__init__()

    def end_connections(self) -> None:
        """End all connections: requests that wait for an answer, in any thread, fail at once.

        Later requests fail, too.
        """
        self._open.end()

    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        """Make connections that have the limit."""
        super().init_poolmanager(*arguments, **more)
        self._limit(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
        """Make connections through a proxy that have the limit."""
        manager = super().proxy_manager_for(proxy, **more)
        self._limit(manager)
        return manager

    def _limit(self, manager: Any) -> None:
        manager.pool_classes_by_scheme = {
            scheme: _limited_pool(pool, self._seconds, self._open)
            for scheme, pool in manager.pool_classes_by_scheme.items()
        }


def read_body(response: requests.Response, limit: int) -> bytes:
    """Return an answer's body, unpacked.

    :param limit: the most bytes that it may have.
    :raises AnswerTooLarge: if it has more; what comes behind them is not read.
    """
    body = bytearray()
    for piece in response.iter_content(PIECE):
        body += piece
        if len(body) > limit:
            raise AnswerTooLarge
    return bytes(body)


def _limited_pool(
    pool: type[HTTPConnectionPool], seconds: float, open_sockets: _OpenSockets
) -> type[HTTPConnectionPool]:
    if getattr(pool, "is_limited", False):
        return pool
    plain: Any = pool.ConnectionCls

    def connect(self: Any) -> None:
        plain.connect(self)
        open_sockets.add(self.sock)
        if self.proxy is None and (refusal := why_not_sent_to(self.sock.getpeername()[0])):
            self.close()
            raise AddressRefused(refusal)

    limited = {"connect": connect, "response_class": staticmethod(partial(_Response, seconds))}
    connection = type(plain.__name__, (plain,), limited)
    return type(pool.__name__, (pool,), {"ConnectionCls": connection, "is_limited": True})


class _OpenSockets:
    """The sockets of an adapter's connections; several threads may use it."""

    def __init__(self) -> None:
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._has_ended = False
        self._lock = threading.Lock()

    def add(self, connected: socket.socket) -> None:
        """Note a socket.

        :raises ConnectionAbortedError: if all were ended.
        """
        with self._lock:
            if self._has_ended:
                raise ConnectionAbortedError
            self._sockets.add(connected)

    def end(self) -> None:
        """End all of them."""
        with self._lock:
            self._has_ended = True
            for connected in self._sockets:
                with suppress(OSError):  # it has ended already
                    connected.shutdown(socket.SHUT_RDWR)


class _Response(http.client.HTTPResponse):
    """A response whose every read ends at one deadline."""

    def __init__(self, seconds: float, sock: socket.socket, *arguments: Any, **more: Any) -> None:
        super().__init__(sock, *arguments, **more)
        self.fp = io.BufferedReader(_UntilDeadline(self.fp.detach(), sock, seconds))


class _UntilDeadline(io.RawIOBase):
    """What a socket receives, for so many seconds from now."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, seconds: float) -> None:
        self._raw, self._socket = raw, sock
        self._end = time.monotonic() + seconds

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read what has come, once something has.

        :raises AnswerTooSlow: at the deadline.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise AnswerTooSlow
        for_a_read = self._socket.gettimeout()
        self._socket.settimeout(left if for_a_read is None else min(for_a_read, left))
        try:
            return self._raw.readinto(buffer)
        except TimeoutError:
            if time.monotonic() >= self._end:
                raise AnswerTooSlow from None
            raise
        finally:
            self._socket.settimeout(for_a_read)

    def close(self) -> None:
        """Close it, and with it the connection if nobody else uses that."""
        if not self.closed:
            self._raw.close()
        super().close()
