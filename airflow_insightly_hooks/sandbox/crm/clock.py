"""The sandbox's clock, and times as Insightly writes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

__all__ = ["RECORD_TIMES_CHOICES", "Clock", "format_time", "normalised_time"]

_TIME = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"([T ](?P<time>[0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,7})?Z?)?"
)


RECORD_TIMES_CHOICES = ("cut", "rounded")
"""How the clock can treat the fractions of seconds in record times."""

HALF_A_SECOND = timedelta(seconds=0.5)

A_TIME = "a time such as 2017-03-10 08:00:00 or 2017-03-10T08:00:00Z"


class Clock:
    """The sandbox's clock.

    :param source: returns the time, in seconds since 1970.
    :ivar offset: seconds that are added to ``source``; negative if the clock is behind.
    :ivar record_times: ``cut`` if record times drop fractions of a second, ``rounded`` if they are rounded.
    """

    def __init__(self, source: Callable[[], float]) -> None:
        self.source = source
        self.offset = 0.0
        self.record_times = "cut"

    def now(self) -> datetime:
        """Return the sandbox's time, in UTC."""
        return self.moment(self.source())

    def moment(self, seconds: float) -> datetime:
        """Return the sandbox's time, in UTC, when its source says ``seconds``."""
        return datetime.fromtimestamp(seconds + self.offset, timezone.utc)

    def record_time(self, seconds: float) -> str:
        """Return the same time as the API writes it into a record: whole seconds, UTC."""
        moment = self.moment(seconds)
        return format_time(moment + HALF_A_SECOND if self.record_times == "rounded" else moment)

    def http_date(self) -> str:
        """Return the sandbox's time as a value of HTTP's ``Date`` header."""
        return format_datetime(self.now(), usegmt=True)


def format_time(moment: datetime) -> str:
    """Return a time in the API's notation, such as ``2017-03-10 08:00:00``. Fractions are cut off."""
    return moment.isoformat(" ", "seconds")[:19]


def normalised_time(text: str) -> str:
    """Return a time in the API's notation: ``2018-04-09T16:58:14Z`` becomes ``2018-04-09 16:58:14``.

    Fractions are cut off, because the API's times have whole seconds. A date without a time means midnight.

    :raises ValueError: if ``text`` is not a time. The error says what a time looks like.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(A_TIME)
    whole = f"{match['date']} {match['time'] or '00:00:00'}"
    try:
        datetime.fromisoformat(whole)
    except ValueError:  # Python's text holds the value, which may be personal data
        raise ValueError(A_TIME) from None
    return whole
