"""The metric of watchers."""

from __future__ import annotations

from airflow.observability import stats

__all__ = ["count_unannounced"]

UNANNOUNCED = "insightly_webhook.unannounced"
"""Counter: changes that a poll has seen, and no webhook of Insightly's has told of."""


def count_unannounced(count: int, insightly_conn_id: str, record_type: str) -> None:
    """Count changes that no webhook has told of."""
    tags = {"insightly_conn_id": insightly_conn_id, "record_type": record_type}
    stats.incr(UNANNOUNCED, count, tags=tags)
