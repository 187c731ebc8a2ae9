"""The routes of the pages, each with an address at which a test asks for it."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, urlencode

from fastapi.routing import APIRoute

from airflow_insightly_hooks.ui.addresses import PREFIX
from airflow_insightly_hooks.ui.app import make_app
from tests.ui.seed import RESEND_REQUEST, Seed

__all__ = ["CHANGES", "PAGES", "address_of"]

ROUTES = [route for route in make_app().routes if isinstance(route, APIRoute)]
PAGES = [route.path for route in ROUTES if "GET" in route.methods]
"""The paths of what is shown."""
CHANGES = [route.path for route in ROUTES if route.methods - {"GET", "HEAD"}]
"""The paths of what changes something, or asks others."""


def _delivery(seed: Seed) -> str:
    dag_id, run_id, task_id = seed.tasks["response"]
    message_id = seed.messages["response"]
    task = urlencode({"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "message_id": message_id})
    return f"/delivery?{task}"


SAMPLES: dict[str, Callable[[Seed], str]] = {
    "/delivery": _delivery,
    "/resend": lambda seed: f"/resend?id={RESEND_REQUEST}",
    "/pending/runs": lambda seed: f"/pending/runs?request={quote(seed.request)}",
}
"""Path -> what makes an address of it that shows something, where the path alone does not."""


def address_of(path: str, seed: Seed) -> str:
    """Return an address for a route, below Airflow's own.

    :raises KeyError: if it has parameters, and ``SAMPLES`` doesn't know it.
    """
    return PREFIX + (SAMPLES[path](seed) if path in SAMPLES or "{" in path else path)
