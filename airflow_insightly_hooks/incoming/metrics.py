"""The metric of incoming webhooks."""

from __future__ import annotations

from airflow.observability import stats

from airflow_insightly_hooks.core.metrics import RECEIVED

__all__ = ["count_webhook"]


def count_webhook(status: int) -> None:
    """Count one webhook.

    :param status: the status of the answer.
    """
    stats.incr(RECEIVED.name, tags={"status": str(status)})
