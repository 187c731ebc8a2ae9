"""Limit the number of requests per second."""

from __future__ import annotations

import threading
import time

__all__ = ["RateLimit"]


class RateLimit:
    """Spaces requests evenly, for all threads that share it.

    :param per_second: the most requests per second; 0 sets no limit.
    :ivar per_second: the current limit.
    """

    def __init__(self, per_second: float) -> None:
        self._next = 0.0
        self._lock = threading.Lock()
        self.set(per_second)

    def set(self, per_second: float) -> None:
        """Set another limit, from the next request on."""
        self.per_second = per_second
        self._gap = 1 / per_second if per_second else 0.0

    def take(self) -> float:
        """Return 0 if a request may be sent now, and count it; otherwise return the seconds until then."""
        with self._lock:
            now = time.monotonic()
            if now < self._next:
                return self._next - now
            # A caller that has waited comes a moment late. This doesn't delay the next request.
            is_late = now - self._next < self._gap
            self._next = (self._next if is_late else now) + self._gap
            return 0.0

    def wait(self) -> None:
        """Sleep until the next request may be sent."""
        if not self._gap:
            return
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._gap
        if turn > now:
            time.sleep(turn - now)
