"""The places of the pages in Airflow's UI: in its navigation, and as a tab of DAGs, runs and tasks."""

from __future__ import annotations

from airflow_insightly_hooks.plugin.lazy_app import LazyApp
from airflow_insightly_hooks.ui.addresses import PREFIX

__all__ = ["EXTERNAL_VIEWS", "PAGES"]

NAME = "Insightly webhooks"


PAGES = {"app": LazyApp("airflow_insightly_hooks.ui.app"), "url_prefix": PREFIX, "name": NAME}


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
    """Return the tab that shows the deliveries of a DAG, a run or a task."""
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
