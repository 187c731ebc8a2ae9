"""What is known of a webhook's receiver across runs: since when it fails, and who waits for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.dates import api_time, iso_time
from airflow_insightly_hooks.core.delivery.report import ERROR_LENGTH, Failure
from airflow_insightly_hooks.core.errors import InvalidTime

__all__ = ["LONGEST_WAIT", "RECEIVER", "ReceiverStatus", "is_down"]

RECEIVER = "receiver"
"""The first part of the key of the asset's state for what is known of a webhook's receiver. Then come a
slash, the workflow's ``dag_id``, a slash and the webhook's slug."""

MAY_RECOVER = frozenset((408, 425, 429))
"""Statuses below 500 that say something of the receiver, not of the message."""
LONGEST_WAIT = timedelta(days=1)
"""What is further ahead was written by a clock that is wrong, or by hand: nobody waits for it."""


class ReceiverStatus(NamedTuple):
    """A receiver that fails, and the task that waits to send to it again.

    It saves POSTs, and keeps tasks from waiting; nothing else depends on it. If it is out of date, or lost,
    no harm is done.

    :param failing_since: when a first message was not acknowledged, none having been since.
    :param retry_at: until when the task waits.
    :param waiting: which one, as ``{dag_id}/{run_id}``.
    :param is_down: whether other messages would fare no better.
    :param error: why the last try failed; no contents.
    """

    failing_since: datetime
    retry_at: datetime
    waiting: str
    is_down: bool
    error: str

    def others_wait(self, run: str, now: datetime) -> bool:
        """Return whether another run's task waits now."""
        return self.waiting != run and now < self.retry_at <= now + LONGEST_WAIT

    def after(self, before: ReceiverStatus, now: datetime) -> ReceiverStatus:
        """Return this status as the next one: what is down has been so since before.

        Where another run's task was asked to wait for longer, others go on waiting for that one. Else each
        answer without ``Retry-After`` would have one more of them try, and wait.
        """
        if not (self.is_down and before.is_down):
            return self
        status = self._replace(failing_since=before.failing_since)
        if before.others_wait(self.waiting, now) and self.retry_at < before.retry_at:
            status = status._replace(retry_at=before.retry_at, waiting=before.waiting)
        return status

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it, times in ISO 8601; ``of`` reads it again."""
        times = {name: iso_time(getattr(self, name)) for name in ("failing_since", "retry_at")}
        return {**self._asdict(), **times, "error": self.error[:ERROR_LENGTH]}

    @classmethod
    def of(cls, value: object) -> ReceiverStatus | None:
        """Return the status that ``as_dict`` gave; ``None`` if there is no status, or it can't be read."""
        if not isinstance(value, Mapping):
            return None
        try:
            return cls(
                api_time(value["failing_since"]),
                api_time(value["retry_at"]),
                str(value["waiting"]),
                bool(value["is_down"]),
                str(value["error"]),
            )
        except (KeyError, InvalidTime):
            return None


def is_down(acknowledged: int, failures: Iterable[Failure], *, was_asked_to_wait: bool) -> bool:
    """Return whether a try says that the receiver is down, or busy: other messages would fare no better.

    :param acknowledged: how many messages the receiver took in the try.
    :param failures: why it didn't take the others.
    :param was_asked_to_wait: whether it has answered with ``Retry-After``.
    """
    if acknowledged:
        return False
    return was_asked_to_wait or any(
        f.status is None or f.status >= 500 or f.status in MAY_RECOVER for f in failures
    )
