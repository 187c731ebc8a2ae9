"""Links from deliver tasks to receivers, to Insightly, and to the page of their deliveries."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf

from airflow_insightly_hooks.hooks.api.api_errors import NO_CONNECTION

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

__all__ = ["DeliveriesLink", "ReceiverLink", "WorkflowRecordsLink"]


class ReceiverLink(BaseOperatorLink):
    """From the deliver task to the page that the connection's extra ``web_url`` names."""

    name = "Receiver"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 — Airflow's signature
        """Return the address. For an empty text, a receiver without a page, Airflow shows no link."""
        from airflow_insightly_hooks.hooks.webhook import WebhookHook

        with suppress(*NO_CONNECTION):  # the task itself has reported it
            if conn_id := _conn_id_of(operator):
                return WebhookHook(conn_id).web_url
        return ""


def _conn_id_of(operator: BaseOperator) -> str | None:
    """Return the connection id of a task that has one receiver; else ``None``."""
    if getattr(operator, "uri", None):
        return None
    if (workflow := getattr(operator, "workflow", None)) is None or isinstance(workflow, str):
        return getattr(operator, "webhook_conn_id", None)
    at_once = [webhook for webhook in workflow.webhooks if not webhook.is_timed]
    return at_once[0].conn_id if len(at_once) == 1 else None


class WorkflowRecordsLink(BaseOperatorLink):
    """From a task that runs a workflow to the list of its record type in Insightly."""

    name = "Records in Insightly"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 — Airflow's signature
        """Return the address. For an empty text Airflow shows no link."""
        from airflow_insightly_hooks.hooks.insightly import records_page

        workflow = getattr(operator, "workflow", None)
        with suppress(*NO_CONNECTION):  # the task itself has reported it
            if workflow is not None:
                return records_page(workflow.insightly_conn_id, workflow.record_type)
        return ""


class DeliveriesLink(BaseOperatorLink):
    """From a task that runs a whole workflow to the page of its deliveries."""

    name = "Deliveries"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 — Airflow's signature
        """Return the address of the page in Airflow's UI."""
        task = {"dag_id": ti_key.dag_id, "run_id": ti_key.run_id, "task_id": ti_key.task_id}
        if ti_key.map_index >= 0:
            task["map_index"] = str(ti_key.map_index)
        base = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
        return f"{base}/insightly/deliveries?{urlencode(task)}"
