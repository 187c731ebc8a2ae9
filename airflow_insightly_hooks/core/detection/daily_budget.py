"""How many requests this package may still make on a day, and how to make them last.

Insightly counts all requests of an account, from midnight UTC to midnight UTC. Each answer has the number of
requests of the day and the number of requests that are left. No other count covers all processes and
machines.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, timezone

__all__ = ["LOW", "DailyBudget"]

LOW = 0.2
"""If no more than this fraction of the day's requests is left, the budget is low."""
RESERVE = 0.5
"""The fraction of the requests left that polls leave for tasks that read records."""


class DailyBudget:
    """The requests of the account's present day.

    Each ``now`` is an aware time of the API server's clock. A ``now`` on another day starts new counts.

    :param share: how many requests a day all users of the account together may have made before this package
        makes no more; ``None``: as many as the API allows. While the API gives no counts, only this process's
        own requests count.
    """

    def __init__(self, share: int | None = None) -> None:
        self.share = share
        self._day: date | None = None
        self._begin()

    def _begin(self) -> None:
        self._limit: int | None = None
        self._remaining: int | None = None
        self._asked = 0
        self._is_refused = False

    def _turn_to(self, now: datetime) -> None:
        day = now.astimezone(timezone.utc).date()
        if day != self._day:  # also an earlier day: a clock may have been set back
            self._day = day
            self._begin()

    def asked(self, now: datetime) -> None:
        """Count a request that this process makes."""
        self._turn_to(now)
        self._asked += 1

    def answered(self, now: datetime, limit: int | None, remaining: int | None) -> None:
        """Take the counts of an answer: the requests of a day, and those left; ``None`` if not given."""
        self._turn_to(now)
        self._limit = self._limit if limit is None else limit
        self._remaining = self._remaining if remaining is None else remaining

    def refused(self, now: datetime) -> None:
        """Note that the API refuses every request until the day ends."""
        self._turn_to(now)
        self._is_refused = True

    def resets_at(self, now: datetime) -> datetime:
        """Return when the day ends, in UTC: the midnight after ``now``."""
        tomorrow = now.astimezone(timezone.utc).date() + timedelta(days=1)
        return datetime.combine(tomorrow, time(), timezone.utc)

    def total(self, now: datetime) -> int | None:
        """Return how many requests the day has; ``None`` if it is not known."""
        self._turn_to(now)
        known = [count for count in (self.share, self._limit) if count is not None]
        return min(known, default=None)

    def left(self, now: datetime) -> int | None:
        """Return how many of them are left; ``None`` if it is not known."""
        self._turn_to(now)
        if self._is_refused:
            return 0
        known = [] if self._remaining is None else [self._remaining]
        if self.share is not None:
            known.append(max(0, self.share - self._used))
        return min(known, default=None)

    @property
    def _used(self) -> int:
        if self._limit is None or self._remaining is None:
            return self._asked
        return max(0, self._limit - self._remaining)

    def is_low(self, now: datetime) -> bool:
        """Return whether a fifth of the day's requests, or less, is left."""
        left, total = self.left(now), self.total(now)
        return left is not None and total is not None and left <= LOW * total

    def is_refused(self, now: datetime) -> bool:
        """Return whether the API has said that it refuses every request until the day ends.

        A count of 0 requests left is not enough. Only a refusal counts.
        """
        self._turn_to(now)
        return self._is_refused

    def share_is_used(self, now: datetime) -> bool:
        """Return whether the account has made as many requests as ``share`` allows."""
        self._turn_to(now)
        return self.share is not None and self._used >= self.share

    def spaced(self, interval: float, now: datetime, requests: int = 1) -> float:
        """Return the seconds between two polls with which the requests last until the day ends.

        Half of the requests left are kept for other tasks. The result is at least ``interval``. It is at most
        the time until the day ends, if ``interval`` is shorter than that.

        :param interval: seconds between two polls if there are enough requests.
        :param requests: how many requests are made in each interval: those of a poll, times the number of
            polls that run in parallel.
        """
        left = self.left(now)
        if left is None:
            return interval
        seconds = (self.resets_at(now) - now).total_seconds()
        return max(interval, seconds / max(1.0, left * (1 - RESERVE) / requests))
