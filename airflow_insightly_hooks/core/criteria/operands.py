"""The value that a condition compares with, and how texts, numbers and times are read from values.

Numbers are exact: a float is the decimal number as which it is written (0.1 is "0.1"). Here, an instant is a
naive time in UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.dates import api_time, parse_duration, relative_time
from airflow_insightly_hooks.core.errors import InvalidCriteria, InvalidDuration, InvalidTime
from airflow_insightly_hooks.core.exact_json import ExactNumber

__all__ = ["Operand", "Reference", "instant_of", "number_of", "text_of", "utc"]

MOST_VALUES = 100_000
"""How many values a list may have."""

_read_iso = datetime.fromisoformat  # looked up once, because the lookup takes as long as reading a time


class Reference:
    """The time from which relative dates are measured.

    :param instant: an aware time; with ``None``, relative dates are refused.
    """

    def __init__(self, instant: datetime | None) -> None:
        if instant is not None and instant.utcoffset() is None:
            raise ValueError("an aware time is needed to measure relative dates from")
        self.instant = instant
        self.used = False

    def measure(self, path: str) -> datetime:
        """Return the instant from which the relative date at ``path`` is measured.

        :raises InvalidCriteria: if there is no instant.
        """
        self.used = True
        if self.instant is None:
            raise InvalidCriteria(
                path, "a relative date is measured from a time, but no time was given: give `now`"
            )
        return self.instant


class Operand(NamedTuple):
    """The value that a condition compares with, and its place in the criteria."""

    value: Any
    case_sensitive: bool
    path: str
    reference: Reference

    @property
    def fold(self) -> Callable[[str], str]:
        """The function that makes texts equal which differ in case only, if case doesn't count."""
        return str if self.case_sensitive else str.casefold

    def text(self) -> str:
        """Return the value as a text, folded."""
        text = text_of(self.value)
        if text is None:
            raise InvalidCriteria(self.path, f"a text is needed, not {type(self.value).__name__}")
        return self.fold(text)

    def number(self) -> Decimal | None:
        """Return the value as a number; ``None`` if it is not a number."""
        return number_of(self.value)

    def instant(self) -> datetime | None:
        """Return the value as an instant; ``None`` if it is not a time."""
        value = self.value
        try:
            if isinstance(value, datetime):
                return utc(value)
            if isinstance(value, date):
                return datetime(value.year, value.month, value.day)  # noqa: DTZ001 — naive, in UTC
            relative = relative_time(value)
            if relative is not None:
                return utc(relative(self.reference.measure(self.path)))
        except OverflowError:
            raise InvalidCriteria(self.path, "a date of the years 1 to 9999 is needed") from None
        return instant_of(value)

    def duration(self) -> timedelta:
        """Return the value as a duration."""
        try:
            duration = self.value if isinstance(self.value, timedelta) else parse_duration(self.value)
        except InvalidDuration:
            duration = timedelta(-1)
        if duration < timedelta(0):
            raise InvalidCriteria(self.path, "a duration such as '30m', '2h', '7d' or '1w' is needed")
        return duration

    def each(self) -> list[Operand]:
        """Return the members of a list as operands."""
        if not isinstance(self.value, Sequence) or isinstance(self.value, str):
            raise InvalidCriteria(self.path, f"a list is needed, not {type(self.value).__name__}")
        if not self.value:
            raise InvalidCriteria(self.path, "the list is empty: at least one value is needed")
        if len(self.value) > MOST_VALUES:
            raise InvalidCriteria(self.path, f"the list holds more than {MOST_VALUES:,} values: use fewer")
        return [self._replace(value=value, path=f"{self.path}[{i}]") for i, value in enumerate(self.value)]


def text_of(value: object) -> str | None:
    """Return a text, or a number as a text; ``None`` for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, ExactNumber):
        return value.text
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return str(value)
    except ValueError:  # Python doesn't write whole numbers of more than 4,300 digits
        return None


def number_of(value: object) -> Decimal | None:
    """Return the exact number of a number, or of a text that is a number; ``None`` for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, float):
        value = value.text if isinstance(value, ExactNumber) else repr(value)
    # Decimal also reads 1_000 and the digits of every script, which JSON and Insightly don't write.
    if not isinstance(value, str) or not value.isascii() or "_" in value:
        return None
    try:
        number = Decimal(value.strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def instant_of(value: object) -> datetime | None:
    """Return the instant that a text means; ``None`` for anything else."""
    if not isinstance(value, str):
        return None
    # The API's own form, YYYY-MM-DD HH:MM:SS, is read by Python's fastest function. It also reads forms that
    # api_time refuses: other separators, and from Python 3.14 on 24:00 as the next midnight.
    if len(value) == 19 and value[4::3] == "-- ::":
        try:
            instant = _read_iso(value)
        except ValueError:
            return None
        return instant if instant.hour or value[11:13] == "00" else None
    try:
        return utc(api_time(value))
    except InvalidTime:
        return None


def utc(instant: datetime) -> datetime:
    """Return an instant as a naive time in UTC; a naive time counts as UTC."""
    if instant.utcoffset() is None:
        return instant.replace(tzinfo=None)
    return instant.astimezone(timezone.utc).replace(tzinfo=None)
