"""Make README's table of the connections' extra fields from ``hooks/connection_fields.py``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from airflow_insightly_hooks.hooks.connection_fields import CONNECTION_FIELDS

DOCUMENT = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- connection fields: begin -->\n", "<!-- connection fields: end -->\n"


def table() -> str:
    """Return the table as Markdown, a row for each field.

    :raises ValueError: if a field is not described.
    """
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "| connection | field of extra | in the form | meaning | default |"
    yield "|---|---|---|---|---|"
    for connection_type, fields in CONNECTION_FIELDS.items():
        for field in fields:
            meaning = f"{field.description} {field.details}".strip()
            if not meaning:
                raise ValueError(f"{connection_type}: the field {field.name} needs a description or details")
            cells = (
                f"`{connection_type}`",
                f"`{field.name}`",
                field.label,
                meaning,
                "none" if field.default is None else f"`{_as_typed(field.default)}`",
            )
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _as_typed(default: str | float | bool) -> str:
    return default if isinstance(default, str) else json.dumps(default)


def with_table(text: str) -> str:
    """Return the document with its table made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"made the table of {DOCUMENT}")
