"""JSON bodies of requests, which are checked, and of responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from starlette.requests import Request
from starlette.responses import Response

from airflow_insightly_hooks.core import exact_json
from airflow_insightly_hooks.sandbox.crm.error_answers import BadRequest

__all__ = ["json_body", "json_response", "object_body"]


async def json_body(request: Request) -> Any:
    """Return the request's body.

    :raises BadRequest: if it is not JSON, or holds text that UTF-8 can't encode.
    """
    raw = await request.body()
    try:
        body = exact_json.loads(raw, parse_constant=_reject_constant)
        if b"\\u" in raw:
            exact_json.dumps(body, ensure_ascii=False).encode()  # fails for half a surrogate pair
    except ValueError:
        raise BadRequest("The body is not JSON.") from None
    return body


async def object_body(request: Request) -> dict[str, Any]:
    """Return the request's body, a JSON object.

    :raises BadRequest: if it is not a JSON object.
    """
    body = await json_body(request)
    if not isinstance(body, dict):
        raise BadRequest("The body is not a JSON object.")
    return body


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with the body ``content``."""
    body = exact_json.dumps(content, ensure_ascii=False)
    return Response(body, status, headers, media_type="application/json")


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
