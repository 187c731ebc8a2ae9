"""Connections to a receiver, or to the proxy before it: looked up, judged, dialled, under one deadline.

The sockets are httpcore's. Each wait on the network gets what is left until the deadline, so that no sequence
of slow steps outlasts it. A connection serves one POST and is closed.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.request import getproxies, proxy_bypass

import httpcore

from airflow_insightly_hooks.hooks.blocked_addresses import literal_address, why_not_sent_to
from airflow_insightly_hooks.hooks.connection_failures import (
    NO_MORE_THREADS,
    causes,
    own_fault,
    own_look_up_fault,
    tls_reason,
)
from airflow_insightly_hooks.hooks.masking import mask_user_information
from airflow_insightly_hooks.hooks.post.endpoint import Endpoint
from airflow_insightly_hooks.hooks.post.tls import tls_context

__all__ = [
    "Connection",
    "Deadline",
    "DeadlineExceeded",
    "NotDialled",
    "Transport",
    "TransportSettings",
]

CONNECT_TIMEOUT = 5.0
"""Seconds for one address to take a connection (a black hole takes none, and says nothing)."""
LOOK_UP_LASTS = 1.0
"""Seconds for which POSTs that are under way at once may share a look-up of the receiver's name."""
PIECE = 16 * 1024
"""Bytes that are sent, or read, between two looks at the deadline."""
EARLY_LIMIT = 64 * 1024
"""Bytes that are read of a receiver that answers without reading."""

_FAILURE = re.compile(rb"(?:^|\r\n\r\n)HTTP/1\.[01] [3-9]")


@dataclass(frozen=True)
class TransportSettings:
    """How to connect.

    :param timeout: seconds for the whole exchange, from the name's look-up to the answer's headers.
    :param verify: whether to verify certificates, or the path of a file of trusted ones.
    :param trust_env: whether the environment's proxy and CA bundle variables count.
    :param allow_private: whether addresses of private networks are sent to.
    """

    timeout: float
    verify: bool | str
    trust_env: bool
    allow_private: bool


class DeadlineExceeded(Exception):
    """The time for the whole exchange is over."""


class NotDialled(Exception):
    """Why there is no connection.

    :param is_own_fault: whether this machine lacked what it takes; then it tells nothing of the receiver.
    """

    def __init__(self, reason: str, *, is_own_fault: bool = False) -> None:
        super().__init__(reason)
        self.is_own_fault = is_own_fault


class Deadline:
    """A moment by the monotonic clock, ``seconds`` from now."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds left.

        :raises DeadlineExceeded: if there are none.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded
        return left


class Transport:
    """The way to one receiver; shared by the threads that send to it.

    :param context: how to speak TLS to the receiver.
    :ivar proxy: what is connected to instead, by its own address, whatever that is.
    :raises InvalidConnection: if the environment names a proxy that is none.
    :raises OSError: if the file of trusted certificates can't be read for a proxy.
    """

    def __init__(self, endpoint: Endpoint, settings: TransportSettings, context: ssl.SSLContext) -> None:
        self.settings = settings
        self.proxy = _proxy(endpoint) if settings.trust_env else None
        self._endpoint = endpoint
        self._context = self._first_context = context
        self._first = self.proxy or endpoint  # what is connected to
        self._needs_no_look_up = literal_address(self._first.host) == self._first.host  # one with a zone does
        if self.proxy is not None and self.proxy.is_secured:
            # Its own: a client's certificate is for the receiver.
            self._first_context = tls_context(settings.verify, trust_env=settings.trust_env)
        self._lock = threading.Lock()  # for what follows
        self._under_way = 0
        self._addresses: list[str] = []
        self._looked_up_at = float("-inf")

    @property
    def is_secured(self) -> bool:
        """Whether TLS is spoken with the receiver."""
        return self._endpoint.is_secured

    @property
    def has_tunnel(self) -> bool:
        """Whether a proxy must open a tunnel to the receiver."""
        return self.proxy is not None and self.is_secured

    def why_not_asked(self) -> str | None:
        """Return why a proxy isn't asked to connect to the receiver, where that is an IP address."""
        if self.proxy is None or not (address := literal_address(self._endpoint.host)):
            return None  # a name's address, only the proxy knows
        return why_not_sent_to(address, allow_private=self.settings.allow_private)

    def dial(self, deadline: Deadline) -> httpcore.NetworkStream:
        """Connect to the first address that takes a connection.

        :raises NotDialled: if there is none.
        """
        allow_private = self.settings.allow_private or self.proxy is not None
        failures: list[NotDialled] = []
        addresses = self._look_up(deadline)
        for dialled, address in enumerate(addresses):
            refusal = why_not_sent_to(address, allow_private=allow_private)
            if refusal is not None:
                raise NotDialled(refusal)
            left = deadline.left()
            # An address that is dead leaves time for the next one.
            limit = min(CONNECT_TIMEOUT, left / (len(addresses) - dialled))
            try:
                return httpcore.SyncBackend().connect_tcp(address, self._first.port, limit)
            except httpcore.ConnectTimeout:
                if limit == left:
                    raise DeadlineExceeded from None
                failures.append(NotDialled(f"no connection within {limit:.2g} s"))
            except httpcore.ConnectError as error:
                failures.append(_not_connected(error))
        with self._lock:
            self._looked_up_at = float("-inf")  # there may be others by now
        reason = "; ".join(dict.fromkeys(map(str, failures))) or "the host has no address"
        # Where IPv6 is off, its addresses fail like that; while there are others, these tell.
        telling = [f for f, address in zip(failures, addresses, strict=True) if ":" not in address]
        raise NotDialled(reason, is_own_fault=any(failure.is_own_fault for failure in telling or failures))

    def _look_up(self, deadline: Deadline) -> list[str]:
        """Look the host up, unless it is an address, or others are under way that have just done so."""
        if self._needs_no_look_up:
            return [self._first.host]
        with self._lock:
            is_shared = self._under_way > 1 and time.monotonic() - self._looked_up_at < LOOK_UP_LASTS
            if is_shared:
                return self._addresses
        started = time.monotonic()
        addresses = _resolve(self._first.host, self._first.port, deadline.left())
        with self._lock:
            self._addresses, self._looked_up_at = addresses, started
        return addresses

    @contextlib.contextmanager
    def connection(self, deadline: Deadline) -> Iterator[Connection]:
        """Have a connection for one POST; it isn't open yet, and is closed at the end of the block."""
        connection = Connection(self, deadline)
        with self._lock:
            self._under_way += 1
            if self._under_way == 1:
                self._looked_up_at = float("-inf")  # nobody is there to share it with
        try:
            yield connection
        finally:
            with self._lock:
                self._under_way -= 1
            connection.close()

    def secure(
        self, stream: httpcore.NetworkStream, deadline: Deadline, *, is_proxy: bool
    ) -> httpcore.NetworkStream:
        """Begin TLS with the receiver, or with the proxy.

        :raises NotDialled: if it can't be spoken there, or the certificate is refused.
        """
        to, context = (self._first, self._first_context) if is_proxy else (self._endpoint, self._context)
        try:
            return stream.start_tls(context, to.host.partition("%")[0], deadline.left())
        except httpcore.ConnectTimeout:
            raise DeadlineExceeded from None
        except httpcore.ConnectError as error:
            raise _not_connected(error) from None


class _NotOpen(httpcore.NetworkStream):
    """Stands for a stream that isn't there yet."""

    def close(self) -> None:
        """There is nothing to close."""


_NOT_OPEN = _NotOpen()


class Connection:
    """A connection whose every wait ends at the deadline.

    :ivar sent: whether the receiver may have read something.
    :ivar received: whether anything came back from it.
    """

    def __init__(self, transport: Transport, deadline: Deadline) -> None:
        self._transport = transport
        self._deadline = deadline
        self._stream: httpcore.NetworkStream = _NOT_OPEN
        self._layers = 0  # of TLS
        self._early = b""  # what was read of an answer that came while the request was being sent
        self._is_through = False  # what is sent is for the receiver, no more for a proxy that opens a tunnel
        self._at_receiver = transport.proxy is None
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
        self._stream = self._transport.dial(self._deadline)
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
        self._stream = self._transport.secure(self._stream, self._deadline, is_proxy=is_proxy)
        self._layers += 1

    def read(self) -> bytes:
        """Return what has come, once something has; nothing at the end."""
        data = self._stream.read(PIECE, self._deadline.left())
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
            left = self._deadline.left()
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
        while events := poll.poll(self._deadline.left() * 1000):
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


def _proxy(endpoint: Endpoint) -> Endpoint | None:
    proxies = getproxies()
    uri = proxies.get(endpoint.scheme) or proxies.get("all")
    if not uri or endpoint.is_loopback or proxy_bypass(f"{endpoint.host}:{endpoint.port}"):
        return None
    uri = uri if "://" in uri else f"http://{uri}"
    mask_user_information(uri)
    return Endpoint.from_uri(uri, "proxy")


def _resolve(host: str, port: int, timeout: float) -> list[str]:
    """Return the addresses of a host; the system's look-up knows no time limit, hence the thread."""
    found: list[str] = []
    failure: list[NotDialled] = []

    def look_up() -> None:
        try:
            for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                found.append(str(address[0]))
        except (OSError, UnicodeError) as error:
            failure.append(_not_looked_up(error))

    thread = threading.Thread(target=look_up, daemon=True, name="webhook-dns")
    try:
        thread.start()
    except RuntimeError:
        raise NotDialled(NO_MORE_THREADS, is_own_fault=True) from None
    thread.join(timeout)
    if thread.is_alive():
        raise DeadlineExceeded
    if failure:
        raise failure[0]
    return list(dict.fromkeys(found))


def _not_looked_up(error: OSError | UnicodeError) -> NotDialled:
    """Return why a look-up has just failed."""
    if lack := own_look_up_fault(error):
        return NotDialled(lack, is_own_fault=True)
    reason = getattr(error, "strerror", None) or "it is no name"
    return NotDialled(f"the host can't be looked up: {reason.lower()}")


def _not_connected(error: BaseException) -> NotDialled:
    """Return why a connection failed, from httpcore's error."""
    for cause in causes(error):
        if reason := tls_reason(cause):
            return NotDialled(reason)
        if isinstance(cause, OSError) and cause.strerror:
            lack = own_fault(cause)
            return NotDialled(lack or cause.strerror.lower(), is_own_fault=lack is not None)
    return NotDialled("no connection")
