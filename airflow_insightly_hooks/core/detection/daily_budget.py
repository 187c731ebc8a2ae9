"""How many requests an account's day still has for us, and how to make them last.

Insightly counts an account's requests, whoever makes them, from midnight UTC to midnight UTC, and tells in
each answer how many the day has and how many are left. Nothing else counts for all processes and machines.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, timezone

__all__ = ["LOW", "DailyBudget"]

LOW = 0.2
"""The fraction of the day's requests from which on few are left."""
RESERVE = 0.5
"""The fraction of what is left that polls leave for what reads records."""


class DailyBudget:
    """The requests of the account's present day.

    Each ``now`` is an aware time, by the API server's clock; one of another day begins anew.

    :param share: how many requests of a day the account may have made, all of its users together, before
        we ask no more; ``None`` for as many as the API allows. While the API tells no counts, our own
        requests are counted instead.
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
        if day != self._day:  # an earlier one as well: a clock may have been set back
            self._day = day
            self._begin()

    def asked(self, now: datetime) -> None:
        """Count a request of our own."""
        self._turn_to(now)
        self._asked += 1

    def answered(self, now: datetime, limit: int | None, remaining: int | None) -> None:
        """Take the counts of an answer: requests of a day, and those left; ``None`` where it tells none."""
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
        """Return how many requests the day has for us; ``None`` if nothing tells."""
        self._turn_to(now)
        known = [count for count in (self.share, self._limit) if count is not None]
        return min(known, default=None)

    def left(self, now: datetime) -> int | None:
        """Return how many of them are left; ``None`` if nothing tells."""
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

        That it counts nothing left is not enough: its refusal is what decides.
        """
        self._turn_to(now)
        return self._is_refused

    def share_is_used(self, now: datetime) -> bool:
        """Return whether the account has made as many requests as our share allows."""
        self._turn_to(now)
        return self.share is not None and self._used >= self.share

    def spaced(self, interval: float, now: datetime, requests: int = 1) -> float:
        """Return the seconds between two polls so that what is left lasts until the day ends.

        Half of what is left is kept for others. It is never less than ``interval``, and where that is
        shorter never more than the time until the day ends.

        :param interval: seconds between two polls if there are requests enough.
        :param requests: how many go out in each interval: a poll's, times the polls side by side.
        """
        left = self.left(now)
        if left is None:
            return interval
        seconds = (self.resets_at(now) - now).total_seconds()
        return max(interval, seconds / max(1.0, left * (1 - RESERVE) / requests))
