"""The root of the package's errors."""

from __future__ import annotations

__all__ = [
    "InsightlyHooksError",
]


class InsightlyHooksError(Exception):
    """The base class of every error that this package raises.

    Cause: It is never raised itself, only its subclasses are.

    Remedy: Catch it to handle every error of this package in one place.
    """
