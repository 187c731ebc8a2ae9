"""The sandbox's clock, and times as Insightly writes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

__all__ = ["RECORD_TIMES_CHOICES", "Clock", "format_time", "normalised_time"]

_TIME = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"([T ](?P<time>[0-9]{2}:[0-9]{2}:[0-9]{2})(?P<fraction>\.[0-9]{1,7})?Z?)?"
)


RECORD_TIMES_CHOICES = ("cut", "rounded")
"""What can become of a record time's fraction of a second."""

HALF_A_SECOND = timedelta(seconds=0.5)

A_TIME = "a time such as 2017-03-10 08:00:00 or 2017-03-10T08:00:00Z"


class Clock:
    """The sandbox's clock.

    :param source: seconds since 1970.
    :ivar offset: how many seconds it is ahead of ``source``, or behind if negative.
    :ivar record_times: whether the times that it gives to records are ``cut`` to seconds or ``rounded``.
    """

    def __init__(self, source: Callable[[], float]) -> None:
        self.source = source
        self.offset = 0.0
        self.record_times = "cut"

    def now(self) -> datetime:
        """Return the sandbox's time, in UTC."""
        return self.moment(self.source())

    def moment(self, seconds: float) -> datetime:
        """Return the sandbox's time at so many ``seconds`` of its source, in UTC."""
        return datetime.fromtimestamp(seconds + self.offset, timezone.utc)

    def record_time(self, seconds: float) -> str:
        """Return the sandbox's time then as the API writes it into a record: whole seconds, UTC."""
        moment = self.moment(seconds)
        return format_time(moment + HALF_A_SECOND if self.record_times == "rounded" else moment)

    def http_date(self) -> str:
        """Return the sandbox's time as HTTP's ``Date`` header writes it."""
        return format_datetime(self.now(), usegmt=True)


def format_time(moment: datetime) -> str:
    """Write a time as the API does, such as ``2017-03-10 08:00:00``; fractions are cut off."""
    return moment.isoformat(" ", "seconds")[:19]


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
