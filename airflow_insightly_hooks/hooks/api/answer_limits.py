"""Limit the time and the size of one answer of the API, and the addresses that may give it.

``requests`` limits the time of each read only, so it would wait forever for a server that sends a byte now
and then. It doesn't limit the size of a body, and a small compressed body may hold gigabytes.
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
"""Bytes that are unpacked between two checks of the size."""


class AnswerTooSlow(TimeoutError):
    """An answer was not complete in time."""


class AnswerTooLarge(Exception):
    """An answer has more bytes, unpacked, than are allowed."""


class AddressRefused(Exception):
    """No request is sent to the host's address; the text says why."""


class LimitedAdapter(HTTPAdapter):
    """Sends as ``requests`` does, but with limits.

    An answer must be complete within ``seconds`` after the end of its request. No request is sent to a
    link-local address, or to the address of a cloud's metadata service.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._open = _OpenSockets()
        super().__init__()

    def end_connections(self) -> None:
        """End all connections. Requests that wait for an answer fail at once; later requests fail, too."""
        self._open.end()

    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        """Make a pool manager whose connections have the limits."""
        super().init_poolmanager(*arguments, **more)
        self._limit(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
        """Return a proxy's pool manager, whose connections have the limits."""
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

    :param limit: the most bytes that the body may have.
    :raises AnswerTooLarge: if it has more bytes; the rest is not read.
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
    """The sockets of an adapter's connections. Several threads may use this object."""

    def __init__(self) -> None:
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._has_ended = False
        self._lock = threading.Lock()

    def add(self, connected: socket.socket) -> None:
        """Add a socket.

        :raises ConnectionAbortedError: if all sockets were ended before.
        """
        with self._lock:
            if self._has_ended:
                raise ConnectionAbortedError
            self._sockets.add(connected)

    def end(self) -> None:
        """End the connections of all sockets."""
        with self._lock:
            self._has_ended = True
            for connected in self._sockets:
                with suppress(OSError):  # the connection has ended already
                    connected.shutdown(socket.SHUT_RDWR)


class _Response(http.client.HTTPResponse):
    """A response with one deadline for all of its reads."""

    def __init__(self, seconds: float, sock: socket.socket, *arguments: Any, **more: Any) -> None:
        super().__init__(sock, *arguments, **more)
        self.fp = io.BufferedReader(_UntilDeadline(self.fp.detach(), sock, seconds))


class _UntilDeadline(io.RawIOBase):
    """The bytes that a socket receives in the next ``seconds``."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, seconds: float) -> None:
        self._raw, self._socket = raw, sock
        self._end = time.monotonic() + seconds

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Wait for bytes, and read them.

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
        """Close it. The connection is closed, too, unless something else uses it."""
        if not self.closed:
            self._raw.close()
        super().close()
