"""The API server's clock, as its answers tell it: carried on by a monotonic one, and never ahead.

An answer's ``Date`` has whole seconds, and was the server's time at some moment between the request and the
answer. So each answer bounds the server's clock from both sides. Answers may contradict each other: one is
wrong, or an API has several servers with different clocks. Then the slowest of these clocks counts, since
what is taken for past must be past for all of them. What is far behind most answers, and behind our own
clock, doesn't count.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta
from typing import NamedTuple

from airflow_insightly_hooks.core.dates import EPOCH

__all__ = ["ServerClock"]

VALID_FOR = 300.0
"""Seconds for which an answer tells the time."""
KEPT = 16
"""Answers."""
FAR_BEHIND = 60.0
"""Seconds behind most others, and behind our own clock, from which on an answer doesn't count."""
WITNESSES = 3
"""Answers that are needed to believe a clock that is ahead of ours."""
TOLERANCE = 1.0
"""Seconds that the server's clock may be ahead of ours with fewer."""


class _Reading(NamedTuple):
    """By how many seconds the server's clock is ahead of our monotonic one: at least, and at most."""

    at_least: float
    at_most: float
    read_at: float


class ServerClock:
    """What a few answers say of the server's clock. All times but ``date`` are our monotonic clock's."""

    def __init__(self) -> None:
        self._readings: deque[_Reading] = deque(maxlen=KEPT)
        self._told_at: float | None = None

    def answered(self, date: datetime, sent_at: float, read_at: float) -> None:
        """Take an answer's ``Date``, with when it was asked for, and when it was there."""
        seconds = (date - EPOCH).total_seconds()
        self._readings.append(_Reading(seconds - read_at, seconds + 1 - sent_at, read_at))

    def time(self, at: float, own: datetime) -> datetime | None:
        """Return the time by the server's clock, never ahead of it; ``None`` if it was not read lately.

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
        """Return how many more answers it takes to believe that the server's clock is ahead of ours.

        That is told once as long as answers are valid: some may come without a ``Date``.
        """
        time, known = self.time(at, own), len(self._lately(at))
        if time is None or (time - own).total_seconds() <= TOLERANCE or known >= WITNESSES:
            return 0
        if self._told_at is not None and at - self._told_at <= VALID_FOR:
            return 0
        self._told_at = at
        return WITNESSES - known

    def _lately(self, at: float) -> list[_Reading]:
        return [reading for reading in list(self._readings) if at - reading.read_at <= VALID_FOR]
