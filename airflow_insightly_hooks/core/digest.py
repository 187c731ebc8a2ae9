"""Short names for values that are too long, or have too many parts, for an id or a key."""

from __future__ import annotations

import hashlib

__all__ = ["digest_of"]


def digest_of(what: str | bytes) -> str:
    """Return 16 hexadecimal digits that depend only on the argument. Stored values are found by them."""
    return hashlib.sha256(what.encode() if isinstance(what, str) else what).hexdigest()[:16]
