"""When the next request to an account may go out: one limiter for all of a process's hooks and threads.

Other processes and machines are not seen but by what the API says: its 429s, and its counts of the day.
"""

from __future__ import annotations

import hashlib
import threading
import time
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from airflow_insightly_hooks.core.detection.daily_budget import DailyBudget
from airflow_insightly_hooks.hooks.process_registry import ProcessRegistry
from airflow_insightly_hooks.hooks.rate_limit import RateLimit

__all__ = ["Limiter", "RequestsLeft", "Spent", "limiter_for"]

MOST_LIMITERS = 64
"""Accounts whose limiters a process remembers; the one that was unused for longest goes first."""


class RequestsLeft(NamedTuple):
    """``left`` of a day's ``total`` requests remain until ``resets_at``."""

    left: int
    total: int
    resets_at: datetime


class Spent(NamedTuple):
    """The day's requests are spent until ``resets_at``: ``share``, or where that is ``None`` all."""

    resets_at: datetime
    share: int | None = None


class Limiter:
    """Holds requests to an account's requests a second and a day; all threads may use it at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rate_limit = RateLimit(0)
        self._budget = DailyBudget()
        self._held_until = 0.0
        self._ahead = timedelta(0)
        self._warned_for: datetime | None = None

    def configure(self, per_second: float, per_day: int | None) -> None:
        """Keep to a connection's settings; those that came last hold."""
        with self._lock:
            self._rate_limit.set(per_second)
            self._budget.share = per_day

    def server_now(self) -> datetime:
        """Return the time by the server's clock, as far ahead of ours as at its latest answer."""
        return datetime.now(timezone.utc) + self._ahead

    def held(self) -> float:
        """Return for how many seconds the API is to be left alone, as its last 429 asked."""
        return max(0.0, self._held_until - time.monotonic())

    def hold(self, seconds: float) -> None:
        """Leave the API alone for so long, in all threads."""
        with self._lock:
            self._held_until = max(self._held_until, time.monotonic() + seconds)

    def take(self) -> Spent | None:
        """Count a request and wait for its turn, or return at once that the day is spent."""
        with self._lock:
            now = self.server_now()
            if self._budget.is_refused(now):
                return Spent(self._budget.resets_at(now))
            if self._budget.share_is_used(now):
                return Spent(self._budget.resets_at(now), self._budget.share)
            self._budget.asked(now)
        self._rate_limit.wait()
        return None

    def answered(
        self, date: datetime | None, limit: int | None, remaining: int | None
    ) -> RequestsLeft | None:
        """Take what an answer's headers say; return the counts if few are left (not none), once a day.

        :param date: the server's time.
        :param limit: how many requests the account has a day.
        :param remaining: how many of them are left.
        """
        with self._lock:
            if date is not None:
                self._ahead = date - datetime.now(timezone.utc)
            now = self.server_now()
            self._budget.answered(now, limit, remaining)
            counts = self._counts(now)
            if counts is None or not counts.left or not self._budget.is_low(now):
                return None
            if self._warned_for == counts.resets_at:
                return None
            self._warned_for = counts.resets_at
            return counts

    def requests_left(self) -> RequestsLeft | None:
        """Return how many requests the account's day still has for us; ``None`` if nothing has told yet."""
        with self._lock:
            return self._counts(self.server_now())

    def _counts(self, now: datetime) -> RequestsLeft | None:
        left, total = self._budget.left(now), self._budget.total(now)
        if left is None or total is None:
            return None
        return RequestsLeft(left, total, self._budget.resets_at(now))

    def refuse_day(self) -> Spent:
        """Note that the API refuses every request until the day ends."""
        with self._lock:
            now = self.server_now()
            self._budget.refused(now)
            return Spent(self._budget.resets_at(now))

    def spaced(self, interval: float, requests: int = 1) -> float:
        """Return the seconds between two polls so that the day's requests last (``DailyBudget.spaced``)."""
        with self._lock:
            return self._budget.spaced(interval, self.server_now(), requests)


_limiters = ProcessRegistry[tuple[str, bytes], Limiter](lambda _key: Limiter(), most=MOST_LIMITERS)


def limiter_for(base_url: str, api_key: str) -> Limiter:
    """Return this process's limiter of an account."""
    # By a digest: what lives as long as the process should not hold keys.
    return _limiters.get((base_url, hashlib.sha256(api_key.encode()).digest()))
