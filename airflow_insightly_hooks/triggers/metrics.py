"""The metric of watchers."""

from __future__ import annotations

from airflow.observability import stats

from airflow_insightly_hooks.core.metrics import UNANNOUNCED

__all__ = ["count_unannounced"]


def count_unannounced(count: int, insightly_conn_id: str, record_type: str) -> None:
    """Count changes that no webhook has announced."""
    tags = {"insightly_conn_id": insightly_conn_id, "record_type": record_type}
    stats.incr(UNANNOUNCED.name, count, tags=tags)
