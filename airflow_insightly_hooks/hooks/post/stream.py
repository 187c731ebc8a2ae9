"""The bytes of a connection: each wait on them ends at a deadline, and nothing that comes goes unseen."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
import struct
from typing import NamedTuple

import httpcore

from airflow_insightly_hooks.hooks.post.deadline import Deadline, DeadlineExceeded
from airflow_insightly_hooks.hooks.post.transport import Transport

__all__ = ["Stream", "TcpState", "TlsState"]

PIECE = 16 * 1024
"""Bytes that are sent, or read, between two looks at the deadline."""
EARLY_LIMIT = 64 * 1024
"""Bytes that are read of a receiver that answers without reading."""

_FAILURE = re.compile(rb"(?:^|\r\n\r\n)HTTP/1\.[01] [3-9]")
_CLOSED = 7
_TCP_INFO = struct.Struct("=B23xI92xQQ")
"""``tcpi_state``, ``_unacked``, ``_bytes_acked`` and ``_bytes_received`` of Linux's ``tcp_info`` (tcp.h)."""


class TcpState(NamedTuple):
    """What TCP knows of a connection, whatever programs have read.

    :param is_closed: whether the connection is over, on both sides.
    :param is_acknowledged: whether the other side's TCP has acknowledged all that was sent.
    :param acknowledged: bytes of it since the beginning, those of TLS among them.
    :param received: bytes that came since the beginning; the other side's end counts as one.
    """

    is_closed: bool
    is_acknowledged: bool
    acknowledged: int
    received: int


class TlsState(NamedTuple):
    """What was agreed on in a TLS handshake.

    :param version: of the protocol, such as ``TLSv1.3``.
    :param certificate: the receiver's own, in DER.
    """

    version: str
    certificate: bytes


class _NotOpen(httpcore.NetworkStream):
    """Stands for a stream that isn't there yet."""

    def close(self) -> None:
        """There is nothing to close."""


_NOT_OPEN = _NotOpen()


class Stream:
    """A connection whose every wait ends at the deadline.

    :ivar deadline: of the present exchange.
    :ivar sent: whether the receiver may have read something of the present exchange.
    :ivar received: whether anything came back from it.
    :ivar written: bytes of it that this machine has taken to be sent.
    :ivar was_reset: whether the other side has broken it off, before it was told that nothing more is sent.
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
        self.written = 0
        self.was_reset = False

    @property
    def is_at_proxy(self) -> bool:
        """Whether all that has happened so far was between this machine and a proxy."""
        return not self._at_receiver and not self.sent

    def begin(self, deadline: Deadline) -> None:
        """Begin a further exchange on it."""
        self.deadline = deadline
        self.sent = self.received = False
        self.written = 0
        self._early = b""

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
            self.written += len(data[start : start + PIECE])

    def _wait_for_room(self) -> None:
        """Wait until more can be sent, and see whether the receiver answers instead of reading.

        RFC 9112, 9.5, asks for that: such a receiver may never read on.

        :raises httpcore.WriteError: if it answers with a failure, or closes.
        """
        connection = self._stream.get_extra_info("socket")
        poll = select.poll()
        poll.register(connection, select.POLLIN | select.POLLOUT)
        while events := poll.poll(self.deadline.left() * 1000):
            happened = events[0][1]
            if happened & select.POLLIN:
                self._take_answer(connection)
            if happened & ~select.POLLIN:  # there is room, or an error, which writing shows
                return
        raise DeadlineExceeded

    def _take_answer(self, connection: socket.socket) -> None:
        """Take what has come while the request is being sent.

        :raises httpcore.WriteError: if it is a failure, or the end.
        """
        connection.settimeout(0)
        try:
            data = connection.recv(PIECE)
        except (BlockingIOError, ssl.SSLWantReadError):  # TLS has messages of its own
            return
        except OSError:
            raise httpcore.WriteError from None
        self._early += data
        self.received = self.received or bool(data)
        if not data or len(self._early) > EARLY_LIMIT or _FAILURE.search(self._early):
            raise httpcore.WriteError

    def close(self) -> None:
        """Close it, if it is open."""
        if self._layers == 1 and self._at_receiver and self._is_through:  # not a proxy's, nor TLS in TLS
            self._transport.keep_session(self._stream.get_extra_info("socket"))
        with contextlib.suppress(OSError):
            self._stream.close()
        if self._is_counted:
            self._is_counted = False
            self._transport.closed()

    def tls_state(self) -> TlsState | None:
        """Return what was agreed on with the receiver; ``None`` without TLS."""
        session = self._stream.get_extra_info("ssl_object")
        if session is None or not self._transport.is_secured:
            return None
        return TlsState(session.version(), session.getpeercert(True))

    # --- between exchanges, and at the end ---------------------------------------------------------------

    @property
    def can_be_kept(self) -> bool:
        """Whether all that comes is seen, and what TCP acknowledges is told: not in TLS in TLS."""
        return self._layers < 2 and self.tcp_state() is not None

    def tcp_state(self) -> TcpState | None:
        """Return what TCP knows; ``None`` where this system doesn't tell."""
        connection = self._stream.get_extra_info("socket")
        try:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except (AttributeError, OSError):
            return None
        if len(info) < _TCP_INFO.size:
            return None
        state, waiting, acknowledged, received = _TCP_INFO.unpack_from(info)
        return TcpState(state == _CLOSED, waiting == 0, acknowledged, received)

    def take_waiting(self) -> bytes | None:
        """Return what has come by now, without waiting: nothing at the end, ``None`` if nothing has come."""
        connection = self._stream.get_extra_info("socket")
        connection.settimeout(0)
        try:
            data: bytes = connection.recv(PIECE)
        except (BlockingIOError, ssl.SSLWantReadError):  # TLS has messages of its own
            return None
        except OSError:
            data = b""
        self._note_reset(data)
        return data

    def take_last(self, quiet: float, limit: float) -> bytes | None:
        """Return what still comes; nothing at the end, ``None`` if neither comes.

        :param quiet: seconds to wait for the other side to end it; then it is told that nothing more is sent.
        :param limit: seconds to wait from then on.
        """
        connection = self._stream.get_extra_info("socket")
        with contextlib.suppress(TimeoutError):
            data = _receive(connection, quiet)
            self._note_reset(data)
            return data
        with contextlib.suppress(TimeoutError):
            connection.settimeout(limit)
            try:
                if isinstance(connection, ssl.SSLSocket):
                    connection.unwrap()  # waits for the other side's own end
                    return b""
                connection.shutdown(socket.SHUT_WR)
            except ssl.SSLError as error:
                # OpenSSL drops what comes behind this side's end, and tells that something did.
                return b"?" if "APPLICATION_DATA" in (error.reason or "") else b""
            except TimeoutError:
                raise
            except OSError:
                return b""
            return _receive(connection, limit)
        return None

    def _note_reset(self, data: bytes) -> None:
        """Note whether it was a reset that ended the connection: Python's TLS doesn't tell."""
        state = self.tcp_state()
        self.was_reset = not data and state is not None and state.is_closed


def _receive(connection: socket.socket, timeout: float) -> bytes:
    """Return what comes; nothing at the end, be it a reset.

    :raises TimeoutError: if nothing does.
    """
    connection.settimeout(timeout)
    try:
        return connection.recv(PIECE)
    except TimeoutError:
        raise
    except OSError:
        return b""
