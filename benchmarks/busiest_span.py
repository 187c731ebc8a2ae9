"""Counts the requests in the busiest 10 seconds."""

from __future__ import annotations

from collections import deque

__all__ = ["SPAN", "BusiestSpan"]

SPAN = 10.0
"""Seconds."""


class BusiestSpan:
    """Counts requests. Only one thread may use it at a time.

    :ivar count: how many requests there were so far.
    :ivar most: how many requests there were in the busiest ``SPAN``.
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
