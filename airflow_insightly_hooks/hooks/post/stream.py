"""Send and receive the bytes of a connection. Each wait ends at a deadline, and all received bytes count."""

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
"""The most bytes that are sent or read between two checks of the deadline."""
EARLY_LIMIT = 64 * 1024
"""The most bytes that are read of an answer that comes while the request is being sent."""

_FAILURE = re.compile(rb"(?:^|\r\n\r\n)HTTP/1\.[01] [3-9]")
_CLOSED = 7
_TCP_INFO = struct.Struct("=B23xI92xQQ")
"""The fields ``tcpi_state``, ``_unacked``, ``_bytes_acked`` and ``_bytes_received`` of Linux's ``tcp_info``.

Source: ``tcp.h``.
"""


class TcpState(NamedTuple):
    """The state of a connection in TCP. It doesn't depend on what the programs on both sides have read.

    :param is_closed: whether the connection is closed on both sides.
    :param is_acknowledged: whether the other side's TCP has acknowledged all bytes that were sent.
    :param acknowledged: the bytes that it has acknowledged since the beginning, with the bytes of TLS.
    :param received: the bytes that were received since the beginning; the other side's end counts as one.
    """

    is_closed: bool
    is_acknowledged: bool
    acknowledged: int
    received: int


class TlsState(NamedTuple):
    """The result of a TLS handshake.

    :param version: the version of the protocol, such as ``TLSv1.3``.
    :param certificate: the receiver's own certificate, in DER.
    """

    version: str
    certificate: bytes


class _NotOpen(httpcore.NetworkStream):
    """A placeholder for a stream that isn't open yet."""

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


_NOT_OPEN = _NotOpen()


class Stream:
    """The bytes of a connection. Each wait for them ends at the deadline.

    :ivar deadline: the deadline of the current exchange.
    :ivar sent: whether the receiver may have read bytes of the current exchange.
    :ivar received: whether bytes were received in the current exchange.
    :ivar written: the bytes of the current exchange that this machine has accepted for sending.
    :ivar was_reset: whether the other side has reset the connection before this side had ended it.
    """

    def __init__(self, transport: Transport, deadline: Deadline) -> None:
        self._transport = transport
        self._stream: httpcore.NetworkStream = _NOT_OPEN
        self._layers = 0  # layers of TLS
        self._is_counted = False  # whether the transport counts it among its open connections
        self._early = b""  # the bytes of an answer that came while the request was being sent
        self._sends_to_receiver = False  # and not to a proxy that opens a tunnel
        self._at_receiver = transport.proxy is None
        self.deadline = deadline
        self.sent = False
        self.received = False
        self.written = 0
        self.was_reset = False

    @property
    def is_at_proxy(self) -> bool:
        """Whether this machine has communicated only with a proxy so far."""
        return not self._at_receiver and not self.sent

    def begin(self, deadline: Deadline) -> None:
        """Begin another exchange on the connection."""
        self.deadline = deadline
        self.sent = self.received = False
        self.written = 0
        self._early = b""

    def open(self) -> None:
        """Connect to the receiver or to the proxy, and begin TLS if its address is ``https``.

        :raises NotDialled: if no connection can be made.
        """
        self._transport.opening()
        self._is_counted = True
        self._stream = self._transport.dial(self.deadline)
        if self._transport.proxy is not None and self._transport.proxy.is_secured:
            self._secure(is_proxy=True)
        if self._transport.proxy is None and self._transport.is_secured:
            self.secure()
        self._sends_to_receiver = not self._transport.has_tunnel

    def secure(self) -> None:
        """Begin TLS with the receiver. With a tunnel, call it once the tunnel is open."""
        self._at_receiver = True
        self._secure(is_proxy=False)
        self._sends_to_receiver = True

    def _secure(self, *, is_proxy: bool) -> None:
        self.received = False  # earlier bytes came from the proxy
        self._stream = self._transport.secure(self._stream, self.deadline, is_proxy=is_proxy)
        self._layers += 1

    def read(self) -> bytes:
        """Wait for bytes and return them; return no bytes at the end of the connection."""
        data = self._stream.read(PIECE, self.deadline.left())
        self.received = self.received or bool(data)
        return data

    def take_early(self) -> bytes:
        """Return the bytes that were received while ``write`` was sending, and forget them."""
        early, self._early = self._early, b""
        return early

    def write(self, data: bytes) -> None:
        """Send bytes.

        :raises httpcore.WriteError: if the other side answers with a failure instead of reading, or closes
            the connection. There may be an answer to read.
        """
        for start in range(0, len(data), PIECE):
            # The first piece always fits. With TLS in TLS, the socket doesn't show what can be read.
            if start and self._layers < 2:
                self._wait_for_room()
            left = self.deadline.left()
            self.sent = self.sent or self._sends_to_receiver
            self._stream.write(data[start : start + PIECE], left)
            self.written += len(data[start : start + PIECE])

    def _wait_for_room(self) -> None:
        """Wait until more can be sent, and check whether the receiver answers instead of reading.

        RFC 9112, 9.5, asks for this check: a receiver that has answered may never read the rest.

        :raises httpcore.WriteError: if the receiver answers with a failure, or closes the connection.
        """
        connection = self._stream.get_extra_info("socket")
        poll = select.poll()
        poll.register(connection, select.POLLIN | select.POLLOUT)
        while events := poll.poll(self.deadline.left() * 1000):
            happened = events[0][1]
            if happened & select.POLLIN:
                self._take_answer(connection)
            if happened & ~select.POLLIN:  # more can be sent; or there is an error, which ``write`` raises
                return
        raise DeadlineExceeded

    def _take_answer(self, connection: socket.socket) -> None:
        """Read bytes that were received while the request is being sent.

        :raises httpcore.WriteError: if they are a failure, or the connection has ended.
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
        """Close the connection if it is open."""
        # The session of a proxy is not kept, nor the session of TLS in TLS.
        if self._layers == 1 and self._at_receiver and self._sends_to_receiver:
            self._transport.keep_session(self._stream.get_extra_info("socket"))
        with contextlib.suppress(OSError):
            self._stream.close()
        if self._is_counted:
            self._is_counted = False
            self._transport.closed()

    def tls_state(self) -> TlsState | None:
        """Return the state of TLS with the receiver; ``None`` without TLS."""
        session = self._stream.get_extra_info("ssl_object")
        if session is None or not self._transport.is_secured:
            return None
        return TlsState(session.version(), session.getpeercert(True))

    # --- between exchanges, and at the end ---------------------------------------------------------------

    @property
    def can_be_kept(self) -> bool:
        """Whether the connection may serve another exchange: all bytes and acknowledgements must be visible.

        With TLS in TLS they are not, nor on systems without TCP's state.
        """
        return self._layers < 2 and self.tcp_state() is not None

    def tcp_state(self) -> TcpState | None:
        """Return the state of the connection in TCP; ``None`` if this system doesn't provide it."""
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
        """Return received bytes without waiting; no bytes at the end, ``None`` if there are none yet."""
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
        """Return bytes that still come; no bytes at the end, ``None`` if neither bytes nor the end come.

        :param quiet: seconds to wait until this side ends the connection (a half-close).
        :param limit: seconds to wait after that.
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
                    connection.unwrap()  # waits until the other side ends TLS, too
                    return b""
                connection.shutdown(socket.SHUT_WR)
            except ssl.SSLError as error:
                # After this side's end, OpenSSL drops received bytes. Its error says that there were some.
                return b"?" if "APPLICATION_DATA" in (error.reason or "") else b""
            except TimeoutError:
                raise
            except OSError:
                return b""
            return _receive(connection, limit)
        return None

    def _note_reset(self, data: bytes) -> None:
        """Record whether a reset has ended the connection. Python's TLS does not tell."""
        state = self.tcp_state()
        self.was_reset = not data and state is not None and state.is_closed


def _receive(connection: socket.socket, timeout: float) -> bytes:
    """Wait for bytes and return them; return no bytes at the end of the connection, or after a reset.

    :raises TimeoutError: if neither bytes nor the end come in time.
    """
    connection.settimeout(timeout)
    try:
        return connection.recv(PIECE)
    except TimeoutError:
        raise
    except OSError:
        return b""
