"""The addresses of these pages and of Airflow's pages. Airflow may be served under any path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from fastapi import Request

__all__ = ["PREFIX", "Addresses"]

PREFIX = "/insightly"
"""The path at which the pages are mounted in Airflow's API server."""


class Addresses:
    """Makes addresses without scheme and host. So they work behind a reverse proxy, too.

    :param request: the request. Its answer holds the addresses.
    """

    def __init__(self, request: Request) -> None:
        self._own = str(request.scope.get("root_path", "")).rstrip("/")
        self._airflow = self._own.removesuffix(PREFIX)

    def page(self, path: str, query: Mapping[str, object] | None = None, /, **values: object) -> str:
        """Return the address of one of these pages.

        :param path: its path, such as ``/deliveries``.
        :param query: its query, without the values that are empty or ``None``. ``values`` override it.
        """
        wanted = {**(query or {}), **values}
        text = urlencode({name: value for name, value in wanted.items() if value not in (None, "")})
        return f"{self._own}{path}" + (f"?{text}" if text else "")

    def dag(self, dag_id: str) -> str:
        """Return the address of a DAG's page."""
        return f"{self._airflow}/dags/{_quoted(dag_id)}"

    def run(self, dag_id: str, run_id: str) -> str:
        """Return the address of a run's page."""
        return f"{self.dag(dag_id)}/runs/{_quoted(run_id)}"

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
        """Return the address of a task instance's page."""
        mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
        return f"{self.run(dag_id, run_id)}/tasks/{_quoted(task_id)}{mapped}"

    @property
    def here(self) -> str:
        """The path that all these pages begin with."""
        return self._own


def _quoted(text: str) -> str:
    return quote(text, safe="")
