"""One HTTP POST over one connection, and its answer, by h11; see transport.py for the connection."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import h11
import httpcore

from airflow_insightly_hooks.hooks.causes import causes, tls_reason
from airflow_insightly_hooks.hooks.endpoint import Endpoint
from airflow_insightly_hooks.hooks.transport import (
    Connection,
    Deadline,
    DeadlineExceeded,
    NotDialled,
    Transport,
)

__all__ = ["Answer", "NotDelivered", "post"]

BODY_LIMIT = 16 * 1024
"""Bytes of an answer's body that are read at most."""
HEADERS_LIMIT = 100
"""Header lines that an answer has at most, as with Python's own client."""
HEADER_LIMIT = 64 * 1024
"""Bytes that one of them has at most."""
HEAD_LIMIT = 100 * 1024
"""Bytes that all of them have at most."""

_Headers = list[tuple[bytes, bytes]]


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
    :param is_own_fault: whether this machine lacked what it takes; then it tells nothing of the receiver.
    """

    def __init__(self, reason: str, *, sent: bool, is_own_fault: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent
        self.is_own_fault = is_own_fault


def post(
    transport: Transport, endpoint: Endpoint, headers: _Headers, body: bytes, deadline: Deadline
) -> Answer:
    """POST ``body`` and return the final answer; redirects are answers like others.

    :param endpoint: the transport's; or another path there.
    :param deadline: of this exchange, and of those before it that led here.
    :raises NotDelivered: if there is no final answer within the time limit.
    """
    refusal = transport.why_not_asked()
    if refusal is not None:
        raise NotDelivered(refusal, sent=False)
    is_own_fault = False
    with transport.connection(deadline) as connection:
        try:
            connection.open()
            if transport.has_tunnel:
                _open_tunnel(connection, transport, endpoint)
            return _exchange(connection, transport, endpoint, headers, body)
        except NotDialled as error:
            reason, sent, is_own_fault = str(error), False, error.is_own_fault
        except (httpcore.TimeoutException, DeadlineExceeded):
            step = "no answer" if connection.sent else "no connection"
            reason, sent = f"{step} within {transport.settings.timeout:g} s", connection.sent
        except (httpcore.NetworkError, h11.ProtocolError) as error:
            reason, sent = _broken(error, connection)
        reason = f"proxy: {reason}" if connection.is_at_proxy and not is_own_fault else reason
    raise NotDelivered(reason, sent=sent, is_own_fault=is_own_fault)


def _open_tunnel(connection: Connection, transport: Transport, endpoint: Endpoint) -> None:
    """Have the proxy connect to the receiver, and begin TLS with that."""
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    authority = f"{host}:{endpoint.port}".encode()
    headers = [(b"host", authority), (b"accept", b"*/*"), *_proxy_headers(transport)]
    http = h11.Connection(h11.CLIENT, HEAD_LIMIT)
    response = _request(connection, http, b"CONNECT", authority, headers, b"")
    if not 200 <= response.status_code < 300:
        raise NotDelivered(f"proxy: it answered {response.status_code}", sent=False)
    connection.secure()


def _exchange(
    connection: Connection, transport: Transport, endpoint: Endpoint, headers: _Headers, body: bytes
) -> Answer:
    is_forwarded = transport.proxy is not None and not transport.has_tunnel
    target = endpoint.url if is_forwarded else endpoint.target
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    if is_forwarded:
        headers += _proxy_headers(transport)
    http = h11.Connection(h11.CLIENT, HEAD_LIMIT)
    response = _request(connection, http, b"POST", target.encode(), headers, body)
    if response.http_version not in (b"1.1", b"1.0") or _is_odd(response.headers):
        raise h11.RemoteProtocolError("no answer of HTTP/1.1")
    if is_forwarded and response.status_code == 407:
        raise NotDelivered("proxy: it answered 407", sent=False)
    answer_headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in response.headers]
    return Answer(response.status_code, answer_headers, *_read_some(connection, http))


def _proxy_headers(transport: Transport) -> _Headers:
    """Return what tells a proxy who asks."""
    authorization = transport.proxy.authorization if transport.proxy is not None else None
    return [] if authorization is None else [(b"proxy-authorization", authorization.encode())]


def _request(
    connection: Connection,
    http: h11.Connection,
    method: bytes,
    target: bytes,
    headers: _Headers,
    body: bytes,
) -> h11.Response:
    """Send a request and return the final answer's head."""
    data = http.send(h11.Request(method=method, target=target, headers=headers)) or b""
    if body:
        data += http.send(h11.Data(body)) or b""
    data += http.send(h11.EndOfMessage()) or b""
    with suppress(httpcore.WriteError):  # who refuses a request may not read it, and answer all the same
        connection.write(data)
    while not isinstance(event := _next_event(connection, http), h11.Response):
        if not isinstance(event, h11.InformationalResponse):
            raise h11.RemoteProtocolError("no answer")
    return event


def _next_event(connection: Connection, http: h11.Connection) -> object:
    """Read until there is an event of the other side's."""
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(connection.read())
    return event


def _read_some(connection: Connection, http: h11.Connection) -> tuple[str | None, bytes]:
    """Read a little of the body, so that a receiver that is writing isn't cut off; return a note and it."""
    read = bytearray()
    try:
        while isinstance(event := _next_event(connection, http), h11.Data):
            read += event.data
            if len(read) >= BODY_LIMIT:
                return f"its answer was longer than {BODY_LIMIT} bytes", bytes(read[:BODY_LIMIT])
    except (httpcore.NetworkError, httpcore.TimeoutException, h11.ProtocolError, DeadlineExceeded):
        return "its answer broke off behind the headers", bytes(read)
    return None, bytes(read)


def _is_odd(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Return whether headers are too many or too long, or tell where the body ends in two ways."""
    names = {name for name, _ in headers}
    return (
        len(headers) > HEADERS_LIMIT
        or any(len(name) + len(value) > HEADER_LIMIT for name, value in headers)
        or names >= {b"content-length", b"transfer-encoding"}
    )


def _broken(error: Exception, connection: Connection) -> tuple[str, bool]:
    """Return why an exchange that had begun got no answer, and whether the receiver may have read of it."""
    if isinstance(error, httpcore.NetworkError):
        reason = next(filter(None, map(tls_reason, causes(error))), None)
        if reason is not None:
            # With TLS 1.3 a client learns only now that the handshake, and all behind it, was refused.
            return reason, connection.sent and not reason.endswith("certificate required")
    elif connection.received:
        return "protocol: the answer is not HTTP/1.1", connection.sent
    return "the connection broke before an answer came", connection.sent
