"""The name of a cursor, which holds the time up to which a task has read."""

from __future__ import annotations

from airflow_insightly_hooks.core.templates import is_template

__all__ = ["check_cursor_name"]

LONGEST = 502
"""How many characters a name may have. A key of Airflow's state store has at most 512 characters:
``cursor/``, the name, and three characters for what the cursor's runs have seen
(``core.detection.seen_store``)."""


def check_cursor_name(name: object) -> str:
    """Return the name of a cursor without white space around it.

    :param name: a text of 1 to 502 characters. Templates are refused, because they are not rendered: tasks
        with the same template would share a cursor, and each would miss what the others read.
    :raises ValueError: if the name is not valid.
    """
    if not isinstance(name, str):
        raise ValueError(f"cursor must be a text, not {type(name).__name__}")
    stripped = name.strip()
    if not 1 <= len(stripped) <= LONGEST:
        raise ValueError(f"cursor must have 1 to {LONGEST} characters, not {len(stripped)}")
    if not stripped.isprintable():
        raise ValueError("cursor must not hold control characters")
    if is_template(stripped):
        raise ValueError("cursor must not be a template, because it is not rendered: give a fixed name")
    return stripped
