"""Checks of values in a request's body. An error names the key, never the value."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from airflow_insightly_hooks.sandbox.crm.error_answers import BadRequest

__all__ = ["checked_choice", "checked_integer", "checked_keys", "checked_number", "checked_text"]


def checked_number(name: str, value: Any, minimum: float, maximum: float = math.inf) -> float:
    """Return ``value`` if it is a number from ``minimum`` to ``maximum``.

    :raises BadRequest: if it isn't. The error names ``name``.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not minimum <= value <= maximum:
        raise BadRequest(f"{name} is not a number {_range(minimum, maximum)}.")
    return float(value)


def checked_integer(name: str, value: Any, minimum: int = 0, maximum: float = math.inf) -> int:
    """Return ``value`` if it is a whole number from ``minimum`` to ``maximum``.

    :raises BadRequest: if it isn't. The error names ``name``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        raise BadRequest(f"{name} is not a whole number {_range(minimum, maximum)}.")
    return value


def checked_text(name: str, value: Any) -> str:
    """Return ``value`` if it is a text.

    :raises BadRequest: if it isn't. The error names ``name``.
    """
    if not isinstance(value, str):
        raise BadRequest(f"{name} is not a text.")
    return value


def checked_choice(name: str, value: Any, choices: Collection[str]) -> str:
    """Return ``value`` if it is one of ``choices``.

    :raises BadRequest: if it isn't. The error names ``name`` and the choices.
    """
    if not isinstance(value, str) or value not in choices:
        raise BadRequest(f"{name} must be one of {', '.join(choices)}.")
    return value


def checked_keys(
    name: str, value: Any, known: Collection[str], required: Collection[str] = ()
) -> dict[str, Any]:
    """Return ``value`` if it is an object with all ``required`` keys and without unknown keys.

    :raises BadRequest: if it isn't. The error names ``name`` and the keys.
    """
    if not isinstance(value, dict) or not set(required) <= value.keys() <= set(known):
        needs = f", {' and '.join(required)} required" if required else ""
        raise BadRequest(f"{name} must be an object with the keys {', '.join(known)}{needs}.")
    return value


def _range(minimum: float, maximum: float) -> str:
    return f"from {minimum:g}" + ("" if maximum == math.inf else f" to {maximum:g}")
