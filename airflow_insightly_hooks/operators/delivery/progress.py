"""The log line with the progress of deliveries."""

from __future__ import annotations

import time
from typing import Any

from airflow_insightly_hooks.core.delivery.report import Tally, joint_progress
from airflow_insightly_hooks.operators.common.progress_timer import ProgressTimer

__all__ = ["DeliveryProgress"]


class DeliveryProgress:
    """Logs from time to time the progress of all deliveries of a try, to one receiver or several.

    :param log: the log for the lines.
    :param comes_in_batches: whether more payloads may come later. Then no remaining time is shown.
    """

    def __init__(self, log: Any, *, comes_in_batches: bool = False) -> None:
        self._log, self._comes_in_batches = log, comes_in_batches
        self._tallies: list[Tally] = []
        self._timer = ProgressTimer()

    def add(self, tally: Tally) -> None:
        """Show the progress of one more receiver."""
        self._tallies.append(tally)

    def log_if_due(self) -> None:
        """Log a line, unless there was one a few seconds ago."""
        if not self._timer.is_due():
            return
        now = time.monotonic()
        if self._comes_in_batches:
            self._log.info("%s", joint_progress(self._tallies, now))
        else:
            for tally in self._tallies:
                self._log.info("%s", tally.progress(now))
