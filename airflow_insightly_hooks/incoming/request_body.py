"""Reading a request's body, within bounds."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from airflow_insightly_hooks.incoming.answers import Refusal

__all__ = ["check_content_type", "read_body"]

PATIENCE = 30.0
"""Seconds within which a body must have come, however slowly."""
MOST_DIGITS = 12
"""Of the size of a body that is not too large in any case."""
CHARSETS = ("utf-8", "utf8", "us-ascii")


def check_content_type(request: Request) -> None:
    """Check what a request says of its body; one that says nothing is taken for JSON in UTF-8.

    :raises Refusal: 415, if it isn't that.
    """
    media_type, *parameters = request.headers.get("content-type", "application/json").lower().split(";")
    kind, _, subtype = media_type.strip().partition("/")
    if kind != "application" or not (subtype == "json" or subtype.endswith("+json")):
        raise Refusal(415, "The body must be JSON: Content-Type: application/json.")
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name.strip() == "charset" and value.strip(' "') not in CHARSETS:
            raise Refusal(415, "The body must be in UTF-8.")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Refusal(415, "The body must not be compressed.", {"Accept-Encoding": "identity"})


async def read_body(request: Request, most: int) -> bytes:
    """Return a request's body.

    :param most: bytes; of a larger body no more is read.
    :raises Refusal: 413, if it is larger; 408, if it takes too long; 400, if it breaks off.
    """
    too_large = Refusal(413, f"The body has more than {most} bytes (max_body_bytes of the connection).")
    declared = request.headers.get("content-length", "").strip().lstrip("0")
    if declared.isascii() and declared.isdigit() and (len(declared) > MOST_DIGITS or int(declared) > most):
        raise too_large
    body = bytearray()

    async def read() -> None:
        async for chunk in request.stream():
            body.extend(chunk)
            if len(body) > most:
                raise too_large

    try:
        await asyncio.wait_for(read(), PATIENCE)
    except asyncio.TimeoutError:
        raise Refusal(408, f"The body did not come within {PATIENCE:g} s.") from None
    except ClientDisconnect:
        raise Refusal(400, "The body broke off.") from None
    return bytes(body)
