"""The root of the package's errors."""

from __future__ import annotations

__all__ = [
    "InsightlyHooksError",
]


class InsightlyHooksError(Exception):
    """The root of every error that this package raises."""
