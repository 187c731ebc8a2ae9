"""Reads the texts of addresses and forms: numbers, and times in a person's time zone."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfoNotFoundError

from airflow_insightly_hooks.core.dates import time_zone, utc_time

__all__ = ["time_in_zone", "whole_number"]


def whole_number(text: str, at_most: int) -> int | None:
    """Read a whole number from 0 to ``at_most``; return ``None`` if the text is anything else."""
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(at_most))):
        return None
    number = int(text)
    return number if number <= at_most else None


def time_in_zone(text: str, zone: str) -> datetime:
    """Return the time that a text means, in UTC.

    :param text: ISO 8601, as ``<input type="datetime-local">`` writes it.
    :param zone: the IANA name of the time zone for a time without an offset.
    :raises ValueError: if it is not a time, or there is no such zone.
    """
    time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    try:
        return utc_time(time if time.tzinfo is not None else time.replace(tzinfo=time_zone(zone)))
    except (OverflowError, ZoneInfoNotFoundError):
        raise ValueError(zone) from None
