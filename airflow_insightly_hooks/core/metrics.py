"""The metrics of this package: name, type, unit, tags and meaning of each.

``operators.delivery.metrics``, ``incoming.metrics`` and ``triggers.metrics`` send them, by Airflow's own
means. The reference's page of metrics is made of these declarations.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["METRICS", "Metric"]

TASK = "Airflow's tags of a task (`dag_id`, `task_id`, …)"


class Metric(NamedTuple):
    """One metric.

    :param name: as it is sent, without Airflow's prefix (``[metrics] statsd_prefix``).
    :param kind: its type.
    :param unit: what is counted or measured.
    :param tags: what it is tagged with.
    :param meaning: when it is sent, and what it says.
    """

    name: str
    kind: Literal["counter", "gauge", "timing"]
    unit: str
    tags: str
    meaning: str


ATTEMPTS = Metric("insightly_webhook.attempts", "counter", "POSTs", TASK, "The POSTs of a try, at its end.")
DELIVERED = Metric(
    "insightly_webhook.delivered",
    "counter",
    "payloads",
    TASK,
    "The payloads that were acknowledged in a try, counted at its end.",
)
UNDELIVERED = Metric(
    "insightly_webhook.undelivered",
    "counter",
    "payloads",
    TASK,
    "The payloads that are not acknowledged at the end of a try. Each try counts them again.",
)
IN_DOUBT = Metric(
    "insightly_webhook.in_doubt",
    "counter",
    "payloads",
    TASK,
    "The payloads whose outcome is not known, since an earlier try was interrupted. They are sent again.",
)
LATENCY = Metric(
    "insightly_webhook.latency",
    "timing",
    "milliseconds",
    TASK,
    "The time of each POST, from its beginning to the end of its answer.",
)
FAILING = Metric(
    "insightly_webhook.failing_seconds",
    "gauge",
    "seconds",
    f"{TASK}, and `webhook`: `{{dag_id}}/{{webhook}}`",
    "How long a workflow's receiver has been down; 0 when it works.",
)
WAITING = Metric(
    "insightly_webhook.waiting",
    "gauge",
    "messages",
    f"{TASK}, and `webhook`: `{{dag_id}}/{{webhook}}`",
    "How many messages of a webhook wait in the workflow's retry DAG.",
)
RECEIVED = Metric(
    "insightly_webhook.received",
    "counter",
    "webhooks",
    "`status`, that of the answer",
    "The webhooks of Insightly that Airflow's API server has answered.",
)
UNANNOUNCED = Metric(
    "insightly_webhook.unannounced",
    "counter",
    "changes",
    "`insightly_conn_id`, `record_type`",
    "The changes that a poll has found and that no webhook of Insightly has announced.",
)

METRICS = (
    ATTEMPTS,
    DELIVERED,
    UNDELIVERED,
    IN_DOUBT,
    LATENCY,
    FAILING,
    WAITING,
    RECEIVED,
    UNANNOUNCED,
)
"""All of them."""
