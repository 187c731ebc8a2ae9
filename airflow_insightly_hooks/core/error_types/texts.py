"""What errors' messages say of texts and of other errors."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "missing_keys",
    "printable",
    "told",
]


LONGEST_SHOWN = 2_000
"""Characters of a path or a reason that a message shows."""


def printable(text: str) -> str:
    """Return a text as a log and Airflow's database can hold it: cut, control characters written out."""
    if len(text) > LONGEST_SHOWN:
        text = f"{text[:LONGEST_SHOWN]}…"
    # PostgreSQL takes no U+0000, and nobody half of a surrogate pair.
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def missing_keys(value: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Return the ``keys`` that ``value`` lacks, quoted and joined by commas."""
    return ", ".join(repr(key) for key in keys if key not in value)


def told(error: BaseException) -> str:
    """Return what may be said of an error whose text may hold anything: its class, and where it was raised.

    Such as ``KeyError at post_threads.py:42``.
    """
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"
