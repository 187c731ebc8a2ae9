"""One HTTP POST over one connection, under one deadline, with the address judged that is dialled.

It is httpcore with a network backend of ours: each wait on the network gets what is left until the
deadline, so that no sequence of slow steps outlasts it. A connection serves one POST and is closed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.request import getproxies, proxy_bypass

import certifi
import httpcore

from airflow_insightly_hooks.hooks.causes import causes, tls_reason
from airflow_insightly_hooks.hooks.endpoint import Endpoint

__all__ = ["Answer", "NotDelivered", "TransportSettings", "post", "tls_context"]

# At DEBUG, httpcore logs the receiver's headers whole, and a receiver may echo what it got.
logging.getLogger("httpcore").setLevel(logging.INFO)

CONNECT_TIMEOUT = 5.0
"""Seconds for one address to take a connection (a black hole takes none, and says nothing)."""
BODY_LIMIT = 16 * 1024
"""Bytes of an answer's body that are read at most."""
PIECE = 16 * 1024
"""Bytes that are sent between two looks at the deadline."""
METADATA_ADDRESSES = frozenset({ipaddress.ip_address("fd00:ec2::254")})
"""Cloud metadata services outside of the link-local ranges."""
NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class TransportSettings:
    """How to connect.

    :param timeout: seconds for the whole exchange, from the name's look-up to the answer's headers.
    :param verify: whether to verify certificates, or the path of a file of trusted ones.
    :param trust_env: whether the environment's proxy and CA bundle variables count.
    """

    timeout: float = 30.0
    verify: bool | str = True
    trust_env: bool = True


@dataclass(frozen=True)
class Answer:
    """A final answer: its status, its headers by lower-cased name, and a note where its body was odd."""

    status: int
    headers: list[tuple[str, str]]
    note: str | None = None


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

    :raises OSError: if the file of trusted certificates can't be read.
    :raises ssl.SSLError: if it holds none.
    """
    if settings.verify is False:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if isinstance(settings.verify, str):
        return ssl.create_default_context(cafile=settings.verify)
    names = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE") if settings.trust_env else ()
    named = filter(None, map(os.environ.get, names))
    return ssl.create_default_context(cafile=next(named, certifi.where()))


def post(
    endpoint: Endpoint,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    settings: TransportSettings,
    context: ssl.SSLContext,
) -> Answer:
    """POST ``body`` and return the final answer; redirects are answers like others.

    :raises NotDelivered: if there is no final answer within the time limit.
    """
    deadline = Deadline(settings.timeout)
    network = _Network(deadline, only_tls_counts=endpoint.scheme == "https")
    try:
        with (
            _pool(endpoint, settings, context, network) as pool,
            pool.stream("POST", endpoint.url, headers=headers, content=body) as response,
        ):
            if response.extensions["http_version"] not in (b"HTTP/1.1", b"HTTP/1.0"):
                raise httpcore.RemoteProtocolError
            answer_headers = [(n.decode("latin-1").lower(), v.decode("latin-1")) for n, v in response.headers]
            return Answer(response.status, answer_headers, _read_some(response))
    except _NotDialled as error:
        raise NotDelivered(str(error), sent=False) from None
    except httpcore.ProxyError:
        raise NotDelivered("the proxy refused to connect", sent=False) from None
    except httpcore.ConnectTimeout:
        raise NotDelivered(f"no connection within {CONNECT_TIMEOUT:g} s", sent=False) from None
    except (httpcore.TimeoutException, DeadlineExceeded):
        step = "no answer" if network.sent else "no connection"
        raise NotDelivered(f"{step} within {settings.timeout:g} s", sent=network.sent) from None
    except httpcore.ConnectError as error:
        raise NotDelivered(_connect_reason(error), sent=False) from None
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        broke = isinstance(error, httpcore.NetworkError) or not network.received
        reason = (
            "the connection broke before an answer came" if broke else "protocol: the answer is not HTTP/1.1"
        )
        raise NotDelivered(reason, sent=network.sent) from None


def _pool(
    endpoint: Endpoint, settings: TransportSettings, context: ssl.SSLContext, network: httpcore.NetworkBackend
) -> httpcore.ConnectionPool:
    proxy = _proxy(endpoint) if settings.trust_env else None
    if proxy is None:
        return httpcore.ConnectionPool(
            ssl_context=context, network_backend=network, max_keepalive_connections=0
        )
    auth = (proxy.username.encode(), proxy.password.encode()) if proxy.username is not None else None
    return httpcore.HTTPProxy(
        proxy.origin,
        proxy_auth=auth,
        ssl_context=context,
        network_backend=network,
        max_keepalive_connections=0,
    )


def _proxy(endpoint: Endpoint) -> Endpoint | None:
    proxies = getproxies()
    uri = proxies.get(endpoint.scheme) or proxies.get("all")
    if not uri or endpoint.is_loopback or proxy_bypass(f"{endpoint.host}:{endpoint.port}"):
        return None
    return Endpoint.from_uri(uri if "://" in uri else f"http://{uri}", "proxy")


def _read_some(response: httpcore.Response) -> str | None:
    """Read a little of the body, so that a receiver that is writing isn't cut off, and drop it."""
    read = 0
    try:
        for chunk in response.iter_stream():
            read += len(chunk)
            if read >= BODY_LIMIT:
                return f"its answer was longer than {BODY_LIMIT} bytes"
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, DeadlineExceeded):
        return "its answer broke off behind the headers"
    return None


def _connect_reason(error: httpcore.ConnectError) -> str:
    for cause in causes(error):
        if reason := tls_reason(cause):
            return reason
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
    return "no connection"


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

    :param only_tls_counts: whether what is sent before TLS is only for a proxy, as with a receiver on https.
    :ivar sent: whether the receiver may have read something.
    :ivar received: whether anything came back.
    """

    def __init__(self, deadline: Deadline, only_tls_counts: bool) -> None:
        self.deadline = deadline
        self.only_tls_counts = only_tls_counts
        self._backend = httpcore.SyncBackend()
        self.sent = False
        self.received = False

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 — the deadline decides
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        error: Exception | None = None
        for address in self._addresses(host.strip("[]"), port):
            try:
                stream = self._backend.connect_tcp(
                    address, port, min(CONNECT_TIMEOUT, self.deadline.left()), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failure:
                self.deadline.left()
                error = failure
                continue
            return _Stream(stream, self)
        raise error or httpcore.ConnectError("no address")

    def _addresses(self, host: str, port: int) -> Iterator[str]:
        for address in dict.fromkeys(_resolve(host, port, self.deadline.left())):
            if _is_forbidden(address):
                raise _NotDialled("a link-local or cloud metadata address is not sent to")
            yield address


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
    thread.start()
    thread.join(timeout)
    if thread.is_alive():
        raise DeadlineExceeded
    if failure:
        reason = getattr(failure[0], "strerror", None) or "it is no name"
        raise _NotDialled(f"the host can't be looked up: {reason.lower()}")
    return found


def _is_forbidden(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None and inner.is_link_local:
            return True
    return address.is_link_local or address in METADATA_ADDRESSES


class _Stream(httpcore.NetworkStream):
    """A connection whose every wait ends at the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, network: _Network, is_tls: bool = False) -> None:
        self._stream = stream
        self._network = network
        self._counts = is_tls or not network.only_tls_counts

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 — the deadline decides
        data = self._stream.read(max_bytes, self._network.deadline.left())
        self._network.received = self._network.received or bool(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 — the deadline decides
        view = memoryview(buffer)
        for start in range(0, len(view), PIECE):
            left = self._network.deadline.left()
            self._network.sent = self._network.sent or self._counts
            self._stream.write(bytes(view[start : start + PIECE]), left)

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
        try:
            stream = self._stream.start_tls(ssl_context, server_hostname, left)
        except httpcore.ConnectTimeout:
            raise DeadlineExceeded from None
        self._network.received = False  # what came before was a proxy's
        return _Stream(stream, self._network, is_tls=True)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
