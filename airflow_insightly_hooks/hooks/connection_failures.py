"""Find out why a connection failed from the types of an error's causes. Texts of errors can hold secrets."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator

__all__ = ["NO_MORE_THREADS", "causes", "own_fault", "own_look_up_fault", "tls_reason"]

NO_MORE_THREADS = "this worker has no more threads"

_NO_TLS = ("wrong version number", "record layer failure", "packet length too long", "http request")
"""The texts of OpenSSL's versions for an answer that isn't TLS."""

_OWN_FAULTS = {
    errno.EMFILE: "no more file descriptors",
    errno.ENFILE: "no more file descriptors",
    errno.EADDRNOTAVAIL: "no free port or address",
    errno.ENOBUFS: "no more memory",
    errno.ENOMEM: "no more memory",
}


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, in all the ways in which HTTP clients wrap errors."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        inner = (getattr(seen, "reason", None), *seen.args, seen.__cause__, seen.__context__)
        seen = next((cause for cause in inner if isinstance(cause, BaseException)), None)


def tls_reason(cause: BaseException) -> str | None:
    """Return why TLS failed, such as ``TLS: certificate has expired``; ``None`` for other errors."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"TLS: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        reason = (cause.reason or "handshake failed").replace("_", " ").lower()
        return f"TLS: {reason}, is it a port of plain HTTP?" if reason in _NO_TLS else f"TLS: {reason}"
    return None


def own_fault(error: BaseException) -> str | None:
    """Return which resource this machine lacks to connect; ``None`` if the error has another reason."""
    lack = _OWN_FAULTS.get(getattr(error, "errno", None) or 0)
    return f"this worker has {lack}" if lack else None


def own_look_up_fault(error: BaseException) -> str | None:
    """Return which resource this machine lacks to look up a host; ``None`` if the error has another reason.

    Call it right after the look-up has failed. Without free file descriptors, ``getaddrinfo`` may raise any
    error, with the ``errno`` of an earlier one. So this function tries to open a file descriptor.
    """
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_MEMORY:
        return own_fault(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as refusal:
        return own_fault(refusal)
    return own_fault(error)
