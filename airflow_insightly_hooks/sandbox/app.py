"""The sandbox as an ASGI application."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from airflow_insightly_hooks.sandbox.crm.error_answers import ApiError
from airflow_insightly_hooks.sandbox.http.api_paths import api_router
from airflow_insightly_hooks.sandbox.http.bin_paths import BinPaths
from airflow_insightly_hooks.sandbox.http.control_paths import ControlPaths
from airflow_insightly_hooks.sandbox.http.html_pages import html_response, index_page
from airflow_insightly_hooks.sandbox.http.json_body import json_response
from airflow_insightly_hooks.sandbox.http.middleware import API_PATH, CONTROL_PATH, METHODS, SandboxMiddleware
from airflow_insightly_hooks.sandbox.http.request_guard import RequestGuard
from airflow_insightly_hooks.sandbox.http.state import SandboxState

__all__ = ["create_app"]


def create_app(clock: Callable[[], float] = time.time, *, hosts: Collection[str] = ()) -> Starlette:
    """Return a new sandbox with records, bins and settings of its own.

    :param clock: returns the time, in seconds since 1970. The seeded records' times are relative to it.
    :param hosts: further host names that requests may have, besides this machine's own: see ``RequestGuard``.
    """
    state = SandboxState(clock)
    bins, control = BinPaths(state), ControlPaths(state)

    async def index(request: Request) -> Response:
        return html_response(index_page(str(request.base_url).rstrip("/"), state.bins))

    app = Starlette(
        routes=[
            Route("/", index),
            Route("/bin/{name}", bins.bin, methods=list(METHODS)),
            Route("/bin/{name}/requests", bins.requests),
            Route(CONTROL_PATH, control.sandbox, methods=["GET", "PUT", "DELETE"]),
            Route(f"{CONTROL_PATH}/history", control.history, methods=["GET"]),
            Route(f"{CONTROL_PATH}/records/{{record_type}}", control.records, methods=["POST"]),
            Route(
                f"{CONTROL_PATH}/records/{{record_type}}/{{record_id}}",
                control.record,
                methods=["PUT", "DELETE"],
            ),
            Mount(API_PATH, app=api_router(state)),
        ],
        middleware=[Middleware(RequestGuard, hosts=hosts), Middleware(SandboxMiddleware, state=state)],
        exception_handlers={ApiError: _api_error_response, HTTPException: _http_exception_response},
    )
    app.router.redirect_slashes = False
    return app


def _api_error_response(_request: Request, error: Exception) -> Response:
    """Return the response to an error in the API's form: ``{"Message": …}``."""
    assert isinstance(error, ApiError)  # noqa: S101 - the handler is registered for this class only
    return json_response({"Message": error.message}, error.status)


def _http_exception_response(_request: Request, error: Exception) -> Response:
    """Return the response to the router's own errors (404, 405) in the same form."""
    assert isinstance(error, HTTPException)  # noqa: S101 - the handler is registered for this class only
    return json_response({"Message": error.detail}, error.status_code, error.headers)
