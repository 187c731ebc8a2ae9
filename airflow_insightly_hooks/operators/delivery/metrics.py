"""The names of the metrics of deliveries, and the functions that send them, with Airflow's tags of tasks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk.observability import stats

from airflow_insightly_hooks.core.delivery.report import Tally

__all__ = ["count_in_doubt", "count_try", "gauge_failing", "gauge_waiting", "tags_of", "time_post"]

ATTEMPTS = "insightly_webhook.attempts"
"""Counter: POSTs."""
DELIVERED = "insightly_webhook.delivered"
"""Counter: payloads that were acknowledged."""
IN_DOUBT = "insightly_webhook.in_doubt"
"""Counter: payloads that an interrupted try may have sent."""
LATENCY = "insightly_webhook.latency"
"""Timing: each POST, from its beginning to its answer."""
UNDELIVERED = "insightly_webhook.undelivered"
"""Counter: payloads that are undelivered at the end of a try."""
FAILING = "insightly_webhook.failing_seconds"
"""Gauge: the seconds for which a webhook's receiver has been down; 0 if it is not down."""
WAITING = "insightly_webhook.waiting"
"""Gauge: messages that wait in a workflow's retry DAG."""

Tags = dict[str, str]


def tags_of(ti: Any) -> Tags:
    """Return the tags of a task instance's metrics; an empty dict outside of Airflow."""
    return dict(getattr(ti, "stats_tags", {}))


def time_post(seconds: float, tags: Tags) -> None:
    """Report how long a POST took."""
    stats.timing(LATENCY, timedelta(seconds=seconds), tags=tags)


def gauge_failing(seconds: float, webhook: str, tags: Tags) -> None:
    """Report the seconds for which a webhook's receiver has been down."""
    stats.gauge(FAILING, seconds, tags={**tags, "webhook": webhook})


def gauge_waiting(count: int, webhook: str, tags: Tags) -> None:
    """Report how many messages of a webhook wait to be sent again."""
    stats.gauge(WAITING, count, tags={**tags, "webhook": webhook})


def count_in_doubt(count: int, tags: Tags) -> None:
    """Count payloads that an earlier try has left in doubt."""
    stats.incr(IN_DOUBT, count, tags=tags)


def count_try(tally: Tally, undelivered: int, tags: Tags) -> None:
    """Count the POSTs and results of a try, and the payloads that are undelivered after it."""
    for name, count in (
        (DELIVERED, tally.acknowledged),
        (UNDELIVERED, undelivered),
        (ATTEMPTS, tally.posted),
    ):
        if count:
            stats.incr(name, count, tags=tags)
