"""What the endpoint answers where it doesn't take a webhook, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping

from starlette.responses import JSONResponse

__all__ = ["Refusal", "overloaded", "unauthorized", "unavailable"]

RETRY_AFTER = 5
"""Seconds after which a sender may try again while Airflow's database is away."""


class Refusal(Exception):
    """An answer that is no 2xx.

    :param status: of HTTP.
    :param detail: what was wrong, and what to do; nothing of the body's contents, no secrets.
    :param headers: of the answer.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})

    def response(self) -> JSONResponse:
        """Return the answer."""
        # What is left of the body is not read: this connection is of no more use.
        return JSONResponse({"detail": self.detail}, self.status, {"Connection": "close", **self.headers})


def unauthorized(detail: str = "The credentials are missing or wrong.") -> Refusal:
    """Return the answer to wrong credentials: the same whether or not there is a connection."""
    return Refusal(401, detail, {"WWW-Authenticate": 'Basic realm="Insightly webhooks", charset="UTF-8"'})


def overloaded(seconds: float) -> Refusal:
    """Return the answer to too many requests.

    :param seconds: after which there may be more.
    """
    return Refusal(
        429,
        "These are more requests a minute than the connection allows (requests_per_minute).",
        {"Retry-After": str(max(1, math.ceil(seconds)))},
    )


def unavailable() -> Refusal:
    """Return the answer while nothing can be stored, so that the sender tries again."""
    detail = "Airflow can't store it at the moment: send it again."
    return Refusal(503, detail, {"Retry-After": str(RETRY_AFTER)})
