"""Finds Airflow's templates in texts, by their braces, and removes secrets from the templates of URIs."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["has_literal_user_information", "is_template", "parts_of", "shown_template", "shown_uri"]

_OPENING = re.compile(r"\{[{%#]")
_QUERY = re.compile("[?#]")
_USER_INFORMATION = re.compile(r"://([^/?#]*)@")
_TEXT_IN_CODE = re.compile(r"""'(?:[^'\\]|\\.)*(?:'|$)|"(?:[^"\\]|\\.)*(?:"|$)""", re.DOTALL)
_CLOSING = {"{{": "}}", "{%": "%}", "{#": "#}"}


def is_template(text: str) -> bool:
    """Return whether a text is a template, which Airflow has not rendered yet."""
    return "{{" in text or "{%" in text


def parts_of(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a template, each with ``True`` if it is in braces and ``False`` if it is text."""
    end = 0
    while (opening := _OPENING.search(text, end)) is not None:
        yield text[end : opening.start()], False
        closing = text.find(_CLOSING[opening[0]], opening.end())
        end = len(text) if closing < 0 else closing + 2
        yield text[opening.start() : end], True
    yield text[end:], False


def has_literal_user_information(uri: str) -> bool:
    """Return whether a URI, or a template of a URI, holds a user name or a password in clear."""
    literal = "".join(part for part, is_code in parts_of(uri) if not is_code)
    found = _USER_INFORMATION.search(literal)
    return found is not None and found[1].strip(":") != ""


def shown_uri(uri: str) -> str:
    """Return a URI without its query and user information; for a template, see ``shown_template``."""
    if is_template(uri):
        return shown_template(uri)
    before, *query = _QUERY.split(_USER_INFORMATION.sub("://", uri), maxsplit=1)
    return f"{before}?***" if query else before


def shown_template(uri: str) -> str:
    """Return the template of a URI up to a literal query, without texts and comments in braces."""
    parts = list(parts_of(uri))
    if any("@" in part for part, is_code in parts if not is_code):
        return "***"
    shown = ""
    for part, is_code in parts:
        if is_code:
            shown += "" if part.startswith("{#") else _TEXT_IN_CODE.sub("'***'", part)
            continue
        before, *query = _QUERY.split(part, maxsplit=1)
        shown += before
        if query:
            break
    return shown
