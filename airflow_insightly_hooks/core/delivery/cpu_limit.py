"""How many POSTs may run at once, so that this process has enough processor time for them."""

from __future__ import annotations

__all__ = ["MEASURE_INTERVAL", "CpuLimit"]

MEASURE_INTERVAL = 0.05
"""Seconds over which the use of the processor is measured."""
BUSY = 0.9
"""Above this share of one processor, the limit goes down …"""
UNUSED = 0.7
"""… and below this share, it goes up."""
AIM = 0.8
LEAST_THREADS = 2
"""One thread runs Python code while the other waits for the network."""


class CpuLimit:
    """Limits the number of working threads to what one processor can run.

    Python runs one thread at a time. Once threads use a whole processor, each further thread slows down the
    others. This is not the case where most of their work is done outside of Python, as with TLS.

    :param most: the first limit, which is also the highest.
    """

    def __init__(self, most: int) -> None:
        self.most = self.limit = most
        self._since: tuple[float, float] | None = None

    @property
    def is_limiting(self) -> bool:
        """Whether fewer threads may work than there are."""
        return self.limit < self.most

    def measure(self, now: float, used: float, elapsed: float = 0.0) -> None:
        """Adjust the limit to the processor time used since the last measurement, if that is long enough ago.

        :param now: seconds of a monotonic clock.
        :param used: seconds of processor time that this process has used.
        :param elapsed: seconds that a recent POST took. The measurement covers at least this long, because
            many POSTs may end at once.
        """
        if self._since is None:
            self._since = now, used
        passed = now - self._since[0]
        if passed < max(MEASURE_INTERVAL, elapsed):
            return
        share = (used - self._since[1]) / passed
        self._since = now, used
        wanted = int(self.limit * AIM / max(share, AIM / 2))  # at most twice as many
        if share > BUSY:
            fewer = max(wanted, self.limit * 3 // 4, LEAST_THREADS)
            self.limit = min(self.limit, fewer)
        elif share < UNUSED:
            self.limit = min(self.most, max(wanted, self.limit + 1))
