"""The endpoint's answers to webhooks that it doesn't accept."""

from __future__ import annotations

import math
from collections.abc import Mapping

from starlette.responses import JSONResponse

__all__ = ["Refusal", "overloaded", "unauthorized", "unavailable"]

RETRY_AFTER = 5
"""Seconds after which a sender may try again while Airflow's database doesn't answer."""


class Refusal(Exception):
    """An answer with another status than 2xx.

    :param status: the HTTP status.
    :param detail: what was wrong, and what to do. It must not hold contents of the body, or secrets.
    :param headers: the answer's headers.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})

    def response(self) -> JSONResponse:
        """Return the answer."""
        # The rest of the body is not read, so this connection can't be used again.
        return JSONResponse({"detail": self.detail}, self.status, {"Connection": "close", **self.headers})


def unauthorized(detail: str = "The credentials are missing or wrong.") -> Refusal:
    """Return the answer to wrong credentials. It is the same whether or not the connection exists."""
    return Refusal(401, detail, {"WWW-Authenticate": 'Basic realm="Insightly webhooks", charset="UTF-8"'})


def overloaded(seconds: float) -> Refusal:
    """Return the answer to too many requests.

    :param seconds: the time after which the sender may send again.
    """
    return Refusal(
        429,
        "There are more requests per minute than the connection allows (requests_per_minute): send it again "
        "after the seconds that Retry-After gives.",
        {"Retry-After": str(max(1, math.ceil(seconds)))},
    )


def unavailable() -> Refusal:
    """Return the answer while nothing can be stored. It asks the sender to try again."""
    detail = "Airflow can't store the webhook at the moment: send it again."
    return Refusal(503, detail, {"Retry-After": str(RETRY_AFTER)})
