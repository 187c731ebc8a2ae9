"""Limits for the numbers in DAG files: numbers outside of them are refused when the files are read."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

__all__ = [
    "LONGEST_DURATION",
    "LONGEST_LOOKBACK",
    "LONGEST_SETTLE",
    "MOST_CONCURRENT",
    "POLL_INTERVAL",
    "PUSH_POLL_INTERVAL",
    "SHORTEST_POLL",
    "check_durations",
    "check_seconds",
    "check_whole",
]

LONGEST_DURATION = timedelta(days=36_500)
"""The longest wait. A time so far from now still has a year of four digits."""
LONGEST_LOOKBACK = 86_400.0
"""In seconds."""
LONGEST_SETTLE = 86_400.0
"""In seconds. Settling does not help with changes that become visible after more than a day."""
SHORTEST_POLL = 0.01
"""Seconds between two polls."""
POLL_INTERVAL = 15.0
"""Seconds between two polls, by default."""
PUSH_POLL_INTERVAL = 900.0
"""The same if webhooks announce changes: then polls find the changes that webhooks have not announced."""
MOST_CONCURRENT = 1_000
"""How many POSTs may run at once. Each has a thread."""


def check_seconds(
    name: str,
    value: object,
    *,
    at_least: float = 0,
    at_most: float = LONGEST_DURATION.total_seconds(),
    or_timedelta: bool = False,
) -> None:
    """Check a number of seconds.

    :param name: what to call it in an error.
    :param or_timedelta: whether a ``timedelta`` is allowed, too.
    :raises ValueError: if the value is not a number of seconds, or out of bounds.
    """
    seconds = value.total_seconds() if or_timedelta and isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ValueError(f"{name} must be a number of seconds{', or a timedelta' if or_timedelta else ''}")
    if not at_least <= seconds <= at_most:  # false for NaN
        raise ValueError(f"{name} must be {at_least:g} to {at_most:.12g} seconds")


def check_durations(holders: Iterable[object], *names: str) -> None:
    """Check that attributes are ``None``, or a ``timedelta`` that is not negative.

    :raises ValueError: if an attribute is something else, or out of bounds.
    """
    for holder in holders:
        for name in names:
            value = getattr(holder, name)
            if value is None:
                continue
            if not isinstance(value, timedelta) or not timedelta(0) <= value <= LONGEST_DURATION:
                raise ValueError(f"{name} must be a timedelta of 0 to {LONGEST_DURATION.days} days")


def check_whole(name: str, value: object, *, at_least: int, at_most: int = 1_000_000_000) -> None:
    """Check a whole number.

    :raises ValueError: if the value is not a whole number, or out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value <= at_most:
        raise ValueError(f"{name} must be a whole number from {at_least} to {at_most}")
