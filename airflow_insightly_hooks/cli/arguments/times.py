"""Times that arguments name: absolute ones, and ones that are measured from now."""

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

    :param text: an ISO 8601 text; ``30d`` for so long before now; or ``now``, ``today``, ``now-7d``.
    :param option: the argument's name, for an error.
    :raises UsageError: if it is no such text.
    """
    try:
        with suppress(InvalidDuration):
            return now - parse_duration(text)
        relative = relative_time(text)
        return api_time(text) if relative is None else relative(now)
    except InvalidTime:
        raise UsageError(f"{option}: {TIME} is needed") from None
    except OverflowError:
        raise UsageError(f"{option}: a time in the years 1 to 9999 is needed") from None
