"""The Celery executor: what becomes of tasks while its broker is away."""

from __future__ import annotations

import json
from collections.abc import Callable

from airflow_insightly_hooks.diagnosis.findings import OK, WARNING, Finding

__all__ = ["check_celery_executor"]

SUBJECT = "[celery] of airflow.cfg"
EXECUTOR = "CeleryExecutor"
POLICY = "task_publish_retry_policy"
ENOUGH_TRIES = 10
"""Further tries of Celery to queue one task; with fewer it gives up before Airflow counts a time-out.

Airflow waits ``operation_timeout`` (1 s) for them, and keeps the task if that is over. If Celery gives up
before, Airflow fails the task. Celery's own default is 3 further tries, in 0.7 s.
"""
CELERYS_DEFAULT = 3.0
ENOUGH_TIME_OUTS = 60
"""Time-outs that Airflow forgives, of about a second each."""
ADVICE = (
    f'Set extra_celery_config to {{"{POLICY}": {{"max_retries": 100, "interval_max": 0.5}}}} and '
    "task_publish_max_retries to 600, for the scheduler."
)


def check_celery_executor(executors: str, setting: Callable[[str], str | None]) -> list[Finding]:
    """Judge whether tasks outlast a broker that is away; nothing, without a Celery executor.

    :param executors: ``[core] executor``.
    :param setting: the name of a setting of ``[celery]`` -> its value, as configured.
    """
    if EXECUTOR not in executors:
        return []
    if _publish_retries(setting("extra_celery_config")) < ENOUGH_TRIES:
        return [
            Finding(
                SUBJECT,
                WARNING,
                "while the broker is away, the scheduler fails each task that it can't queue within a "
                "second, which uses up the task's retries",
                ADVICE,
            )
        ]
    forgiven = _whole(setting("task_publish_max_retries"))
    what = f"task_publish_max_retries = {forgiven}"
    if forgiven < ENOUGH_TIME_OUTS:
        why = f"a broker that is away for longer than {forgiven} s costs tasks their retries"
        return [Finding(SUBJECT, WARNING, f"{what}: {why}", ADVICE)]
    return [Finding(SUBJECT, OK, f"{what}: tasks outlast a broker that is away for so many seconds")]


def _publish_retries(extra: str | None) -> float:
    """Return how often Celery tries again to queue a task; infinite for ``null``, which sets no limit."""
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
