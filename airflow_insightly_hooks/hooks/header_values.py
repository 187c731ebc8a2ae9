"""What HTTP headers say: numbers and times that may be missing, or nonsense."""

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
"""More than any count can have; Python refuses to read thousands of them."""


LATEST_YEAR = 9000
"""No server's clock shows a later one; from there, times with a duration added may not exist any more."""


def http_date(text: str | None) -> datetime | None:
    """Return the time of a ``Date`` header, in UTC; ``None`` if none can be read, or it can't be right."""
    date = _date(text)
    return date if date is not None and EPOCH.year <= date.year < LATEST_YEAR else None


def _date(text: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text or "")
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except (TypeError, ValueError, OverflowError):
        return None


def whole_number(text: str | None) -> int | None:
    """Return a count such as that of ``X-Total-Count``; ``None`` if there is none that can be read."""
    digits = (text or "").strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS else None


def retry_after(text: str | None, now: datetime) -> float | None:
    """Return the seconds that ``Retry-After`` asks to wait; ``None`` if it asks nothing that can be read.

    :param now: the time that a date in the header is measured from; 0 for one that is past.
    """
    digits = (text or "").strip()
    if digits.isascii() and digits.isdigit():
        return float(digits[:_MOST_DIGITS])  # more are as good as endless
    moment = _date(text)
    return None if moment is None else max(0.0, (moment - now).total_seconds())


def shown_value(name: str, value: str, *, is_hidden: bool = False) -> str:
    """Return a header's value as a person may see it: without credentials, and without what changes.

    :param is_hidden: whether it is hidden whatever the name is.
    """
    if name.lower() in ("webhook-timestamp", "webhook-signature"):
        return PER_ATTEMPT
    scheme, space, _ = value.partition(" ")
    if name.lower() == "authorization" and space and scheme.isalpha():
        return f"{scheme} {HIDDEN}"
    return HIDDEN if is_hidden or _SECRET_NAME.search(name) else value
