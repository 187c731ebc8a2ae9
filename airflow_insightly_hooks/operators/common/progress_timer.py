"""The interval at which a long task logs its progress."""

from __future__ import annotations

import time

__all__ = ["ProgressTimer"]

PROGRESS_INTERVAL = 5.0
"""The least number of seconds between two log lines."""


class ProgressTimer:
    """Tells when the next log line is due. The first one is due after one interval."""

    def __init__(self) -> None:
        self._due = time.monotonic() + PROGRESS_INTERVAL

    def is_due(self) -> bool:
        """Return whether a line is due now; if so, the next one is due after another interval."""
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + PROGRESS_INTERVAL
        return True
