"""The sandbox's clock, and times as Insightly writes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timezone
from email.utils import format_datetime

__all__ = ["Clock", "format_time", "normalised_time"]

_TIME = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"([T ](?P<time>[0-9]{2}:[0-9]{2}:[0-9]{2})(?P<fraction>\.[0-9]{1,7})?Z?)?"
)


A_TIME = "a time such as 2017-03-10 08:00:00 or 2017-03-10T08:00:00Z"


class Clock:
    """Seconds since 1970 by ``source``, moved by ``offset`` seconds."""

    def __init__(self, source: Callable[[], float]) -> None:
        self.source = source
        self.offset = 0.0

    def now(self) -> datetime:
        """Return the sandbox's time, in UTC."""
        return datetime.fromtimestamp(self.source() + self.offset, timezone.utc)

    def text(self) -> str:
        """Return the sandbox's time as the API writes it: whole seconds, UTC."""
        return format_time(self.now())

    def http_date(self) -> str:
        """Return the sandbox's time as HTTP's ``Date`` header writes it."""
        return format_datetime(self.now(), usegmt=True)


def format_time(moment: datetime) -> str:
    """Write a time as the API does, such as ``2017-03-10 08:00:00``; fractions are cut off."""
    return moment.replace(tzinfo=None).isoformat(" ", "seconds")


def normalised_time(text: str) -> str:
    """Turn ``2018-04-09T16:58:14Z`` or ``2018-04-09 16:58:14`` into the latter notation.

    Milliseconds are kept where there are any, so such texts sort as the times they stand for. A date
    alone is its midnight.

    :raises ValueError: if ``text`` is no time; its text says what is asked for.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(A_TIME)
    whole = f"{match['date']} {match['time'] or '00:00:00'}"
    try:
        datetime.fromisoformat(whole)
    except ValueError:  # its text holds the value, which may be a customer's
        raise ValueError(A_TIME) from None
    milliseconds = (match["fraction"] or "")[1:4].ljust(3, "0")
    return whole if milliseconds == "000" else f"{whole}.{milliseconds}"
