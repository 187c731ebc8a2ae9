"""When a deliver task is tried again."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import RetryDecision, RetryPolicy

from airflow_insightly_hooks.core.errors import UndeliveredError

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["RetryAfterPolicy"]

LONGEST_DELAY = timedelta(hours=1)


class RetryAfterPolicy(RetryPolicy):
    """Waits as long as the receiver's ``Retry-After`` asks, from ``retry_delay`` up to an hour."""

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002 — Airflow's signature
        max_tries: int,  # noqa: ARG002 — Airflow's signature
        context: Context | None = None,
    ) -> RetryDecision:
        """Return the delay that the receiver asked for, or leave it to the task's own."""
        if not isinstance(exception, UndeliveredError) or exception.retry_after is None:
            return RetryDecision.default()
        shortest = context["task"].retry_delay if context else timedelta(0)
        asked = timedelta(seconds=min(exception.retry_after, LONGEST_DELAY.total_seconds()))
        return RetryDecision.retry(delay=max(shortest, asked), reason="the receiver's Retry-After")

    def serialize(self) -> dict[str, Any]:
        """Return what a serialized DAG holds: there is nothing to set."""
        return {}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> RetryAfterPolicy:  # noqa: ARG003 — Airflow's signature
        """Return the policy."""
        return cls()
