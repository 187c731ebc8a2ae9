"""The name of a cursor, which says where a task has read to."""

from __future__ import annotations

from airflow_insightly_hooks.core.templates import is_template

__all__ = ["check_cursor_name"]

LONGEST = 502
"""Characters: with ``cursor/`` before it, and three characters behind it for what the cursor's runs have seen
(``core.detection.seen_store``), a name is a key of Airflow's state store, which takes 512."""


def check_cursor_name(name: object) -> str:
    """Return the name of a cursor without white space around it.

    :param name: a text of 1 to 502 characters. Templates are not rendered: tasks that share the text of one
        would share a cursor, and each would miss what the others read.
    :raises ValueError: if it is not such a text.
    """
    if not isinstance(name, str):
        raise ValueError(f"cursor must be a text, not {type(name).__name__}")
    stripped = name.strip()
    if not 1 <= len(stripped) <= LONGEST:
        raise ValueError(f"cursor must have 1 to {LONGEST} characters, not {len(stripped)}")
    if not stripped.isprintable():
        raise ValueError("cursor must not hold control characters")
    if is_template(stripped):
        raise ValueError("cursor must not be a template: it is not rendered")
    return stripped
