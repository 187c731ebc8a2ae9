"""Read a request's body, with limits on its size and on the time."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from airflow_insightly_hooks.incoming.answers import Refusal

__all__ = ["check_content_type", "read_body"]

TIMEOUT = 30.0
"""Seconds within which the whole body must arrive."""
MOST_DIGITS = 12
"""If a declared size has more digits, the body is too large under any limit."""
CHARSETS = ("utf-8", "utf8", "us-ascii")


def check_content_type(request: Request) -> None:
    """Check the headers that describe the body. Without these headers, it counts as JSON in UTF-8.

    :raises Refusal: 415, if the body is not JSON, not in UTF-8, or compressed.
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

    :param most: the most bytes that the body may have. If it is larger, reading stops.
    :raises Refusal: 413, if it is larger; 408, if it takes too long; 400, if it ends early.
    """
    too_large = Refusal(
        413, f"The body has more than {most} bytes, the limit in the connection's field max_body_bytes."
    )
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
        await asyncio.wait_for(read(), TIMEOUT)
    except asyncio.TimeoutError:
        raise Refusal(408, f"The body did not arrive within {TIMEOUT:g} s: send it again.") from None
    except ClientDisconnect:
        raise Refusal(400, "The body ended early: send it again.") from None
    return bytes(body)
