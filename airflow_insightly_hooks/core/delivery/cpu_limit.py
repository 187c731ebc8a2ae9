"""How many POSTs may be under way at once, by what this process makes of them."""

from __future__ import annotations

__all__ = ["MEASURE_INTERVAL", "CpuLimit"]

MEASURE_INTERVAL = 0.05
"""Seconds over which the use of the processor is measured."""
BUSY = 0.9
"""Share of one processor above which fewer threads are to work …"""
UNUSED = 0.7
"""… and below which more may."""
AIM = 0.8
LEAST_THREADS = 2
"""One for Python, while the other waits for the network."""


class CpuLimit:
    """Lets so many threads work as use up most of a processor, or all that there are.

    Python runs one thread at a time. Where threads use up a processor, each further one costs the others
    time. That isn't so where most of their work is none of Python's, as with TLS.

    :param most: the limit at first, and at most.
    """

    def __init__(self, most: int) -> None:
        self.most = self.limit = most
        self._since: tuple[float, float] | None = None

    @property
    def is_limiting(self) -> bool:
        """Whether fewer threads may work than there are."""
        return self.limit < self.most

    def measure(self, now: float, used: float, elapsed: float = 0.0) -> None:
        """Take account of the processor time used since the last measurement, if that is long enough ago.

        :param now: seconds by a monotonic clock.
        :param used: seconds of processor time that this process has used.
        :param elapsed: seconds that a POST took lately: where many end at once, a moment tells nothing.
        """
        if self._since is None:
            self._since = now, used
        passed = now - self._since[0]
        if passed < max(MEASURE_INTERVAL, elapsed):
            return
        share = (used - self._since[1]) / passed
        self._since = now, used
        wanted = int(self.limit * AIM / max(share, AIM / 2))  # twice as many at most
        if share > BUSY:
            fewer = max(wanted, self.limit * 3 // 4, LEAST_THREADS)
            self.limit = min(self.limit, fewer)
        elif share < UNUSED:
            self.limit = min(self.most, max(wanted, self.limit + 1))
