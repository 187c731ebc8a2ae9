"""When a long task logs its progress."""

from __future__ import annotations

import time

__all__ = ["ProgressTimer"]

PROGRESS_INTERVAL = 5.0
"""Seconds between two lines of the log, at least."""


class ProgressTimer:
    """Says when the next line is due: the first one after an interval."""

    def __init__(self) -> None:
        self._due = time.monotonic() + PROGRESS_INTERVAL

    def is_due(self) -> bool:
        """Return whether a line is due now; if so, the next one is due after another interval."""
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + PROGRESS_INTERVAL
        return True
