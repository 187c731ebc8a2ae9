"""Texts for the messages of errors."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "missing_keys",
    "printable",
    "type_and_place",
]


LONGEST_SHOWN = 2_000
"""How many characters of a path or a reason a message shows at most."""


def printable(text: str) -> str:
    """Return a text as a log and Airflow's database can hold it: shortened, control characters escaped."""
    if len(text) > LONGEST_SHOWN:
        text = f"{text[:LONGEST_SHOWN]}…"
    # PostgreSQL can't store U+0000, and nothing can store half of a surrogate pair.
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def missing_keys(value: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Return the ``keys`` that ``value`` lacks, quoted and joined by commas."""
    return ", ".join(repr(key) for key in keys if key not in value)


def type_and_place(error: BaseException) -> str:
    """Return an error's class and where it was raised, such as ``KeyError at post_threads.py:42``.

    For errors whose own text may hold anything, also personal data.
    """
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"
