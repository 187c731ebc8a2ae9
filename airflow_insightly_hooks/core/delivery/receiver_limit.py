"""How many POSTs may be under way at once, by how the receiver bears them."""

from __future__ import annotations

__all__ = ["ReceiverLimit"]

SLOWER = 3.0
"""How many times its best a receiver's mean latency must be to count as overrun …"""
SLOWER_BY = 0.25
"""… and by how many seconds more: small ones vary."""
FORGETS = 1.05
"""Growth of the best latency from one mean to the next, so that an old best doesn't count for ever."""


class ReceiverLimit:
    """Halves what is under way when the receiver is overrun, and comes back one by one.

    It is overrun when it says so (429, or 503 with Retry-After), or when the mean latency of ``most`` answers
    has grown well above its best. Each ``most`` acknowledgements in a row add one again. After a halving,
    answers to what was sent before it count no more.

    :param most: the limit at first, and at most.
    """

    def __init__(self, most: int) -> None:
        self.most = self.limit = most
        self._acknowledged = 0
        self._latencies: list[float] = []
        self._best = float("inf")
        self._halved_at = float("-inf")

    def answered(self, now: float, elapsed: float, *, acknowledged: bool, overrun: bool) -> None:
        """Take account of an answer.

        :param now: seconds by a monotonic clock.
        :param elapsed: seconds that the answer took.
        :param overrun: whether the receiver says that it is asked too much.
        """
        if now - elapsed < self._halved_at:
            return
        if overrun or self._is_slower(elapsed):
            self.limit = max(1, self.limit // 2)
            self._halved_at = now
            self._acknowledged = 0
            self._latencies.clear()
        elif acknowledged:
            self._acknowledged += 1
            if self._acknowledged >= self.most:
                self._acknowledged = 0
                self.limit = min(self.limit + 1, self.most)
        else:
            self._acknowledged = 0

    def _is_slower(self, elapsed: float) -> bool:
        self._latencies.append(elapsed)
        if len(self._latencies) < self.most:
            return False
        mean = sum(self._latencies) / len(self._latencies)
        self._latencies.clear()
        self._best = min(self._best * FORGETS, mean)
        return mean > self._best * SLOWER and mean > self._best + SLOWER_BY
