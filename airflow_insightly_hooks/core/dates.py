"""Times as Insightly's API writes them, and Microsoft JSON dates as its webhooks write them.

The API writes ``2017-03-10 08:00:00`` in UTC, sometimes with milliseconds. Users may write ISO 8601. A
webhook's body has ``/Date(1489132800000-0800)/``: milliseconds since 1970-01-01 UTC, and the offset of a time
zone at that instant. The offset is only for display (Insightly's help page "What are webhooks in the workflow
automation?").
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from airflow_insightly_hooks.core.errors import InvalidDuration, InvalidTime

__all__ = [
    "EPOCH",
    "api_time",
    "day_of",
    "format_api_time",
    "format_ms_date",
    "iso_time",
    "parse_duration",
    "parse_ms_date",
    "relative_time",
    "rounded_up",
    "start_of_day",
    "time_zone",
    "utc_time",
]

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MILLISECOND = timedelta(milliseconds=1)
UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}

FIRST_DAY = datetime(1, 1, 2, tzinfo=timezone.utc)
LAST_DAY = datetime(9999, 12, 31, tzinfo=timezone.utc)
"""Between these, every zone's local time is within Python's range. .NET's first time, 0001-01-01, is not."""

_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?(Z|[+-]\d\d:?\d\d)?", re.ASCII
)
_DAY = re.compile(r"(\d{4}-\d\d-\d\d)(?P<midnight>[T ]00:00(?::00(?:\.0{1,9})?)?Z?)?", re.ASCII)
_DURATION = re.compile(r"(?P<number>\d{1,6})(?P<unit>[smhdw])", re.ASCII)
_RELATIVE = re.compile(rf"(?P<base>now|today)((?P<sign>[+-]){_DURATION.pattern})?", re.ASCII)
_MS_DATE = re.compile(r"\\?/Date\((-?\d+)(?:([+-])(\d\d)(\d\d))?\)\\?/", re.ASCII)


def api_time(text: object, where: str = "time") -> datetime:
    """Return the instant that ``text`` means, in UTC.

    :param text: ``2017-03-10 08:00:00`` with or without a fraction, a ``T`` or an offset, or only a date
        (midnight). Without an offset it is UTC, as everywhere in the API.
    :param where: its name in an error, such as the field's name.
    :raises InvalidTime: if it is not such a text.
    """
    match = _TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InvalidTime(where)
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    try:
        local = datetime(
            int(year),
            int(month),
            int(day),
            int(hour or 0),
            int(minute or 0),
            int(second or 0),
            int((fraction or "0")[:6].ljust(6, "0")),
            tzinfo=timezone.utc,
        )
        return local - _offset(offset)
    except (ValueError, OverflowError):
        raise InvalidTime(where) from None


def _offset(text: str | None) -> timedelta:
    if text is None or text == "Z":
        return timedelta(0)
    digits = text[1:].replace(":", "")
    if int(digits[2:]) > 59:
        raise ValueError(text)
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return -offset if text[0] == "-" else offset


def day_of(text: object, *, at_midnight: bool) -> date | None:
    """Return the day that ``text`` means, without a time; ``None`` if it is not a day.

    :param at_midnight: whether ``2017-03-10 00:00:00`` also means a day, and not only ``2017-03-10``.
    """
    match = _DAY.fullmatch(text) if isinstance(text, str) else None
    if match is None or (match["midnight"] and not at_midnight):
        return None
    try:
        return date.fromisoformat(match[1])
    except ValueError:
        return None


def start_of_day(day: date, timezone: str) -> datetime:
    """Return the instant at which a day begins in a time zone.

    :param timezone: the zone's IANA name. If the instant would be before the year 1, UTC is used instead.
    :raises ZoneInfoNotFoundError: if there is no such zone.
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=time_zone(timezone))
    try:
        return midnight.astimezone(EPOCH.tzinfo)
    except OverflowError:  # before the year 1
        return midnight.replace(tzinfo=EPOCH.tzinfo)


def parse_duration(text: object, where: str = "duration") -> timedelta:
    """Return the duration that ``text`` means: ``45s``, ``30m``, ``2h``, ``3d`` or ``1w``.

    :param where: its name in an error.
    :raises InvalidDuration: if it is not such a text.
    """
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InvalidDuration(where)
    return _duration(match)


def _duration(match: re.Match[str]) -> timedelta:
    return int(match["number"]) * UNITS[match["unit"]]


def relative_time(text: object) -> Callable[[datetime], datetime] | None:
    """Return the function from ``now`` to the time of a relative date; ``None`` if it is not relative.

    :param text: ``now`` or ``today`` (midnight UTC), with or without a duration that is added or subtracted:
        ``now-7d``, ``today+2h``.
    :returns: a function of an aware time. It raises ``OverflowError`` outside of the years 1 to 9999.
    """
    match = _RELATIVE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    offset = _duration(match) if match["sign"] else timedelta(0)
    if match["sign"] == "-":
        offset = -offset
    if match["base"] == "now":
        return lambda now: now + offset
    return lambda now: (
        now.astimezone(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0) + offset
    )


def rounded_up(moment: datetime, step: timedelta) -> datetime:
    """Return the first multiple of ``step`` since 1970 that is not before an aware time."""
    try:
        return moment + -(moment - EPOCH) % step
    except OverflowError:  # the year 9999 ends
        return moment


def format_api_time(instant: datetime) -> str:
    """Return ``instant`` for the API's parameters: ``2018-04-09T16:58:14Z``, cut to whole seconds."""
    return iso_time(instant.astimezone(timezone.utc).replace(microsecond=0))


def iso_time(instant: datetime) -> str:
    """Return ``instant`` as ISO 8601 in UTC, ending in ``Z``. A fraction is written in microseconds."""
    return instant.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def utc_time(instant: datetime) -> datetime:
    """Return ``instant`` in UTC as a plain ``datetime``: Airflow's times (pendulum's) behave differently."""
    utc = instant.astimezone(timezone.utc)
    return datetime(*utc.timetuple()[:6], utc.microsecond, tzinfo=timezone.utc)


def format_ms_date(instant: datetime, timezone: str = "America/Los_Angeles") -> str:
    """Return ``/Date(1489132800000-0800)/``, the text before JSON escapes its slashes.

    :param instant: an aware time; fractions of a millisecond are cut.
    :param timezone: the IANA name of the zone whose offset at that instant is shown.
    :raises ZoneInfoNotFoundError: if there is no such zone. It is a ``KeyError``.
    """
    milliseconds = (instant - EPOCH) // MILLISECOND
    shown = min(max(instant, FIRST_DAY), LAST_DAY)
    offset = shown.astimezone(time_zone(timezone)).utcoffset() or timedelta(0)
    minutes = round(offset.total_seconds() / 60)
    sign = "-" if minutes < 0 else "+"
    hours, minutes = divmod(abs(minutes), 60)
    return f"/Date({milliseconds}{sign}{hours:02}{minutes:02})/"


def parse_ms_date(text: str) -> datetime:
    """Return the instant of a Microsoft JSON date, in UTC, with or without escaped slashes.

    The offset says only how the sender would show the instant. The milliseconds are UTC in any case.

    :param text: the date, such as ``/Date(1489132800000-0800)/``.
    :raises InvalidTime: if ``text`` is not such a date.
    """
    match = _MS_DATE.fullmatch(text)
    if match is None:
        raise InvalidTime("Microsoft JSON date")
    try:
        return EPOCH + int(match[1]) * MILLISECOND
    except (ValueError, OverflowError):  # too many digits for an integer, or for a time
        raise InvalidTime("Microsoft JSON date") from None


@cache
def time_zone(name: str) -> ZoneInfo:
    """Return the zone of an IANA name.

    :raises ZoneInfoNotFoundError: if there is no such zone.
    """
    try:
        return ZoneInfo(name)
    except (ValueError, OSError):  # ZoneInfo raises these for '../x' and for a directory's name
        raise ZoneInfoNotFoundError(f"no time zone {name!r}") from None
