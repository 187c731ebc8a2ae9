"""The metrics of deliveries: when each is sent (``core.metrics`` declares them)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk.observability import stats

from airflow_insightly_hooks.core.delivery.report import Tally
from airflow_insightly_hooks.core.metrics import (
    ATTEMPTS,
    DELIVERED,
    FAILING,
    IN_DOUBT,
    LATENCY,
    UNDELIVERED,
    WAITING,
)

__all__ = ["count_in_doubt", "count_try", "gauge_failing", "gauge_waiting", "tags_of", "time_post"]

Tags = dict[str, str]


def tags_of(ti: Any) -> Tags:
    """Return the tags of a task instance's metrics; an empty dict outside of Airflow."""
    return dict(getattr(ti, "stats_tags", {}))


def time_post(seconds: float, tags: Tags) -> None:
    """Report how long a POST took."""
    stats.timing(LATENCY.name, timedelta(seconds=seconds), tags=tags)


def gauge_failing(seconds: float, webhook: str, tags: Tags) -> None:
    """Report for how long a webhook's receiver has been down."""
    stats.gauge(FAILING.name, seconds, tags={**tags, "webhook": webhook})


def gauge_waiting(count: int, webhook: str, tags: Tags) -> None:
    """Report how many messages of a webhook wait to be sent again."""
    stats.gauge(WAITING.name, count, tags={**tags, "webhook": webhook})


def count_in_doubt(count: int, tags: Tags) -> None:
    """Count payloads that an earlier try has left in doubt."""
    stats.incr(IN_DOUBT.name, count, tags=tags)


def count_try(tally: Tally, undelivered: int, tags: Tags) -> None:
    """Count what a try has done, and how many payloads are undelivered after it."""
    for metric, count in (
        (DELIVERED, tally.acknowledged),
        (UNDELIVERED, undelivered),
        (ATTEMPTS, tally.posted),
    ):
        if count:
            stats.incr(metric.name, count, tags=tags)
