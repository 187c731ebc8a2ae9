"""The API's rate limits: requests a second and requests a day."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from airflow_insightly_hooks.sandbox.crm.clock import Clock
from airflow_insightly_hooks.sandbox.http.settings import Settings

__all__ = ["RateLimitResult", "RequestLimits"]

WINDOW = 1.0
"""The length of the sliding window for ``requests_per_second``, in seconds."""


@dataclass(frozen=True)
class RateLimitResult:
    """Whether a request is allowed.

    :param allowed: whether it is allowed.
    :param retry_after: if it isn't, how many seconds to wait before the next try. ``None`` if the day's quota
        is used up, because then it does not help to wait.
    """

    allowed: bool
    retry_after: int | None = None


class RequestLimits:
    """Counts the requests that were allowed. A rejected request is not counted.

    The day's quota starts again at midnight UTC by the sandbox's clock. Requests a second are measured by the
    clock's source, so a change of ``clock_offset`` has no effect on them.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._recent: deque[float] = deque()
        self._day = ""
        self._used = 0

    @property
    def used_today(self) -> int:
        """How many requests of this day's quota are used."""
        today = self._clock.now().date().isoformat()
        if today != self._day:
            self._day, self._used = today, 0
        return self._used

    @property
    def remaining_today(self) -> int:
        """How many requests of this day's quota are left."""
        return max(0, self._settings.requests_per_day - self.used_today)

    def acquire(self) -> RateLimitResult:
        """Count a request if it is allowed, and return whether it is."""
        now = self._clock.source()
        while self._recent and self._recent[0] <= now - WINDOW:
            self._recent.popleft()
        if not self.remaining_today:
            return RateLimitResult(allowed=False)
        if len(self._recent) >= self._settings.requests_per_second:
            wait = self._recent[0] + WINDOW - now if self._recent else WINDOW
            return RateLimitResult(allowed=False, retry_after=max(1, math.ceil(wait)))
        self._recent.append(now)
        self._used += 1
        return RateLimitResult(allowed=True)
