"""Where the pages stand in Airflow's UI: in its navigation, and as a tab of DAG, run and task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_insightly_hooks.ui.addresses import PREFIX

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["EXTERNAL_VIEWS", "PAGES"]

NAME = "Insightly webhooks"


class LazyApp:
    """The pages' application, made when it is first asked for something.

    All of Airflow's components load the plugin, and only the API server needs the application.
    """

    def __init__(self) -> None:
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if self._app is None:
            from starlette.concurrency import run_in_threadpool

            from airflow_insightly_hooks.ui.app import make_app

            self._app = await run_in_threadpool(make_app)
        await self._app(scope, receive, send)


PAGES = [{"app": LazyApp(), "url_prefix": PREFIX, "name": NAME}]


def _view(route: str, href: str) -> dict[str, str]:
    # Relative to Airflow's own base address, which may have a path.
    return {
        "name": NAME,
        "url_route": route,
        "href": f"{PREFIX[1:]}{href}",
        "icon": f"{PREFIX[1:]}/static/icon.svg",
        "icon_dark_mode": f"{PREFIX[1:]}/static/icon-dark.svg",
    }


def _tab(destination: str, *fields: str) -> dict[str, str]:
    """Return the tab of a DAG, a run or a task: its deliveries."""
    query = "&".join(f"{field}={{{field.upper()}}}" for field in fields)
    route = f"insightly-webhooks-{destination.replace('_', '-')}"
    return {**_view(route, f"/deliveries?tab={destination}&{query}"), "destination": destination}


EXTERNAL_VIEWS = [
    {**_view("insightly-webhooks", "/"), "destination": "nav", "category": "browse"},
    _tab("dag", "dag_id"),
    _tab("dag_run", "dag_id", "run_id"),
    _tab("task", "dag_id", "task_id"),
    _tab("task_instance", "dag_id", "run_id", "task_id", "map_index"),
]
