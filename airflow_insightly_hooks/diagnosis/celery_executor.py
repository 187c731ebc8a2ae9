"""Check whether tasks of the Celery executor survive an outage of its broker."""

from __future__ import annotations

import json
from collections.abc import Callable

from airflow_insightly_hooks.diagnosis.findings import OK, WARNING, Finding

__all__ = ["check_celery_executor"]

SUBJECT = "[celery] of airflow.cfg"
EXECUTOR = "CeleryExecutor"
POLICY = "task_publish_retry_policy"
ENOUGH_TRIES = 10
"""The least number of Celery's retries to queue a task. With fewer, it gives up before Airflow's time-out.

Airflow waits ``operation_timeout`` (1 s) for Celery. After that, it keeps the task and tries again. If Celery
gives up earlier, Airflow fails the task. By default, Celery tries 3 more times, in 0.7 s.
"""
CELERYS_DEFAULT = 3.0
ENOUGH_TIME_OUTS = 60
"""The least number of time-outs, of about a second each, that Airflow must tolerate."""
ADVICE = (
    f'Set extra_celery_config to {{"{POLICY}": {{"max_retries": 100, "interval_max": 0.5}}}} and '
    "task_publish_max_retries to 600, for the scheduler."
)


def check_celery_executor(executors: str, setting: Callable[[str], str | None]) -> list[Finding]:
    """Check whether tasks survive an outage of the broker; there are no findings without a Celery executor.

    :param executors: the value of ``[core] executor``.
    :param setting: returns the configured value of a setting of ``[celery]``, by its name.
    """
    if EXECUTOR not in executors:
        return []
    if _publish_retries(setting("extra_celery_config")) < ENOUGH_TRIES:
        return [
            Finding(
                SUBJECT,
                WARNING,
                "during an outage of the broker, the scheduler fails each task that it can't queue within a "
                "second, which uses up the task's retries",
                ADVICE,
            )
        ]
    forgiven = _whole(setting("task_publish_max_retries"))
    what = f"task_publish_max_retries = {forgiven}"
    if forgiven < ENOUGH_TIME_OUTS:
        why = f"an outage of the broker for more than {forgiven} s uses up the tasks' retries"
        return [Finding(SUBJECT, WARNING, f"{what}: {why}", ADVICE)]
    return [Finding(SUBJECT, OK, f"{what}: tasks survive an outage of the broker for {forgiven} s")]


def _publish_retries(extra: str | None) -> float:
    """Return how often Celery tries again to queue a task; ``null`` in the setting means no limit."""
    try:
        policy = json.loads(extra or "{}").get(POLICY, {})
        retries = policy.get("max_retries", CELERYS_DEFAULT)
        return float("inf") if retries is None else float(retries)
    except (ValueError, TypeError, AttributeError):
        return CELERYS_DEFAULT


def _whole(value: str | None) -> int:
    try:
        return int(value or "")
    except ValueError:
        return 0
