"""The link from a deliver task to the receiver's page."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

from airflow_insightly_hooks.hooks.api.api_errors import NO_CONNECTION

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

__all__ = ["ReceiverLink"]


class ReceiverLink(BaseOperatorLink):
    """From the deliver task to the page that the connection's extra ``web_url`` names."""

    name = "Receiver"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 — Airflow's signature
        """Return the address, or an empty text where there is none: Airflow then shows no link."""
        from airflow_insightly_hooks.hooks.webhook import WebhookHook

        with suppress(*NO_CONNECTION):  # the task has said so itself
            if not getattr(operator, "uri", None):
                return WebhookHook(getattr(operator, "webhook_conn_id", "")).web_url
        return ""
