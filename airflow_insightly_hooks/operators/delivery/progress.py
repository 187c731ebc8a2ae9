"""The line of the log that says how far deliveries are."""

from __future__ import annotations

import time
from typing import Any

from airflow_insightly_hooks.core.delivery.report import Tally, joint_progress
from airflow_insightly_hooks.operators.common.progress_timer import ProgressTimer

__all__ = ["DeliveryProgress"]


class DeliveryProgress:
    """Tells now and then how far all deliveries of a try are, to one receiver or to several.

    :param log: where the lines go.
    :param comes_in_batches: whether more payloads may come than are known of: then no time is told that is
        left.
    """

    def __init__(self, log: Any, *, comes_in_batches: bool = False) -> None:
        self._log, self._comes_in_batches = log, comes_in_batches
        self._tallies: list[Tally] = []
        self._timer = ProgressTimer()

    def add(self, tally: Tally) -> None:
        """Count what a receiver gets, too."""
        self._tallies.append(tally)

    def log_if_due(self) -> None:
        """Log a line, unless there was one within the last seconds."""
        if not self._timer.is_due():
            return
        now = time.monotonic()
        if self._comes_in_batches:
            self._log.info("%s", joint_progress(self._tallies, now))
        else:
            for tally in self._tallies:
                self._log.info("%s", tally.progress(now))
