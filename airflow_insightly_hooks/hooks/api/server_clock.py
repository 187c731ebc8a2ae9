"""Estimate the time of the API server's clock, never ahead of it.

The time comes from the dates of the server's answers. Between answers, this machine's monotonic clock
continues it.

An answer's ``Date`` has whole seconds. It was the server's time at some moment between the request and the
answer. So each answer gives a lower and an upper bound of the server's clock. Answers may contradict each
other, because one is wrong, or because an API has several servers with different clocks. Then the slowest of
these clocks counts: a moment in the past must be in the past for all of them. An answer doesn't count if its
clock is far behind most answers and behind this machine's clock.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta
from typing import NamedTuple

from airflow_insightly_hooks.core.dates import EPOCH

__all__ = ["ServerClock"]

VALID_FOR = 300.0
"""Seconds for which an answer's date is used."""
KEPT = 16
"""The number of answers that are kept."""
FAR_BEHIND = 60.0
"""An answer doesn't count if it is more seconds behind most others and behind this machine's clock."""
WITNESSES = 3
"""The number of answers that are needed to trust a clock that is ahead of this machine's."""
TOLERANCE = 1.0
"""Seconds that the server's clock may be ahead of this machine's even with fewer answers."""


class _Reading(NamedTuple):
    """The least and the most seconds that the server's clock is ahead of this machine's monotonic clock."""

    at_least: float
    at_most: float
    read_at: float


class ServerClock:
    """The server's clock, by a few answers. All times but ``date`` and ``own`` are monotonic times."""

    def __init__(self) -> None:
        self._readings: deque[_Reading] = deque(maxlen=KEPT)
        self._asked_at: float | None = None

    def answered(self, date: datetime, sent_at: float, read_at: float) -> None:
        """Record an answer's ``Date``.

        :param sent_at: when the request was sent.
        :param read_at: when the answer had been read.
        """
        seconds = (date - EPOCH).total_seconds()
        self._readings.append(_Reading(seconds - read_at, seconds + 1 - sent_at, read_at))

    def time(self, at: float, own: datetime) -> datetime | None:
        """Return the time by the server's clock, never ahead of it; ``None`` without a recent answer.

        :param own: the time by this machine's clock.
        """
        readings = self._lately(at)
        if not readings:
            return None
        middle = sorted(r.at_least for r in readings)[(len(readings) - 1) // 2]
        far_behind = min(middle, (own - EPOCH).total_seconds() - at) - FAR_BEHIND
        believed = [r for r in readings if r.at_most >= far_behind] or readings
        slowest = min(r.at_most for r in believed)
        ahead = max(r.at_least for r in believed if r.at_least <= slowest)
        return EPOCH + timedelta(seconds=ahead + at)

    def answers_wanted(self, at: float, own: datetime) -> int:
        """Return how many more answers are needed to trust a server's clock that is ahead of this machine's.

        It returns 0 if it has asked for answers within the last ``VALID_FOR`` seconds, because answers may
        come without a ``Date``.
        """
        time, known = self.time(at, own), len(self._lately(at))
        if time is None or (time - own).total_seconds() <= TOLERANCE or known >= WITNESSES:
            return 0
        if self._asked_at is not None and at - self._asked_at <= VALID_FOR:
            return 0
        self._asked_at = at
        return WITNESSES - known

    def _lately(self, at: float) -> list[_Reading]:
        return [reading for reading in list(self._readings) if at - reading.read_at <= VALID_FOR]
