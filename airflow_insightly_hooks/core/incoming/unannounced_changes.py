"""Changes that polls have seen, and that no webhook has announced in time."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from airflow_insightly_hooks.core.incoming.announced import AnnouncedSpans

__all__ = ["UnannouncedChanges", "is_announced"]

IN_TIME = timedelta(minutes=1)
"""How long a webhook may take, because Insightly tries three times."""
ROUNDED = timedelta(seconds=1)
"""By how much a change's time may differ between a webhook and the API."""


def is_announced(changed_at: datetime, announced: AnnouncedSpans | None) -> bool:
    """Return whether a webhook has announced a change.

    :param announced: the spans that webhooks have announced; ``None`` if there are none.
    """
    if announced is None:
        return False
    return any(changed_at + shift in announced for shift in (timedelta(0), -ROUNDED, ROUNDED))


class UnannouncedChanges:
    """Changes that a webhook may still announce, until it has announced them, or is too late."""

    def __init__(self) -> None:
        self._changes: list[datetime] = []

    def add(self, changes: Iterable[datetime]) -> None:
        """Add the times of changes."""
        self._changes.extend(changes)

    def take_overdue(
        self, announced: AnnouncedSpans | None, now: datetime, expected_since: datetime
    ) -> list[datetime]:
        """Remove and return the changes that a webhook should have announced by now, in order.

        :param announced: the spans that webhooks have announced; ``None`` if there are none.
        :param now: the time of Insightly's clock.
        :param expected_since: changes from before this time need no webhook.
        """
        unannounced = [at for at in self._changes if at >= expected_since and not is_announced(at, announced)]
        self._changes = [at for at in unannounced if at > now - IN_TIME]
        return sorted(at for at in unannounced if at <= now - IN_TIME)
