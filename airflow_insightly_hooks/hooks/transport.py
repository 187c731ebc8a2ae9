"""One HTTP POST over one connection, under one deadline, with the address judged that is dialled.

It is httpcore with a network backend of ours: each wait on the network gets what is left until the
deadline, so that no sequence of slow steps outlasts it. A connection serves one POST and is closed.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.request import getproxies, proxy_bypass

import certifi
import httpcore

from airflow_insightly_hooks.hooks.addresses import literal_address, why_not_sent_to
from airflow_insightly_hooks.hooks.causes import causes, tls_reason
from airflow_insightly_hooks.hooks.endpoint import Endpoint

__all__ = [
    "Answer",
    "Deadline",
    "NotDelivered",
    "TransportSettings",
    "load_client_certificate",
    "post",
    "tls_context",
]

# At DEBUG, httpcore logs the receiver's headers whole, and a receiver may echo what it got.
logging.getLogger("httpcore").setLevel(logging.INFO)

CONNECT_TIMEOUT = 5.0
"""Seconds for one address to take a connection (a black hole takes none, and says nothing)."""
BODY_LIMIT = 16 * 1024
"""Bytes of an answer's body that are read at most."""
PIECE = 16 * 1024
"""Bytes that are sent, or read, between two looks at the deadline."""
HEADERS_LIMIT = 100
"""Header lines that an answer has at most, as with Python's own client."""
HEADER_LIMIT = 64 * 1024
"""Bytes that one of them has at most."""
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

    timeout: float = 30.0
    verify: bool | str = True
    trust_env: bool = True
    allow_private: bool = True


@dataclass(frozen=True)
class Answer:
    """A final answer: its status, its headers by lower-cased name, and a note where its body was odd.

    :param body: what was read of the body, undecoded, ``BODY_LIMIT`` bytes at most.
    """

    status: int
    headers: list[tuple[str, str]]
    note: str | None = None
    body: bytes = field(default=b"", repr=False)


class NotDelivered(Exception):
    """There was no final answer.

    :param reason: a text without the address, for logs and reports.
    :param sent: whether the receiver may have read any of the request; if not, it was no attempt of ours.
    """

    def __init__(self, reason: str, sent: bool) -> None:
        super().__init__(reason, sent)
        self.reason = reason
        self.sent = sent

    def __str__(self) -> str:
        return self.reason


def tls_context(settings: TransportSettings) -> ssl.SSLContext:
    """Return the TLS settings: at least 1.2, certificates verified unless the connection says otherwise.

    :raises OSError: if the file of trusted certificates can't be read; a ``ssl.SSLError`` if it holds none.
    """
    if settings.verify is False:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif isinstance(settings.verify, str):
        context = ssl.create_default_context(cafile=settings.verify)
    else:
        names = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE") if settings.trust_env else ()
        named = filter(None, map(os.environ.get, names))
        context = ssl.create_default_context(cafile=next(named, certifi.where()))
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # whatever the machine's own settings of OpenSSL say
    return context


def load_client_certificate(context: ssl.SSLContext, file: str, key_file: str | None) -> None:
    """Have a client's certificate shown to receivers that ask for one.

    :param key_file: the file of its key, without a password; ``None`` if that stands beside the certificate.
    :raises OSError: if they can't be read; a ``ssl.SSLError`` if they are no certificate and its key.
    """
    context.load_cert_chain(file, key_file, password=lambda: "")  # else OpenSSL asks the terminal for it


def post(
    endpoint: Endpoint,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    settings: TransportSettings,
    context: ssl.SSLContext,
    deadline: Deadline | None = None,
) -> Answer:
    """POST ``body`` and return the final answer; redirects are answers like others.

    :param deadline: by when, if this exchange is not the first one under it.
    :raises NotDelivered: if there is no final answer within the time limit.
    """
    proxy = _proxy(endpoint) if settings.trust_env else None
    if proxy is not None and (address := literal_address(endpoint.host)):  # a name's, only the proxy knows
        refusal = why_not_sent_to(address, allow_private=settings.allow_private)
        if refusal is not None:
            raise NotDelivered(refusal, sent=False)
    network = _Network(deadline or Deadline(settings.timeout), endpoint, proxy, settings)
    try:
        with (
            _pool(proxy, settings, context, network) as pool,
            pool.stream("POST", endpoint.url, headers=headers, content=body) as response,
        ):
            if response.extensions["http_version"] not in (b"HTTP/1.1", b"HTTP/1.0") or _is_odd(
                response.headers
            ):
                raise httpcore.RemoteProtocolError
            answer_headers = [(n.decode("latin-1").lower(), v.decode("latin-1")) for n, v in response.headers]
            if proxy is not None and endpoint.scheme == "http" and response.status == 407:
                raise NotDelivered("proxy: it answered 407", sent=False)
            return Answer(response.status, answer_headers, *_read_some(response))
    except _NotDialled as error:
        reason, sent = str(error), False
    except httpcore.ProxyError as error:  # its text is a status, and the proxy's words
        reason, sent = f"it answered {str(error)[:3]}", False
    except (httpcore.TimeoutException, DeadlineExceeded):
        step = "no answer" if network.sent else "no connection"
        reason, sent = f"{step} within {settings.timeout:g} s", network.sent
    except httpcore.ConnectError as error:
        reason, sent = _connect_reason(error), False
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        reason, sent = _broken(error, network)
    raise NotDelivered(f"proxy: {reason}" if network.is_at_proxy else reason, sent)


def _pool(
    proxy: Endpoint | None,
    settings: TransportSettings,
    context: ssl.SSLContext,
    network: httpcore.NetworkBackend,
) -> httpcore.ConnectionPool:
    if proxy is None:
        return httpcore.ConnectionPool(
            ssl_context=context, network_backend=network, max_keepalive_connections=0
        )
    auth = (proxy.username.encode(), proxy.password.encode()) if proxy.username is not None else None
    return httpcore.HTTPProxy(
        proxy.origin,
        proxy_auth=auth,
        ssl_context=context,
        # Its own: a client's certificate is for the receiver.
        proxy_ssl_context=tls_context(settings) if proxy.scheme == "https" else None,
        network_backend=network,
        max_keepalive_connections=0,
    )


def _proxy(endpoint: Endpoint) -> Endpoint | None:
    proxies = getproxies()
    uri = proxies.get(endpoint.scheme) or proxies.get("all")
    if not uri or endpoint.is_loopback or proxy_bypass(f"{endpoint.host}:{endpoint.port}"):
        return None
    return Endpoint.from_uri(uri if "://" in uri else f"http://{uri}", "proxy")


def _read_some(response: httpcore.Response) -> tuple[str | None, bytes]:
    """Read a little of the body, so that a receiver that is writing isn't cut off; return a note and it."""
    read = bytearray()
    try:
        for chunk in response.iter_stream():
            read += chunk
            if len(read) >= BODY_LIMIT:
                return f"its answer was longer than {BODY_LIMIT} bytes", bytes(read[:BODY_LIMIT])
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, DeadlineExceeded):
        return "its answer broke off behind the headers", bytes(read)
    return None, bytes(read)


def _is_odd(headers: list[tuple[bytes, bytes]]) -> bool:
    """Return whether headers are too many or too long, or tell where the body ends in two ways."""
    names = {name.lower() for name, _ in headers}
    return (
        len(headers) > HEADERS_LIMIT
        or any(len(name) + len(value) > HEADER_LIMIT for name, value in headers)
        or names >= {b"content-length", b"transfer-encoding"}
    )


def _connect_reason(error: BaseException) -> str:
    for cause in causes(error):
        if reason := tls_reason(cause):
            return reason
        if isinstance(cause, OSError) and cause.strerror:
            return _own_fault(cause) or cause.strerror.lower()
    return "no connection"


_OWN_FAULTS = {
    errno.EMFILE: "no more file descriptors",
    errno.ENFILE: "no more file descriptors",
    errno.EADDRNOTAVAIL: "no free port or address",
    errno.ENOBUFS: "no more memory",
    errno.ENOMEM: "no more memory",
}


def _own_fault(error: BaseException) -> str | None:
    """Return what this machine lacks to connect at all; ``None`` for an error that tells of the receiver."""
    lack = _OWN_FAULTS.get(getattr(error, "errno", None) or 0)
    return f"this worker has {lack}" if lack else None


def _broken(error: Exception, network: _Network) -> tuple[str, bool]:
    """Return why an exchange that had begun got no answer, and whether the receiver may have read of it."""
    if isinstance(error, httpcore.NetworkError):
        reason = next(filter(None, map(tls_reason, causes(error))), None)
        if reason is not None:
            # With TLS 1.3 a client learns only now that the handshake, and all behind it, was refused.
            return reason, network.sent and not reason.endswith("certificate required")
    elif network.received:
        return "protocol: the answer is not HTTP/1.1", network.sent
    return "the connection broke before an answer came", network.sent


# --- the network, under a deadline -----------------------------------------------------------------------


class DeadlineExceeded(Exception):
    """The time for the whole exchange is over."""


class _NotDialled(Exception):
    """Why there is no address to connect to."""


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


class _Network(httpcore.NetworkBackend):
    """Connects under a deadline, to the addresses that it has judged.

    :param proxy: what is connected to instead of the endpoint; by its own address, whatever that is.
    :ivar sent: whether the receiver may have read something.
    :ivar received: whether anything came back.
    """

    def __init__(
        self, deadline: Deadline, endpoint: Endpoint, proxy: Endpoint | None, settings: TransportSettings
    ) -> None:
        self.deadline = deadline
        self._proxied = proxy is not None
        self._allow_private = settings.allow_private or self._proxied
        # Under fewer layers of TLS than these, what is sent is for the proxy.
        self.layers = [endpoint.scheme, proxy.scheme if proxy is not None else ""].count("https")
        self._is_https = endpoint.scheme == "https"
        self._backend = httpcore.SyncBackend()
        self.sent = False
        self.received = False
        self._at_receiver = False

    @property
    def is_at_proxy(self) -> bool:
        """Whether all that has happened so far was between this machine and a proxy."""
        return self._proxied and not self._at_receiver and not self.sent

    def starts_tls(self, layers: int) -> None:
        """Note that TLS begins, as so many layers."""
        self._at_receiver = self._is_https and layers == self.layers
        self.received = False  # what came before was a proxy's

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 — the deadline decides
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        reasons: list[str] = []
        addresses = list(dict.fromkeys(_resolve(host.strip("[]"), port, self.deadline.left())))
        for dialled, address in enumerate(addresses):
            refusal = why_not_sent_to(address, allow_private=self._allow_private)
            if refusal is not None:
                raise _NotDialled(refusal)
            left = self.deadline.left()
            # An address that is dead leaves time for the next one.
            limit = min(CONNECT_TIMEOUT, left / (len(addresses) - dialled))
            try:
                stream = self._backend.connect_tcp(address, port, limit, local_address, socket_options)
            except httpcore.ConnectTimeout:
                if limit == left:
                    raise DeadlineExceeded from None
                reasons.append(f"no connection within {limit:.2g} s")
                continue
            except httpcore.ConnectError as failure:
                reasons.append(_connect_reason(failure))
                continue
            return _Stream(stream, self)
        raise _NotDialled("; ".join(dict.fromkeys(reasons)) or "the host has no address")


def _resolve(host: str, port: int, timeout: float) -> list[str]:
    """Return the addresses of a host; the system's look-up knows no time limit, hence the thread."""
    found: list[str] = []
    failure: list[Exception] = []

    def look_up() -> None:
        try:
            for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                found.append(str(address[0]))
        except (OSError, UnicodeError) as error:
            failure.append(error)

    thread = threading.Thread(target=look_up, daemon=True, name="webhook-dns")
    try:
        thread.start()
    except RuntimeError:
        raise _NotDialled("this worker has no more threads") from None
    thread.join(timeout)
    if thread.is_alive():
        raise DeadlineExceeded
    if failure:
        if own := _own_fault(failure[0]):
            raise _NotDialled(own)
        reason = getattr(failure[0], "strerror", None) or "it is no name"
        raise _NotDialled(f"the host can't be looked up: {reason.lower()}")
    return found


class _Stream(httpcore.NetworkStream):
    """A connection whose every wait ends at the deadline.

    :param layers: how many layers of TLS it has.
    """

    def __init__(self, stream: httpcore.NetworkStream, network: _Network, layers: int = 0) -> None:
        self._stream = stream
        self._network = network
        self._layers = layers
        self._early = b""  # what was read of an answer that came while the request was being sent

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 — the deadline decides
        if self._early:
            early, self._early = self._early[:max_bytes], self._early[max_bytes:]
            return early
        data = self._stream.read(min(max_bytes, PIECE), self._network.deadline.left())
        self._network.received = self._network.received or bool(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 — the deadline decides
        view = memoryview(buffer)
        for start in range(0, len(view), PIECE):
            if self._layers < 2:  # in TLS in TLS, what can be read isn't seen on the socket
                self._wait_for_room()
            left = self._network.deadline.left()
            self._network.sent = self._network.sent or self._layers >= self._network.layers
            self._stream.write(bytes(view[start : start + PIECE]), left)

    def _wait_for_room(self) -> None:
        """Wait until more can be sent, and see whether the receiver answers instead of reading.

        RFC 9112, 9.5, asks for that: such a receiver may never read on.

        :raises httpcore.WriteError: if it answers with a failure, or closes: httpcore then reads the answer.
        """
        connection = self._stream.get_extra_info("socket")
        poll = select.poll()
        poll.register(connection, select.POLLIN | select.POLLOUT)
        while events := poll.poll(self._network.deadline.left() * 1000):
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
            self._network.received = self._network.received or bool(data)
            if not data or len(self._early) > EARLY_LIMIT or _FAILURE.search(self._early):
                raise httpcore.WriteError
        raise DeadlineExceeded

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002 — the deadline decides
    ) -> httpcore.NetworkStream:
        left = self._network.deadline.left()
        self._network.starts_tls(self._layers + 1)
        try:
            stream = self._stream.start_tls(ssl_context, server_hostname, left)
        except httpcore.ConnectTimeout:
            raise DeadlineExceeded from None
        return _Stream(stream, self._network, self._layers + 1)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
