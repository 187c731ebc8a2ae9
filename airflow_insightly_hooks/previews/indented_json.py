"""Format JSON with line breaks, without changing its numbers and texts."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["indented"]

_TOKEN = re.compile(r"""\s*("[^"\\]*(?:\\.[^"\\]*)*"|[][{},:]|[^][{},:"\s]+)\s*""", re.DOTALL)
_OPENING = {"{": "}", "[": "]"}
STEP = "  "
DEEPEST = 20
"""The most steps by which a line is indented. Without a limit, deeply nested JSON would be gigabytes of
blanks."""


def indented(text: str) -> str:
    """Return a JSON text with a line for each value; only the blanks between values are changed."""
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
