"""The status of a webhook's receiver across runs: since when it fails, and which task waits for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.dates import api_time, iso_time
from airflow_insightly_hooks.core.delivery.report import ERROR_LENGTH, Failure
from airflow_insightly_hooks.core.errors import InvalidTime
from airflow_insightly_hooks.core.state.versions import is_newer

__all__ = ["LONGEST_WAIT", "RECEIVER", "ReceiverStatus", "is_down"]

RECEIVER = "receiver"
"""The first part of the key in the asset's state that holds the status of a webhook's receiver. The rest is a
slash, the workflow's ``dag_id``, a slash and the webhook's slug."""

MAY_RECOVER = frozenset((408, 425, 429))
"""Statuses below 500 that are about the receiver, and not about the message."""
LONGEST_WAIT = timedelta(days=1)
"""A later time was written by a wrong clock, or by hand. No task waits for it."""


class ReceiverStatus(NamedTuple):
    """A receiver that fails, and the task that waits to send to it again.

    The status saves POSTs, and keeps other tasks from waiting. Nothing else depends on it. If it is out of
    date or lost, this does no harm.

    :param failing_since: when the first message was not acknowledged after the last acknowledgement.
    :param retry_at: until when the task waits.
    :param waiting: the run of the task that waits, as ``{dag_id}/{run_id}``.
    :param is_down: whether other messages would fail, too.
    :param error: why the last try failed; it holds no contents.
    """

    failing_since: datetime
    retry_at: datetime
    waiting: str
    is_down: bool
    error: str

    def others_wait(self, run: str, now: datetime) -> bool:
        """Return whether another run's task waits now.

        :param run: this run, as ``waiting`` has it.
        """
        return self.waiting != run and now < self.retry_at <= now + LONGEST_WAIT

    def after(self, before: ReceiverStatus, now: datetime) -> ReceiverStatus:
        """Return this status as the one that follows ``before``: a receiver that stays down keeps its start.

        If another run's task was asked to wait for longer, the other tasks keep waiting for that task.
        Otherwise each answer without ``Retry-After`` would make one more task try, and wait.
        """
        if not (self.is_down and before.is_down):
            return self
        status = self._replace(failing_since=before.failing_since)
        if before.others_wait(self.waiting, now) and self.retry_at < before.retry_at:
            status = status._replace(retry_at=before.retry_at, waiting=before.waiting)
        return status

    def as_dict(self) -> dict[str, Any]:
        """Return the status as a JSON object, with times in ISO 8601; ``of`` reads it."""
        times = {name: iso_time(getattr(self, name)) for name in ("failing_since", "retry_at")}
        return {**self._asdict(), **times, "error": self.error[:ERROR_LENGTH]}

    @classmethod
    def of(cls, value: object) -> ReceiverStatus | None:
        """Return the status that ``as_dict`` wrote; ``None`` if there is no status, or it can't be read."""
        if not isinstance(value, Mapping) or is_newer(value):
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
    """Return whether a try shows that the receiver is down or busy, so that other messages would fail, too.

    :param acknowledged: how many messages the receiver acknowledged in the try.
    :param failures: why it didn't acknowledge the others.
    :param was_asked_to_wait: whether it answered with ``Retry-After``.
    """
    if acknowledged:
        return False
    return was_asked_to_wait or any(
        f.status is None or f.status >= 500 or f.status in MAY_RECOVER for f in failures
    )
