"""An application that is made when it is first asked for something."""

from __future__ import annotations

from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["LazyApp"]


class LazyApp:
    """All of Airflow's components load the plugin, and only the API server needs its applications.

    :param module: what has the function ``make_app``.
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
        assert self._app is not None  # noqa: S101 — it is made
        await self._app(scope, receive, send)

    def _make(self) -> None:
        with self._making:  # the first requests may come at once, and an application may have a memory
            if self._app is None:
                self._app = import_module(self._module).make_app()
