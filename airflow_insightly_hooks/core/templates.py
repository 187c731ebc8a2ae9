"""Airflow's templates in texts, as far as they can be told by their braces."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["is_template", "parts_of"]

_OPENING = re.compile(r"\{[{%#]")
_CLOSING = {"{{": "}}", "{%": "%}", "{#": "#}"}


def is_template(text: str) -> bool:
    """Return whether Airflow has yet to render a text."""
    return "{{" in text or "{%" in text


def parts_of(text: str) -> Iterator[tuple[str, bool]]:
    """Yield what a template consists of: texts, and what stands in braces, which is marked by ``True``."""
    end = 0
    while (opening := _OPENING.search(text, end)) is not None:
        yield text[end : opening.start()], False
        closing = text.find(_CLOSING[opening[0]], opening.end())
        end = len(text) if closing < 0 else closing + 2
        yield text[opening.start() : end], True
    yield text[end:], False
