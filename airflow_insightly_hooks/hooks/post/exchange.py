"""The meaning of an exchange that fails. ``connection.py`` makes the exchange of a POST and its response."""

from __future__ import annotations

import httpcore

from airflow_insightly_hooks.hooks.connection_failures import causes, tls_reason
from airflow_insightly_hooks.hooks.post.connection import Connection, ProxyRefused
from airflow_insightly_hooks.hooks.post.deadline import DeadlineExceeded
from airflow_insightly_hooks.hooks.post.response import InvalidResponse
from airflow_insightly_hooks.hooks.post.transport import NotDialled, Transport

__all__ = ["FAILURES", "NotDelivered", "check_address", "not_delivered"]

FAILURES = (
    *(NotDialled, ProxyRefused, DeadlineExceeded, InvalidResponse),
    *(httpcore.TimeoutException, httpcore.NetworkError),
)
"""The errors of an exchange without a final response."""


class NotDelivered(Exception):
    """There was no final response.

    :param reason: a text without the address, for logs and reports.
    :param sent: whether the receiver may have read any of the request. If not, it doesn't count as an
        attempt.
    :param is_own_fault: whether this machine lacked a resource, so that the receiver may be all right.
    """

    def __init__(self, reason: str, *, sent: bool, is_own_fault: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent
        self.is_own_fault = is_own_fault


def check_address(transport: Transport) -> None:
    """Raise ``NotDelivered`` if a proxy would have to connect to an address that is not allowed."""
    refusal = transport.why_not_asked()
    if refusal is not None:
        raise NotDelivered(refusal, sent=False)


def not_delivered(error: Exception, connection: Connection, transport: Transport) -> NotDelivered:
    """Return the meaning of one of ``FAILURES`` that has ended an exchange."""
    stream = connection.stream
    is_own_fault = isinstance(error, NotDialled) and error.is_own_fault
    if isinstance(error, ProxyRefused):
        return NotDelivered(f"proxy: {error}", sent=False)
    if isinstance(error, NotDialled):
        reason, sent = str(error), False
    elif isinstance(error, httpcore.TimeoutException | DeadlineExceeded):
        step = "no answer" if stream.sent else "no connection"
        reason, sent = f"{step} within {transport.settings.timeout:g} s", stream.sent
    else:
        reason, sent = _broken(error, connection)
    reason = f"proxy: {reason}" if stream.is_at_proxy and not is_own_fault else reason
    return NotDelivered(reason, sent=sent, is_own_fault=is_own_fault)


def _broken(error: Exception, connection: Connection) -> tuple[str, bool]:
    """Return why an exchange got no answer, and whether the receiver may have read any of the request."""
    stream = connection.stream
    if isinstance(error, httpcore.NetworkError):
        reason = next(filter(None, map(tls_reason, causes(error))), None)
        if reason is not None:
            # With TLS 1.3, a client learns only now that the handshake was refused, with all that followed.
            return reason, stream.sent and not reason.endswith("certificate required")
    elif stream.received:
        return "protocol: the answer is not HTTP/1.1", stream.sent
    return "the connection broke before an answer came", stream.sent
