"""Limit the requests to an account: one limiter for all hooks and threads of a process.

It learns of the requests of other processes only from the API: from 429s, and from the counts of the day.
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
"""The most limiters that a process keeps. The one that was unused for the longest time is removed first."""


class RequestsLeft(NamedTuple):
    """``left`` of a day's ``total`` requests remain until ``resets_at``."""

    left: int
    total: int
    resets_at: datetime


class Spent(NamedTuple):
    """Today's requests are used up until ``resets_at``.

    :param share: the connection's ``requests_per_day``, if this limit was reached; ``None`` if the account
        has no requests left at all.
    """

    resets_at: datetime
    share: int | None = None


class Limiter:
    """Keeps to an account's limits of requests per second and per day. All threads may use it at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rate_limit = RateLimit(0)
        self._budget = DailyBudget()
        self._held_until = 0.0
        self._ahead = timedelta(0)
        self._warned_for: datetime | None = None

    def configure(self, per_second: float, per_day: int | None) -> None:
        """Use the settings of a connection. The latest settings apply to all hooks."""
        with self._lock:
            self._rate_limit.set(per_second)
            self._budget.share = per_day

    def server_now(self) -> datetime:
        """Return the time by the server's clock, as far from this machine's as at the latest answer."""
        return datetime.now(timezone.utc) + self._ahead

    def held(self) -> float:
        """Return how many more seconds no request may be sent, as the last 429 asked."""
        return max(0.0, self._held_until - time.monotonic())

    def hold(self, seconds: float) -> None:
        """Have all threads wait so many seconds before the next request."""
        with self._lock:
            self._held_until = max(self._held_until, time.monotonic() + seconds)

    def take(self) -> Spent | None:
        """Count a request and wait for its turn; or return at once if today's requests are used up."""
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
        """Take over the values of an answer's headers.

        :param date: the server's time; ``None`` if it is unknown.
        :param limit: the account's requests per day; ``None`` if the answer does not tell.
        :param remaining: how many of them are left; ``None`` if the answer does not tell.
        :return: the counts, once a day, when few requests are left but at least one; otherwise ``None``.
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
        """Return how many requests this package may still send today; ``None`` if it isn't known yet."""
        with self._lock:
            return self._counts(self.server_now())

    def _counts(self, now: datetime) -> RequestsLeft | None:
        left, total = self._budget.left(now), self._budget.total(now)
        if left is None or total is None:
            return None
        return RequestsLeft(left, total, self._budget.resets_at(now))

    def refuse_day(self) -> Spent:
        """Record that the API refuses all requests until the day ends."""
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
    # The key is hashed, because an object that lives as long as the process should not hold API keys.
    return _limiters.get((base_url, hashlib.sha256(api_key.encode()).digest()))
