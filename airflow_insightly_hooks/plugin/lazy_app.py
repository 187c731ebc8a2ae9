"""An application that is created with its first request."""

from __future__ import annotations

from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["LazyApp"]


class LazyApp:
    """Creates an application with its first request.

    All components of Airflow load the plugin, but only the API server needs its applications.

    :param module: the name of the module whose function ``make_app`` creates the application.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._app: ASGIApp | None = None
        self._making = Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if self._app is None:
            from starlette.concurrency import run_in_threadpool

            await run_in_threadpool(self._make)
        assert self._app is not None  # noqa: S101 — it exists now
        await self._app(scope, receive, send)

    def _make(self) -> None:
        with self._making:  # the first requests may come at once, but an application may keep state
            if self._app is None:
                self._app = import_module(self._module).make_app()
