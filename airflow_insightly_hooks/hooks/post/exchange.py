"""One HTTP POST over one connection; transport.py has the connection, response.py reads what comes back."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

import httpcore

from airflow_insightly_hooks.hooks.connection_failures import causes, tls_reason
from airflow_insightly_hooks.hooks.post.endpoint import Endpoint
from airflow_insightly_hooks.hooks.post.response import BODY_LIMIT, InvalidResponse, ResponseReader
from airflow_insightly_hooks.hooks.post.transport import (
    Connection,
    Deadline,
    DeadlineExceeded,
    NotDialled,
    Transport,
)

__all__ = ["NotDelivered", "Response", "post"]

_Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class Response:
    """A final response: its status, its headers by lower-cased name, and a note where its body was odd.

    :param body: what was read of the body, undecoded, ``BODY_LIMIT`` bytes at most.
    :param is_early: whether it began before the request was completely sent.
    """

    status: int
    headers: list[tuple[str, str]]
    note: str | None = None
    body: bytes = field(default=b"", repr=False)
    is_early: bool = False


class NotDelivered(Exception):
    """There was no final response.

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
) -> Response:
    """POST ``body`` and return the final response; redirects are responses like others.

    :param endpoint: the transport's; or another path there.
    :param deadline: of this exchange, and of those before it that led here.
    :raises NotDelivered: if there is no final response within the time limit.
    :raises ValueError: if a header holds what none can; nothing was sent.
    """
    refusal = transport.why_not_asked()
    if refusal is not None:
        raise NotDelivered(refusal, sent=False)
    is_forwarded = transport.proxy is not None and not transport.has_tunnel
    target = endpoint.url if is_forwarded else endpoint.target
    headers = [*headers, ("content-length", str(len(body)))]
    if is_forwarded:
        headers += _proxy_headers(transport)
    request = _head("POST", target, headers) + body
    is_own_fault = False
    with transport.connection(deadline) as connection:
        try:
            connection.open()
            if transport.has_tunnel:
                _open_tunnel(connection, transport, endpoint)
            reader, is_early = _ask(connection, request)
            if is_forwarded and reader.status == 407:
                raise NotDelivered("proxy: it answered 407", sent=False)
            note = _read_some(connection, reader)
            return Response(reader.status, reader.headers, note, reader.body, is_early)
        except NotDialled as error:
            reason, sent, is_own_fault = str(error), False, error.is_own_fault
        except (httpcore.TimeoutException, DeadlineExceeded):
            step = "no answer" if connection.sent else "no connection"
            reason, sent = f"{step} within {transport.settings.timeout:g} s", connection.sent
        except (httpcore.NetworkError, InvalidResponse) as error:
            reason, sent = _broken(error, connection)
        reason = f"proxy: {reason}" if connection.is_at_proxy and not is_own_fault else reason
    raise NotDelivered(reason, sent=sent, is_own_fault=is_own_fault)


def _open_tunnel(connection: Connection, transport: Transport, endpoint: Endpoint) -> None:
    """Have the proxy connect to the receiver, and begin TLS with that."""
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    authority = f"{host}:{endpoint.port}"
    headers = [("host", authority), ("accept", "*/*"), *_proxy_headers(transport)]
    reader, _ = _ask(connection, _head("CONNECT", authority, headers))
    status = reader.status
    if not 200 <= status < 300:
        raise NotDelivered(f"proxy: it answered {status}", sent=False)
    connection.secure()


def _proxy_headers(transport: Transport) -> _Headers:
    """Return what tells a proxy who asks."""
    authorization = transport.proxy.authorization if transport.proxy is not None else None
    return [] if authorization is None else [("proxy-authorization", authorization)]


def _head(method: str, target: str, headers: _Headers) -> bytes:
    """Return a request's head.

    :raises ValueError: if a header was let through that would end its line, or the target.
    """
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
    head = "\r\n".join(lines)
    if head.count("\r") != len(lines) - 1 or head.count("\n") != len(lines) - 1 or " " in target:
        raise ValueError("a header or the target holds white space that it can't")
    return head.encode("ascii")


def _ask(connection: Connection, request: bytes) -> tuple[ResponseReader, bool]:
    """Send a request, and read until the final response's head is whole.

    The flag says whether that head began before the request was completely sent.
    """
    reader = ResponseReader()
    try:
        connection.write(request)
        is_sent = True
    except httpcore.WriteError:  # a receiver that refuses a request may answer without reading it
        is_sent = False
    if early := connection.take_early():
        reader.feed(early)
    is_early = not is_sent or reader.has_begun
    while not reader.status:
        reader.feed(connection.read())
    return reader, is_early


def _read_some(connection: Connection, reader: ResponseReader) -> str | None:
    """Read a little of the body, so that a receiver that is writing isn't cut off; return a note."""
    with suppress(httpcore.NetworkError, httpcore.TimeoutException, DeadlineExceeded):
        while not (reader.is_complete or reader.is_broken or reader.is_too_long):
            reader.feed(connection.read())
    if reader.is_too_long:
        return f"its answer was longer than {BODY_LIMIT} bytes"
    return None if reader.is_complete else "its answer broke off behind the headers"


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
