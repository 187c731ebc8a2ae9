"""Connect to a receiver, or to the proxy before it: look up the host, check its addresses, and dial.

httpcore opens the sockets. All steps share one deadline: each wait on the network may take only the time that
is left. So a sequence of slow steps can't take longer than the deadline.
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
"""The most seconds to connect to one address. An address may never answer, and never refuse."""
LOOK_UP_LASTS = 1.0
"""Seconds for which connections that are open at the same time may share a look-up of the host's name."""


@dataclass(frozen=True)
class TransportSettings:
    """The settings of connections to a receiver.

    :param timeout: seconds for the whole exchange, from the look-up of the name to the answer's headers.
    :param verify: whether to verify certificates, or the path of a file of trusted certificates.
    :param trust_env: whether to use the proxy and CA bundle variables of the environment.
    :param allow_private: whether addresses of private networks are allowed.
    """

    timeout: float
    verify: bool | str
    trust_env: bool
    allow_private: bool


class NotDialled(Exception):
    """No connection could be made; the text says why.

    :param is_own_fault: whether this machine lacked a resource, so that the receiver may be all right.
    """

    def __init__(self, reason: str, *, is_own_fault: bool = False) -> None:
        super().__init__(reason)
        self.is_own_fault = is_own_fault


class SessionRefused(NotDialled):
    """The receiver refused to resume the TLS session of an earlier connection; it may accept a new one."""


class Transport:
    """Connects to one receiver. The threads that send to it share this object.

    :param context: the TLS settings for the receiver.
    :ivar proxy: the proxy to connect to instead of the receiver. Its own address is not checked. ``None``
        without a proxy.
    :raises InvalidConnection: if the environment names a proxy whose URI is not valid.
    :raises OSError: if the file of trusted certificates can't be read for a proxy.
    """

    def __init__(self, endpoint: Endpoint, settings: TransportSettings, context: ssl.SSLContext) -> None:
        self.settings = settings
        self.proxy = _proxy(endpoint) if settings.trust_env else None
        self._endpoint = endpoint
        self._context = self._first_context = context
        self._first = self.proxy or endpoint  # the host to connect to
        self._needs_no_look_up = literal_address(self._first.host) == self._first.host  # not with a zone
        if self.proxy is not None and self.proxy.is_secured:
            # The proxy has a context of its own, because the client's certificate is for the receiver.
            self._first_context = tls_context(settings.verify, trust_env=settings.trust_env)
        self._session: ssl.SSLSession | None = None
        self._resumes = True
        self._lock = threading.Lock()  # protects the attributes below
        self._open = 0
        self._addresses: list[str] = []
        self._looked_up_at = float("-inf")

    @property
    def is_secured(self) -> bool:
        """Whether the connection to the receiver uses TLS."""
        return self._endpoint.is_secured

    @property
    def has_tunnel(self) -> bool:
        """Whether a proxy must open a tunnel to the receiver."""
        return self.proxy is not None and self.is_secured

    def why_not_asked(self) -> str | None:
        """Return why a proxy may not be asked to connect to the receiver's IP address; ``None`` if it may."""
        if self.proxy is None or not (address := literal_address(self._endpoint.host)):
            return None  # only the proxy knows the address of a name
        return why_not_sent_to(address, allow_private=self.settings.allow_private)

    def dial(self, deadline: Deadline) -> httpcore.NetworkStream:
        """Connect to the first address that accepts a connection.

        :raises NotDialled: if no address does, or if an address is not allowed.
        """
        allow_private = self.settings.allow_private or self.proxy is not None
        failures: list[NotDialled] = []
        addresses = self._look_up(deadline)
        for dialled, address in enumerate(addresses):
            refusal = why_not_sent_to(address, allow_private=allow_private)
            if refusal is not None:
                raise NotDialled(refusal)
            left = deadline.left()
            # A dead address must leave time for the next one.
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
            self._looked_up_at = float("-inf")  # the host may have other addresses by now
        reason = "; ".join(dict.fromkeys(map(str, failures))) or "the host has no address"
        # Without IPv6 on this machine, IPv6 addresses fail as if it lacked a resource. So the failures of
        # IPv4 addresses decide, if there are any.
        telling = [f for f, address in zip(failures, addresses, strict=True) if ":" not in address]
        raise NotDialled(reason, is_own_fault=any(failure.is_own_fault for failure in telling or failures))

    def _look_up(self, deadline: Deadline) -> list[str]:
        """Return the host's addresses; look them up unless another open connection has just done it."""
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
        """Record that a connection is about to be opened. The caller must call ``closed`` later."""
        with self._lock:
            self._open += 1
            if self._open == 1:
                self._looked_up_at = float("-inf")  # no other connection shares the last look-up

    def closed(self) -> None:
        """Record that a connection is closed, or could not be opened."""
        with self._lock:
            self._open -= 1

    def secure(
        self, stream: httpcore.NetworkStream, deadline: Deadline, *, is_proxy: bool
    ) -> httpcore.NetworkStream:
        """Begin TLS with the receiver, or with the proxy.

        :raises SessionRefused: if TLS fails with the session of an earlier connection. Later connections
            resume no session.
        :raises NotDialled: if TLS fails, or the certificate is refused.
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
        if session is not None:  # some servers refuse a session instead of ignoring it
            self._session, self._resumes = None, False
            raise SessionRefused(str(failure))
        raise failure

    def keep_session(self, connection: ssl.SSLSocket) -> None:
        """Have the next connection resume the TLS session of this one, which saves both sides work."""
        with contextlib.suppress(ValueError, OSError):
            if self._resumes:
                self._session = connection.session or self._session


class _ResumingContext:
    """The part of an ``SSLContext`` that httpcore uses. httpcore has no other way to resume a session."""

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
    """Return the addresses of a host. The system's look-up has no time limit, so it runs in a thread."""
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
    """Return the error of a look-up that has just failed."""
    if lack := own_look_up_fault(error):
        return NotDialled(lack, is_own_fault=True)
    reason = getattr(error, "strerror", None) or "it is not a valid name"
    return NotDialled(f"the host can't be looked up: {reason.lower()}")


def _not_connected(error: BaseException) -> NotDialled:
    """Return the error of a connection that failed with an error of httpcore."""
    for cause in causes(error):
        if reason := tls_reason(cause):
            return NotDialled(reason)
        if isinstance(cause, OSError) and cause.strerror:
            lack = own_fault(cause)
            return NotDialled(lack or cause.strerror.lower(), is_own_fault=lack is not None)
    return NotDialled("no connection")
