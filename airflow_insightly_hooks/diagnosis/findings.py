"""The result of a check."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

__all__ = ["OK", "PROBLEM", "SKIPPED", "WARNING", "Finding", "Level"]

Level: TypeAlias = Literal["ok", "warning", "problem", "skipped"]

OK: Level = "ok"
WARNING: Level = "warning"
"""It works, but it may stop working, or others can read something that they shouldn't."""
PROBLEM: Level = "problem"
"""Something doesn't work."""
SKIPPED: Level = "skipped"
"""It wasn't checked, because something that the check needs is missing."""


class Finding(NamedTuple):
    """A result of a check.

    :param subject: what was checked, such as ``connection billing_webhook``.
    :param level: how serious the finding is.
    :param finding: the finding, as a sentence without credentials.
    :param what_to_do: what to do about it; empty if nothing needs to be done.
    """

    subject: str
    level: Level
    finding: str
    what_to_do: str = ""
