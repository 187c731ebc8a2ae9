"""What Airflow must mask in all logs, for code that isn't ours."""

from __future__ import annotations

import base64
from urllib.parse import unquote, urlsplit

from airflow.sdk.log import mask_secret

__all__ = ["mask", "mask_user_information"]


def mask(*secrets: str) -> None:
    """Have Airflow mask texts, but for empty ones and the word ``Basic``."""
    for secret in secrets:
        if secret and secret != "Basic":  # noqa: S105 — the scheme's name is none
            mask_secret(secret)


def mask_user_information(uri: str) -> None:
    """Have Airflow mask the password of a URI, such as a proxy's: as written, decoded, and as it is sent.

    A text that is not a URI is passed over.
    """
    try:
        parts = urlsplit(uri if "://" in uri else f"http://{uri}")  # as clients take a proxy's
    except ValueError:
        return
    if "@" in parts.netloc:
        secret = parts.password or parts.username or ""  # a token may stand alone
        credentials = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        # requests sends Latin-1 where it can; others, and ours, send UTF-8.
        sent = {credentials.encode(charset, errors="replace") for charset in ("utf-8", "latin-1")}
        mask(secret, unquote(secret), *(base64.b64encode(one).decode() for one in sent))
