"""The application: its routes, the headers of every answer, and the pages for errors."""

from __future__ import annotations

import logging
import traceback

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.core_api.security import requires_authenticated
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from sqlalchemy.exc import OperationalError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_insightly_hooks.core.errors import InsightlyHooksError
from airflow_insightly_hooks.ui.problems import Problem
from airflow_insightly_hooks.ui.rendering import FOLDER, Renderer
from airflow_insightly_hooks.ui.routes import deliveries, delivery, overview, pending, preview, resend

__all__ = ["make_app"]

log = logging.getLogger(__name__)

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'self'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    # If a browser sends no referrer at all, its POSTs have no origin, either.
    "Referrer-Policy": "same-origin",
}
PERSONAL = {"Cache-Control": "no-store"}
UNREADABLE_TOKEN = (403, "Invalid JWT token")
"""Airflow's answer to a token from before a change of its secret. Its own pages then ask for a login, too."""
PACKAGE = FOLDER.parent
ROUTERS = (deliveries.router, delivery.router, overview.router, pending.router, preview.router, resend.router)


def make_app() -> FastAPI:
    """Return the application. Its pages are only for persons who are logged in to Airflow."""
    app = FastAPI(
        title="Insightly webhooks",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # it would redirect to any host that the request names
        exception_handlers={
            Problem: _problem,
            HTTPException: _http_exception,
            InsightlyHooksError: _our_error,
            OperationalError: _no_database,
        },
    )
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")
    for router in ROUTERS:
        app.include_router(router, dependencies=[Depends(requires_authenticated())])
    app.add_middleware(_Guard)
    return app


class _Guard:
    """Adds the headers to every answer. Also answers if a page fails: the server would log its contents."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def with_headers(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                headers = MutableHeaders(scope=message)
                is_file = "etag" in headers
                for name, value in (HEADERS if is_file else HEADERS | PERSONAL).items():
                    headers[name] = value
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        except Exception as error:
            answer = _unexpected(Request(scope), error)
            if not has_begun:
                await answer(scope, receive, with_headers)


# --- errors ------------------------------------------------------------------------------------------------


def _is_browser(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


def _shown(request: Request, status: int, title: str, detail: str) -> Response:
    """Return an error as a page for browsers, and as JSON for other clients."""
    if _is_browser(request):
        return Renderer(request)("error.html", status=status, title=title, detail=detail)
    return JSONResponse({"title": title, "detail": detail}, status)


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101 — it is registered for this class
    return _shown(request, error.status, error.title, error.detail)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 — likewise
    status = 401 if (error.status_code, error.detail) == UNREADABLE_TOKEN else error.status_code
    if status == 401 and request.method == "GET" and _is_browser(request):
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(get_auth_manager().get_url_login(next_url=here), 303)
    titles = {401: "Please log in", 403: "Not allowed", 404: "Not found", 405: "That can't be done"}
    details = {
        401: "Log in to Airflow, then come back to this page.",
        404: "There is no such page. Its address may be incomplete.",
    }
    detail = details.get(status, str(error.detail))
    return _shown(request, status, titles.get(status, "That can't be done"), detail)


async def _our_error(request: Request, error: Exception) -> Response:
    return _shown(request, 500, "Something can't be read", str(error))


async def _no_database(request: Request, error: Exception) -> Response:
    log.warning("Airflow's database did not answer: %s", type(error).__name__)
    detail = "Airflow's database did not answer. Try again in a moment."
    if request.method != "GET":  # the last statements may have reached the database
        detail = (
            "Airflow's database did not answer. Your request may have been carried out, fully or in part. "
            "Look at the list before you try again."
        )
    return _shown(request, 503, "The database did not answer", detail)


def _unexpected(request: Request, error: Exception) -> Response:
    # The error's text may hold contents of records. The place at which it was raised holds none.
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(str(PACKAGE))] or frames
    place = f"{ours[-1].filename}:{ours[-1].lineno}" if ours else "an unknown place"
    log.error("A page failed: %s at %s", type(error).__name__, place)
    detail = f"This page failed ({type(error).__name__}). The API server's log says where."
    return _shown(request, 500, "Something went wrong", detail)
