"""The plugin that Airflow loads."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from airflow_insightly_hooks.operators.links import DeliveriesLink, ReceiverLink, WorkflowRecordsLink
from airflow_insightly_hooks.plugin.endpoint import ENDPOINT
from airflow_insightly_hooks.plugin.unpausing import StartWatchers
from airflow_insightly_hooks.plugin.views import EXTERNAL_VIEWS, PAGES
from airflow_insightly_hooks.sensors.links import InsightlyRecordsLink

__all__ = ["InsightlyHooksPlugin"]


class InsightlyHooksPlugin(AirflowPlugin):
    """Registers the pages, the endpoint, the links of tasks, and the middleware that starts watchers."""

    name = "insightly_hooks"
    operator_extra_links = [  # noqa: RUF012 — Airflow declares it in this way
        DeliveriesLink(),
        InsightlyRecordsLink(),
        ReceiverLink(),
        WorkflowRecordsLink(),
    ]
    fastapi_root_middlewares = [  # noqa: RUF012 — likewise
        {"middleware": StartWatchers, "name": "insightly_hooks: start the watchers of unpaused DAGs"}
    ]
    # The endpoint's address is below the pages' address, so it comes first.
    fastapi_apps = [ENDPOINT, PAGES]  # noqa: RUF012 — likewise
    external_views = EXTERNAL_VIEWS
