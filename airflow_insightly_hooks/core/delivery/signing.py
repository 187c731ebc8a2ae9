"""Signatures of messages, according to the specification Standard Webhooks.

``webhook-signature`` holds one ``v1,<base64>`` for each secret, so that a receiver can change from one
secret to the next. A signature is HMAC-SHA256 over ``{webhook-id}.{webhook-timestamp}.{body}``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

__all__ = ["Signer"]

PREFIX = "whsec_"
SHORTEST = 24
"""The fewest bytes of a secret that the specification allows."""
VERSION = "v1"
"""The specification's name for signatures with a symmetric key: HMAC-SHA256."""


class Signer:
    """Signs messages with one or several secrets, and checks whether a message was signed with one of them.

    :param secrets: base64 texts of at least 24 bytes each, with or without ``whsec_``, separated by white
        space.
    :raises ValueError: if there is no secret, or one can't be decoded or is too short. The text never holds
        the secret.
    """

    def __init__(self, secrets: str) -> None:
        self._keys = [_key(secret) for secret in secrets.split()]
        if not self._keys:
            raise ValueError("a signing secret is needed")

    def __repr__(self) -> str:
        return f"<Signer, secrets: {len(self._keys)}>"

    def sign(self, message_id: str, timestamp: int, body: bytes) -> str:
        """Return the value of ``webhook-signature``.

        :param timestamp: the time of this attempt, in seconds since 1970-01-01 UTC.
        """
        return " ".join(self._signatures(message_id, timestamp, body))

    def has_signed(self, message_id: str, timestamp: int, body: bytes, signatures: str) -> bool:
        """Return whether one of the signatures was made with one of the secrets. It takes constant time.

        :param signatures: the value of ``webhook-signature``: one or several signatures, separated by spaces.
        """
        expected = [signature.encode() for signature in self._signatures(message_id, timestamp, body)]
        given = [signature.encode(errors="replace") for signature in signatures.split(" ")]
        are_equal = [hmac.compare_digest(one, other) for one in expected for other in given]  # all of them
        return any(are_equal)

    def _signatures(self, message_id: str, timestamp: int, body: bytes) -> list[str]:
        signed = f"{message_id}.{timestamp}.".encode() + body
        digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in self._keys)
        return [f"{VERSION},{base64.b64encode(digest).decode()}" for digest in digests]


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except ValueError:  # binascii.Error is a ValueError
        raise ValueError("a signing secret must be base64, with or without 'whsec_' before it") from None
    if len(key) < SHORTEST:
        raise ValueError(f"a signing secret must have at least {SHORTEST} bytes, not {len(key)}")
    return key
