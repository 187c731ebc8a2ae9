"""Reads pages for tests: their text, and the fields of their forms."""

from __future__ import annotations

import re
from html import unescape

__all__ = ["fields_of", "text_of"]


def text_of(page: str) -> str:
    """Return a page's text without tags, with single blanks."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())


def fields_of(page: str) -> dict[str, list[str]]:
    """Return the fields of the confirmation form, including the button's."""
    form = next(form for form in page.split("<form")[1:] if 'class="primary"' in form).partition("</form>")[0]
    found: dict[str, list[str]] = {}
    inputs = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', form)
    button = re.findall(r'<button class="primary" name="([^"]*)" value="([^"]*)"', form)
    for name, value in [*inputs, *button]:
        found.setdefault(unescape(name), []).append(unescape(value))
    return found
