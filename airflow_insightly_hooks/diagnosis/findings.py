"""What a check returns."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

__all__ = ["OK", "PROBLEM", "SKIPPED", "WARNING", "Finding", "Level"]

Level: TypeAlias = Literal["ok", "warning", "problem", "skipped"]

OK: Level = "ok"
WARNING: Level = "warning"
"""It works, and may stop working, or something may be read by others than meant."""
PROBLEM: Level = "problem"
"""Something doesn't work."""
SKIPPED: Level = "skipped"
"""It wasn't checked, since something that it takes isn't at hand."""


class Finding(NamedTuple):
    """What a check has found.

    :param subject: what it is about, such as ``connection billing_webhook``.
    :param level: how bad it is.
    :param finding: what was found: a sentence without credentials.
    :param what_to_do: what to do about it; empty where nothing is to be done.
    """

    subject: str
    level: Level
    finding: str
    what_to_do: str = ""
