"""HTTP Basic authentication, for both the API and the request bins."""

from __future__ import annotations

import base64
import binascii

from starlette.requests import Request

__all__ = ["credentials"]


def credentials(request: Request) -> tuple[str, str] | None:
    """Return the user name and password of a request; ``None`` if it has no valid credentials."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    username, separator, password = decoded.partition(":")
    return (username, password) if separator else None
