"""Makes Markdown from rows, values and docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

FIELD = re.compile(r":(param|ivar|raises|returns?)\s*([\w.]*)\s*:\s*(.*)", re.DOTALL)

LABELS = ("Cause:", "Remedy:")
"""The first words of paragraphs that need no blank line before them."""


class Described(NamedTuple):
    """The contents of a docstring, as Markdown.

    :param paragraphs: its paragraphs, without the fields.
    :param arguments: the description of each argument, by name.
    :param attributes: the description of each attribute, by name.
    :param raises: the errors, and when each is raised.
    :param returns: the description of the result; empty if there is none.
    """

    paragraphs: list[str]
    arguments: dict[str, str]
    attributes: dict[str, str]
    raises: list[tuple[str, str]]
    returns: str

    def labelled(self, label: str) -> str:
        """Return the paragraphs that begin with a label, such as ``Cause``, without the label."""
        found = [
            text.removeprefix(f"{label}:").strip() for text in self.paragraphs if text.startswith(label + ":")
        ]
        return " ".join(found)

    def without(self, *labels: str) -> list[str]:
        """Return the paragraphs that begin with none of the labels."""
        return [
            text for text in self.paragraphs if not text.startswith(tuple(f"{label}:" for label in labels))
        ]


def described(text: str | None) -> Described:
    """Return the contents of a docstring. Its fields have Sphinx's form (``:param name: …``)."""
    found = Described([], {}, {}, [], "")
    returns = ""
    for block in _blocks(inspect.cleandoc(text or "")):
        if (field := FIELD.fullmatch(block)) is None:
            found.paragraphs.append(_markdown(block))
        elif field[1] == "param":
            found.arguments[field[2]] = _markdown(field[3])
        elif field[1] == "ivar":
            found.attributes[field[2]] = _markdown(field[3])
        elif field[1] == "raises":
            found.raises.append((field[2], _markdown(field[3])))
        else:
            returns = _markdown(field[3])
    return found._replace(returns=returns)


def _blocks(text: str) -> Iterable[str]:
    """Yield paragraphs and fields."""
    block: list[str] = []
    for line in [*text.splitlines(), ""]:
        is_new = not line.strip() or line.startswith((":", *LABELS))
        if block and (is_new or (block[0].startswith(":") and line[0] != " ")):
            yield "\n".join(block)
            block = []
        if line.strip():
            block.append(line)


def _markdown(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, or an empty text if there are no rows."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *lines])


def code(value: Any) -> str:
    """Return a default value as a user would write it."""
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g} s"
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, bool | int | float | tuple | list | dict | type(None)):
        return f"`{value!r}`".replace("'", '"')
    if inspect.isbuiltin(value):
        return f"`{value.__module__}.{value.__name__}`"
    return f"`{type(value).__name__}()`"
