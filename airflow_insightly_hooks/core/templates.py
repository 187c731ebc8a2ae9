"""Airflow's templates in texts, as far as they can be told by their braces."""

from __future__ import annotations

__all__ = ["is_template"]


def is_template(text: str) -> bool:
    """Return whether Airflow has yet to render a text."""
    return "{{" in text or "{%" in text
