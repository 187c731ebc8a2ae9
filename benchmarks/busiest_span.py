"""How many requests came in the busiest 10 seconds."""

from __future__ import annotations

from collections import deque

__all__ = ["SPAN", "BusiestSpan"]

SPAN = 10.0
"""Seconds."""


class BusiestSpan:
    """Counts requests; for one thread at a time.

    :ivar count: all of them so far.
    :ivar most: the most that came within any ``SPAN``.
    """

    def __init__(self) -> None:
        self.count = self.most = 0
        self._recent = deque[float]()

    def add(self, now: float) -> None:
        """Count a request.

        :param now: seconds of a clock that never goes back.
        """
        self._recent.append(now)
        while self._recent[0] <= now - SPAN:
            self._recent.popleft()
        self.count += 1
        self.most = max(self.most, len(self._recent))
