"""How long a deliver task waits before its next try."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import RetryDecision, RetryPolicy

from airflow_insightly_hooks.core.errors import UndeliveredError

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["RETRY_AFTER", "RetryAfterPolicy", "longest_delay"]

LONGEST_DELAY = timedelta(hours=1)
JITTER = 0.2
"""The largest share of a delay that is added at random, so that tasks that failed together spread out."""


class RetryAfterPolicy(RetryPolicy):
    """Waits as long as the receiver's ``Retry-After`` asks, but at least ``retry_delay``, at most an hour.

    Jitter adds up to a fifth, a fixed share for each run, task and try, within that hour. A task with
    ``retry_exponential_backoff`` has Airflow's own jitter instead, unless the receiver sends ``Retry-After``.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,  # noqa: ARG002 — Airflow's signature
        context: Context | None = None,
    ) -> RetryDecision:
        """Return the delay that the receiver asked for, or the task's own, with jitter."""
        if not isinstance(exception, UndeliveredError):
            return RetryDecision.default()
        task: Any = context.get("task") if context else None
        ti: Any = context.get("ti") if context else None
        shortest = task.retry_delay if task is not None else timedelta(0)
        if exception.retry_after is not None:
            delay, reason = _delay(shortest, exception.retry_after), "the receiver's Retry-After"
        elif ti is None or task is None or getattr(task, "retry_exponential_backoff", None):
            return RetryDecision.default()
        else:
            delay, reason = shortest, "the task's retry_delay, with jitter"
        if ti is not None:
            delay = _spread(delay, _share(ti, try_number))
        return RetryDecision.retry(delay=delay, reason=reason)

    def serialize(self) -> dict[str, Any]:
        """Return an empty dict: the policy has no settings."""
        return {}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> RetryAfterPolicy:  # noqa: ARG003 — Airflow's signature
        """Return the policy."""
        return cls()


def longest_delay(retry_delay: timedelta, retry_after: float | None) -> timedelta:
    """Return the longest time that the policy may wait.

    :param retry_after: the seconds that the receiver asked for; ``None`` if it did not.
    """
    return _spread(_delay(retry_delay, retry_after or 0.0), 1.0)


def _delay(shortest: timedelta, asked: float) -> timedelta:
    return max(shortest, timedelta(seconds=min(asked, LONGEST_DELAY.total_seconds())))


def _spread(delay: timedelta, share: float) -> timedelta:
    return min(delay * (1 + JITTER * share), max(delay, LONGEST_DELAY))


def _share(ti: Any, try_number: int) -> float:
    """Return a number from 0 to 1, fixed for this try."""
    about = (ti.dag_id, ti.run_id, ti.task_id, getattr(ti, "map_index", -1), try_number)
    digest = hashlib.sha256("\n".join(map(str, about)).encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


RETRY_AFTER = RetryAfterPolicy()
