"""JSON with line breaks, its numbers and texts as they are written."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["indented"]

_TOKEN = re.compile(r"""\s*("[^"\\]*(?:\\.[^"\\]*)*"|[][{},:]|[^][{},:"\s]+)\s*""", re.DOTALL)
_OPENING = {"{": "}", "[": "]"}
STEP = "  "
DEEPEST = 20
"""Steps by which a line is indented at most: what nests deeper would be mostly blanks, gigabytes of them."""


def indented(text: str) -> str:
    """Return a JSON text with a line for each value; nothing but blanks between values is changed."""
    return "".join(_pieces([match[1] for match in _TOKEN.finditer(text)]))


def _pieces(tokens: list[str]) -> Iterator[str]:
    depth = 0
    before = ""
    for token in tokens:
        if token in ("}", "]"):
            depth -= 1
            if before not in _OPENING:
                yield _line(depth)
        elif before in _OPENING or before == ",":
            yield _line(depth)
        elif before == ":":
            yield " "
        yield token
        depth += token in _OPENING
        before = token


def _line(depth: int) -> str:
    return "\n" + STEP * min(depth, DEEPEST)
