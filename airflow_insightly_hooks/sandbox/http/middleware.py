"""Middleware: checks the API key, applies limits and faults, and adds headers to every response."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_insightly_hooks.sandbox.http.basic_auth import credentials
from airflow_insightly_hooks.sandbox.http.json_body import json_response
from airflow_insightly_hooks.sandbox.http.settings import path_template
from airflow_insightly_hooks.sandbox.http.state import SandboxState

__all__ = ["API_KEY", "API_PATH", "CONTROL_PATH", "METHODS", "SandboxMiddleware"]

API_PATH = "/v3.1"
API_KEY = "sandbox-key"
METHODS = frozenset({"GET", "POST", "PUT", "DELETE"})
CONTROL_PATH = "/_sandbox"


class SandboxMiddleware:
    """ASGI middleware for all paths. It passes a request on to ``app``, or answers it with an error."""

    def __init__(self, app: ASGIApp, state: SandboxState) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"]
        is_api = path == API_PATH or path.startswith(f"{API_PATH}/")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Date"] = self._state.clock.http_date()
                if is_api:
                    headers["X-RateLimit-Limit"] = str(self._state.settings.requests_per_day)
                    headers["X-RateLimit-Remaining"] = str(self._state.limits.remaining_today)
            await send(message)

        if not path.startswith(CONTROL_PATH):
            self._state.requests[f"{scope['method']} {path_template(path)}"] += 1
        error_response = self._error_response(Request(scope), path) if is_api else None
        cut = self._state.settings.cut
        if is_api and error_response is None and cut and cut.check_and_count(path):
            await self._app(scope, receive, _truncated(send_with_headers))
        else:
            await (error_response or self._app)(scope, receive, send_with_headers)

    def _error_response(self, request: Request, path: str) -> Response | None:
        """Return the error that answers an API request, or ``None`` if the request goes on to ``app``."""
        if credentials(request) != (API_KEY, ""):
            headers = {"WWW-Authenticate": 'Basic realm="Insightly"'}
            return _message_response(401, "The API key is missing or wrong.", headers)
        limited = self._state.limits.acquire()
        if not limited.allowed:
            if limited.retry_after is None:
                return _message_response(429, "All requests of this day are used up.")
            return _message_response(
                429, "Too many requests in a second.", {"Retry-After": str(limited.retry_after)}
            )
        fault = self._state.settings.fault
        if fault and fault.check_and_count(path):
            headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            return _message_response(fault.status, "This is the fault in the sandbox's settings.", headers)
        if request.method not in METHODS:
            return _message_response(405, "The API does not offer this method here.")
        return None


def _truncated(send: Send) -> Send:
    """Return a ``send`` that sends half of a body. The server then closes the connection."""

    async def send_half(message: Message) -> None:
        if message["type"] == "http.response.body":
            body = message.get("body", b"")
            message = {"type": message["type"], "body": body[: len(body) // 2], "more_body": True}
        await send(message)

    return send_half


def _message_response(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    if status in (204, 304):
        return Response(status_code=status, headers=headers)
    return json_response({"Message": message}, status, headers)
