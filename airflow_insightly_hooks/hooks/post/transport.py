"""The way to a receiver, or to the proxy before it: looked up, judged, dialled, under one deadline.

The sockets are httpcore's. Each wait on the network gets what is left until the deadline, so that no sequence
of slow steps outlasts it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import cast
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
from airflow_insightly_hooks.hooks.post.deadline import Deadline, DeadlineExceeded
from airflow_insightly_hooks.hooks.post.endpoint import Endpoint
from airflow_insightly_hooks.hooks.post.tls import tls_context

__all__ = ["NotDialled", "SessionRefused", "Transport", "TransportSettings"]

CONNECT_TIMEOUT = 5.0
"""Seconds for one address to take a connection (a black hole takes none, and says nothing)."""
LOOK_UP_LASTS = 1.0
"""Seconds for which connections that are open at once may share a look-up of the receiver's name."""


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


class NotDialled(Exception):
    """Why there is no connection.

    :param is_own_fault: whether this machine lacked what it takes; then it tells nothing of the receiver.
    """

    def __init__(self, reason: str, *, is_own_fault: bool = False) -> None:
        super().__init__(reason)
        self.is_own_fault = is_own_fault


class SessionRefused(NotDialled):
    """The receiver refused TLS with a session of an earlier connection; it may take a connection without."""


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
        self._session: ssl.SSLSession | None = None
        self._resumes = True
        self._lock = threading.Lock()  # for what follows
        self._open = 0
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
        """Look the host up, unless it is an address, or it was just done for another that is open."""
        if self._needs_no_look_up:
            return [self._first.host]
        with self._lock:
            is_shared = self._open > 1 and time.monotonic() - self._looked_up_at < LOOK_UP_LASTS
            if is_shared:
                return self._addresses
        started = time.monotonic()
        addresses = _resolve(self._first.host, self._first.port, deadline.left())
        with self._lock:
            self._addresses, self._looked_up_at = addresses, started
        return addresses

    def opening(self) -> None:
        """Note that a connection is about to be opened; ``closed`` is to follow."""
        with self._lock:
            self._open += 1
            if self._open == 1:
                self._looked_up_at = float("-inf")  # nobody is there to share it with

    def closed(self) -> None:
        """Note that a connection is closed, or was never opened after all."""
        with self._lock:
            self._open -= 1

    def secure(
        self, stream: httpcore.NetworkStream, deadline: Deadline, *, is_proxy: bool
    ) -> httpcore.NetworkStream:
        """Begin TLS with the receiver, or with the proxy.

        :raises SessionRefused: if it can't be spoken there with a session of before; none is tried again.
        :raises NotDialled: if it can't be spoken there, or the certificate is refused.
        """
        to, context = (self._first, self._first_context) if is_proxy else (self._endpoint, self._context)
        session = None if is_proxy else self._session
        if session is not None:
            context = cast(ssl.SSLContext, _ResumingContext(context, session))
        try:
            return stream.start_tls(context, to.host.partition("%")[0], deadline.left())
        except httpcore.ConnectTimeout:
            raise DeadlineExceeded from None
        except httpcore.ConnectError as error:
            failure = _not_connected(error)
        if session is not None:  # some servers refuse to go on with a session, others to take it as none
            self._session, self._resumes = None, False
            raise SessionRefused(str(failure))
        raise failure

    def keep_session(self, connection: ssl.SSLSocket) -> None:
        """Have the next connection resume this one's TLS session, which saves both sides work."""
        with contextlib.suppress(ValueError, OSError):
            if self._resumes:
                self._session = connection.session or self._session


class _ResumingContext:
    """As much of an ``SSLContext`` as httpcore asks for; it can't be given a session otherwise."""

    def __init__(self, context: ssl.SSLContext, session: ssl.SSLSession) -> None:
        self._context, self._session = context, session

    def wrap_socket(self, connection: socket.socket, server_hostname: str) -> ssl.SSLSocket:
        """Begin TLS."""
        return self._context.wrap_socket(connection, server_hostname=server_hostname, session=self._session)


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
