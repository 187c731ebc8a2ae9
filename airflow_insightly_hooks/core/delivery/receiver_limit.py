"""How many POSTs may run at once, so that the receiver is not overloaded."""

from __future__ import annotations

__all__ = ["ReceiverLimit"]

SLOWER = 3.0
"""A receiver is overloaded if its mean latency is this many times its best one …"""
SLOWER_BY = 0.25
"""… and this many seconds longer, because short latencies vary."""
FORGETS = 1.05
"""The factor by which the best latency grows with each mean, so that an old best doesn't count for ever."""


class ReceiverLimit:
    """Halves the limit when the receiver is overloaded, and then raises it again one by one.

    A receiver is overloaded if it says so (429, or 503 with Retry-After), or if the mean latency of ``most``
    answers is much longer than its best one. The limit goes up by one after each ``most`` acknowledgements in
    a row. After a halving, answers to POSTs that were sent before it don't count.

    :param most: the first limit, which is also the highest.
    """

    def __init__(self, most: int) -> None:
        self.most = self.limit = most
        self._acknowledged = 0
        self._latencies: list[float] = []
        self._best = float("inf")
        self._halved_at = float("-inf")

    def answered(self, now: float, elapsed: float, *, acknowledged: bool, overrun: bool) -> None:
        """Adjust the limit after an answer.

        :param now: seconds of a monotonic clock.
        :param elapsed: seconds that the answer took.
        :param overrun: whether the receiver says that it is overloaded.
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
