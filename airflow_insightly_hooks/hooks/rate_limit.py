"""Keeping to so many requests a second."""

from __future__ import annotations

import threading
import time

__all__ = ["RateLimit"]


class RateLimit:
    """Spaces requests evenly, for all threads that share it.

    :param per_second: how many at most; 0 sets no limit.
    :ivar per_second: likewise.
    """

    def __init__(self, per_second: float) -> None:
        self._next = 0.0
        self._lock = threading.Lock()
        self.set(per_second)

    def set(self, per_second: float) -> None:
        """Keep to another number of requests a second, from the next one on."""
        self.per_second = per_second
        self._gap = 1 / per_second if per_second else 0.0

    def take(self) -> float:
        """Take the turn if it has come; return 0 then, else the seconds until it comes."""
        with self._lock:
            now = time.monotonic()
            if now < self._next:
                return self._next - now
            # A caller that waited comes a moment late. That does not put off the next turn.
            is_late = now - self._next < self._gap
            self._next = (self._next if is_late else now) + self._gap
            return 0.0

    def wait(self) -> None:
        """Sleep until the next request may go out."""
        if not self._gap:
            return
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._gap
        if turn > now:
            time.sleep(turn - now)
