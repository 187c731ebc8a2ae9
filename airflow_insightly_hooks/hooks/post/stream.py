"""The bytes of a connection: each wait on them ends at a deadline."""

from __future__ import annotations

import contextlib
import re
import select
import ssl

import httpcore

from airflow_insightly_hooks.hooks.post.deadline import Deadline, DeadlineExceeded
from airflow_insightly_hooks.hooks.post.transport import Transport

__all__ = ["Stream"]

PIECE = 16 * 1024
"""Bytes that are sent, or read, between two looks at the deadline."""
EARLY_LIMIT = 64 * 1024
"""Bytes that are read of a receiver that answers without reading."""

_FAILURE = re.compile(rb"(?:^|\r\n\r\n)HTTP/1\.[01] [3-9]")


class _NotOpen(httpcore.NetworkStream):
    """Stands for a stream that isn't there yet."""

    def close(self) -> None:
        """There is nothing to close."""


_NOT_OPEN = _NotOpen()


class Stream:
    """A connection whose every wait ends at the deadline.

    :ivar deadline: of the exchange.
    :ivar sent: whether the receiver may have read something.
    :ivar received: whether anything came back from it.
    """

    def __init__(self, transport: Transport, deadline: Deadline) -> None:
        self._transport = transport
        self._stream: httpcore.NetworkStream = _NOT_OPEN
        self._layers = 0  # of TLS
        self._is_counted = False  # among the transport's open ones
        self._early = b""  # what was read of an answer that came while the request was being sent
        self._is_through = False  # what is sent is for the receiver, no more for a proxy that opens a tunnel
        self._at_receiver = transport.proxy is None
        self.deadline = deadline
        self.sent = False
        self.received = False

    @property
    def is_at_proxy(self) -> bool:
        """Whether all that has happened so far was between this machine and a proxy."""
        return not self._at_receiver and not self.sent

    def open(self) -> None:
        """Connect to the receiver, or to the proxy, with TLS where it is spoken there.

        :raises NotDialled: if nothing takes a connection.
        """
        self._transport.opening()
        self._is_counted = True
        self._stream = self._transport.dial(self.deadline)
        if self._transport.proxy is not None and self._transport.proxy.is_secured:
            self._secure(is_proxy=True)
        if self._transport.proxy is None and self._transport.is_secured:
            self.secure()
        self._is_through = not self._transport.has_tunnel

    def secure(self) -> None:
        """Begin TLS with the receiver; in a tunnel, once that is open."""
        self._at_receiver = True
        self._secure(is_proxy=False)
        self._is_through = True

    def _secure(self, *, is_proxy: bool) -> None:
        self.received = False  # what came before was a proxy's
        self._stream = self._transport.secure(self._stream, self.deadline, is_proxy=is_proxy)
        self._layers += 1

    def read(self) -> bytes:
        """Return what has come, once something has; nothing at the end."""
        data = self._stream.read(PIECE, self.deadline.left())
        self.received = self.received or bool(data)
        return data

    def take_early(self) -> bytes:
        """Return what has come while ``write`` was sending; it is not returned again."""
        early, self._early = self._early, b""
        return early

    def write(self, data: bytes) -> None:
        """Send.

        :raises httpcore.WriteError: if the other side answers with a failure instead of reading, or closes:
            there may be an answer to read.
        """
        for start in range(0, len(data), PIECE):
            # At first there is room. In TLS in TLS, what can be read isn't seen on the socket.
            if start and self._layers < 2:
                self._wait_for_room()
            left = self.deadline.left()
            self.sent = self.sent or self._is_through
            self._stream.write(data[start : start + PIECE], left)

    def _wait_for_room(self) -> None:
        """Wait until more can be sent, and see whether the receiver answers instead of reading.

        RFC 9112, 9.5, asks for that: such a receiver may never read on.

        :raises httpcore.WriteError: if it answers with a failure, or closes.
        """
        connection = self._stream.get_extra_info("socket")
        poll = select.poll()
        poll.register(connection, select.POLLIN | select.POLLOUT)
        while events := poll.poll(self.deadline.left() * 1000):
            if events[0][1] & ~select.POLLIN:  # there is room, or an error, which writing shows
                return
            connection.settimeout(0)
            try:
                data = connection.recv(PIECE)
            except (BlockingIOError, ssl.SSLWantReadError):  # TLS has messages of its own
                continue
            except OSError:
                raise httpcore.WriteError from None
            self._early += data
            self.received = self.received or bool(data)
            if not data or len(self._early) > EARLY_LIMIT or _FAILURE.search(self._early):
                raise httpcore.WriteError
        raise DeadlineExceeded

    def close(self) -> None:
        """Close it, if it is open."""
        with contextlib.suppress(OSError):
            self._stream.close()
        if self._is_counted:
            self._is_counted = False
            self._transport.closed()
