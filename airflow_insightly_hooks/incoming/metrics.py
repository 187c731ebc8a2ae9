"""The metric of incoming webhooks."""

from __future__ import annotations

from airflow.observability import stats

__all__ = ["count_webhook"]

RECEIVED = "insightly_webhook.received"
"""Counter: webhooks that came to Airflow, by the status of the answer."""


def count_webhook(status: int) -> None:
    """Count one.

    :param status: the answer's.
    """
    stats.incr(RECEIVED, tags={"status": str(status)})
