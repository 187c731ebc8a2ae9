"""Register secrets with Airflow, so that it masks them in all logs, also in logs of other packages."""

from __future__ import annotations

import base64
from urllib.parse import unquote, urlsplit

from airflow.sdk.log import mask_secret

__all__ = ["mask", "mask_user_information"]


def mask(*secrets: str) -> None:
    """Have Airflow mask texts, except empty texts and the word ``Basic``."""
    for secret in secrets:
        if secret and secret != "Basic":  # noqa: S105 — the name of the scheme is not a secret
            mask_secret(secret)


def mask_user_information(uri: str) -> None:
    """Have Airflow mask the password of a URI, such as a proxy's: as written, decoded, and as it is sent.

    A text that is not a URI is ignored.
    """
    try:
        parts = urlsplit(
            uri if "://" in uri else f"http://{uri}"
        )  # HTTP clients read proxies' URIs like this
    except ValueError:
        return
    if "@" in parts.netloc:
        secret = parts.password or parts.username or ""  # a token may be given as the user name
        credentials = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        # requests sends Latin-1 if possible. Other clients, and this package, send UTF-8.
        sent = {credentials.encode(charset, errors="replace") for charset in ("utf-8", "latin-1")}
        mask(secret, unquote(secret), *(base64.b64encode(one).decode() for one in sent))
