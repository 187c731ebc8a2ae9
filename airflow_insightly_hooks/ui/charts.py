"""The numbers of a small bar chart in SVG: how many messages were delivered on each day, and how many not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

from airflow_insightly_hooks.core.plurals import counted

__all__ = ["Bar", "Chart"]

HEIGHT = 32.0
WIDTH = 8.0
"""The width of a bar and the gap beside it, in the chart's own units."""
LEAST = 1.5
"""The smallest height of a number that isn't zero. So one failure among thousands is visible."""


class Bar(NamedTuple):
    """One day.

    :param x: the left edge of its bar.
    :param delivered: the height of its bar's lower part.
    :param undelivered: the height of its bar's upper part.
    :param label: the text that hovering shows.
    """

    x: float
    delivered: float
    undelivered: float
    label: str


class Chart(NamedTuple):
    """The bars, and a summary for screen readers."""

    bars: list[Bar]
    width: float
    height: float
    summary: str

    @classmethod
    def of(cls, days: Sequence[tuple[date, int, int]]) -> Chart:
        """Return the chart of some days.

        :param days: for each day, how many messages were delivered, and how many were not.
        """
        highest = max((good + bad for _, good, bad in days), default=0)
        bars = [
            Bar(
                index * WIDTH,
                _height(good, highest),
                _height(bad, highest),
                f"{day}: {good:,} delivered, {bad:,} undelivered",
            )
            for index, (day, good, bad) in enumerate(days)
        ]
        busiest = max(days, key=lambda one: one[1] + one[2], default=None)
        if busiest is None or not highest:
            summary = f"Nothing was sent in {counted(len(days), 'day')}"
        else:
            with_failures = sum(bad > 0 for _, _, bad in days)
            summary = (
                f"Messages by day, {counted(len(days), 'day')}: {highest:,} at most, on {busiest[0]}; "
                f"undelivered ones on {counted(with_failures, 'day')}"
            )
        return cls(bars, len(days) * WIDTH, HEIGHT, summary)


def _height(number: int, highest: int) -> float:
    if not number:
        return 0.0
    return round(max(LEAST, number / highest * (HEIGHT - 2 * LEAST)), 2)
