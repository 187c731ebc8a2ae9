"""Numbers with their nouns, singular or plural."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as ``1 file`` and ``2,000 files``.

    :param plural: the noun's plural; ``None`` adds an ``s`` to the noun.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
