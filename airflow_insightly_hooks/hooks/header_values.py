"""Read the values of HTTP headers: numbers and times, which may be missing or wrong."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from airflow_insightly_hooks.core.dates import EPOCH

__all__ = ["http_date", "retry_after", "shown_value", "whole_number"]

HIDDEN = "***"
PER_ATTEMPT = "(made for each attempt)"
_SECRET_NAME = re.compile("auth|cookie|credential|key|passw|secret|signature|token", re.IGNORECASE)

_MOST_DIGITS = 12
"""The most digits that are read. No count has more, and Python refuses to read thousands of digits."""


LATEST_YEAR = 9000
"""Later years are not accepted: no server's clock is right there, and adding a duration may overflow."""


def http_date(text: str | None) -> datetime | None:
    """Return the time of a ``Date`` header, in UTC; ``None`` if it can't be read, or can't be right."""
    date = _date(text)
    return date if date is not None and EPOCH.year <= date.year < LATEST_YEAR else None


def _date(text: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text or "")
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except (TypeError, ValueError, OverflowError):
        return None


def whole_number(text: str | None) -> int | None:
    """Return the count in a header such as ``X-Total-Count``; ``None`` if it is missing or can't be read."""
    digits = (text or "").strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS else None


def retry_after(text: str | None, now: datetime) -> float | None:
    """Return the seconds that ``Retry-After`` asks to wait; ``None`` if it is missing or can't be read.

    :param now: the current time. If the header holds a date, the seconds from now until then are returned, 0
        for a date in the past.
    """
    digits = (text or "").strip()
    if digits.isascii() and digits.isdigit():
        return float(digits[:_MOST_DIGITS])  # a longer wait makes no difference
    moment = _date(text)
    return None if moment is None else max(0.0, (moment - now).total_seconds())


def shown_value(name: str, value: str, *, is_hidden: bool = False) -> str:
    """Return a header's value for users to read: without credentials, and without values of one attempt.

    :param is_hidden: whether the value is hidden even if the name is harmless.
    """
    if name.lower() in ("webhook-timestamp", "webhook-signature"):
        return PER_ATTEMPT
    scheme, space, _ = value.partition(" ")
    if name.lower() == "authorization" and space and scheme.isalpha():
        return f"{scheme} {HIDDEN}"
    return HIDDEN if is_hidden or _SECRET_NAME.search(name) else value
