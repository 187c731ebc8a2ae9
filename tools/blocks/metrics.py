"""The block of the metrics, from ``core/metrics.py``."""

from __future__ import annotations

from airflow_insightly_hooks.core.metrics import METRICS
from blocks.markdown import table


def block(_about: str) -> str:
    """Return all metrics."""
    rows = ((f"`{metric.name}`", metric.kind, metric.unit, metric.tags, metric.meaning) for metric in METRICS)
    return table(("metric", "type", "unit", "tags", "meaning"), rows)
