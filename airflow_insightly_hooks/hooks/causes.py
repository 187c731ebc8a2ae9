"""Why a connection failed, by an error's causes: the texts of errors can hold addresses and secrets."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Iterator

__all__ = ["NO_MORE_THREADS", "causes", "own_fault", "tls_reason"]

NO_MORE_THREADS = "this worker has no more threads"

_NO_TLS = ("wrong version number", "record layer failure", "packet length too long", "http request")
"""What versions of OpenSSL say of an answer that isn't TLS at all."""

_OWN_FAULTS = {
    errno.EMFILE: "no more file descriptors",
    errno.ENFILE: "no more file descriptors",
    errno.EADDRNOTAVAIL: "no free port or address",
    errno.ENOBUFS: "no more memory",
    errno.ENOMEM: "no more memory",
}


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from, in all the ways in which HTTP clients wrap errors."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        inner = (getattr(seen, "reason", None), *seen.args, seen.__cause__, seen.__context__)
        seen = next((cause for cause in inner if isinstance(cause, BaseException)), None)


def tls_reason(cause: BaseException) -> str | None:
    """Return what is wrong with TLS, such as ``TLS: certificate has expired``; ``None`` for another error."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"TLS: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        reason = (cause.reason or "handshake failed").replace("_", " ").lower()
        return f"TLS: {reason}, is it a port of plain HTTP?" if reason in _NO_TLS else f"TLS: {reason}"
    return None


def own_fault(error: BaseException) -> str | None:
    """Return what this machine lacks to connect at all; ``None`` for an error that tells of the receiver."""
    lack = _OWN_FAULTS.get(getattr(error, "errno", None) or 0)
    return f"this worker has {lack}" if lack else None
