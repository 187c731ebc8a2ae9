"""Read times that arguments name: absolute times, and times relative to now."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from airflow_insightly_hooks.cli.run import UsageError
from airflow_insightly_hooks.core.dates import api_time, parse_duration, relative_time
from airflow_insightly_hooks.core.errors import InvalidDuration, InvalidTime

__all__ = ["TIME", "time_of"]

TIME = "a time (2026-01-31, 2026-01-31T08:00:00Z; UTC without an offset) or a duration ago (30d, 12h)"


def time_of(text: str, option: str, now: datetime) -> datetime:
    """Return the time that an argument names, in UTC.

    :param text: a time in ISO 8601; a duration before now (``30d``); or ``now``, ``today``, ``now-7d``.
    :param option: the argument's name, for errors.
    :raises UsageError: if the text has another form, or the time is out of range.
    """
    try:
        with suppress(InvalidDuration):
            return now - parse_duration(text)
        relative = relative_time(text)
        return api_time(text) if relative is None else relative(now)
    except InvalidTime:
        raise UsageError(f"{option}: {TIME} is needed, not {text!r}") from None
    except OverflowError:
        raise UsageError(f"{option}: a time in the years 1 to 9999 is needed") from None
