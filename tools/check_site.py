"""Check that the built site loads nothing from other hosts: no fonts, styles, scripts or pictures.

Usage: python tools/check_site.py build/docs/html. It prints the addresses on other hosts that the site would
load, and exits with 1 if there are any. Links that a reader follows may lead anywhere.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

# An attribute with one of these names makes a browser load something, in any element.
LOADING = {"src", "srcset", "data", "poster", "background", "action", "formaction", "manifest", "ping"}
# In these elements, an href makes a browser load something. In <a> and <area>, it is a link.
LOADING_HREF = {"link", "use", "image", "base"}
FROM_CSS = re.compile(r"@import\s+(?:url\()?\s*['\"]?([^'\")\s;]+)|url\(\s*['\"]?([^'\")\s]+)")
REMOTE = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
# The names of XML namespaces look like addresses, but browsers don't load them.
IN_SCRIPT = re.compile(r"['\"`]((?:https?:)?//(?!www\.w3\.org/)[\w.-]+\.[a-z]{2,}[^'\"`]*)")
KINDS = (".html", ".css", ".js", ".svg")
"""The files that can make a browser load something."""


class _Page(HTMLParser):
    """Collects the addresses that a page loads, and the text of its styles and scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.styles: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        for name, value in attrs:
            name = name.removeprefix("xlink:")
            if name in LOADING or (name == "href" and tag in LOADING_HREF):
                self.addresses += [part.split()[0] for part in (value or "").split(",") if part.strip()]
            elif name == "style":
                self.styles.append(value or "")
            elif name.startswith("on"):
                self.scripts.append(value or "")

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 — HTMLParser's
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("style", "script"):
            (self.styles if self._inside == "style" else self.scripts).append(data)


def loads(path: Path) -> Iterator[str]:
    """Yield the addresses on other hosts that a file of the site makes a browser load."""
    text = path.read_text(encoding="utf-8")
    styles, scripts, addresses = [], [], []
    if path.suffix in (".html", ".svg"):
        page = _Page()
        page.feed(text)
        styles, scripts, addresses = page.styles, page.scripts, page.addresses
    elif path.suffix == ".css":
        styles = [text]
    elif path.suffix == ".js":
        scripts = [text]
    addresses += [a or b for style in styles for a, b in FROM_CSS.findall(style)]
    yield from (address for address in addresses if REMOTE.match(address))
    yield from (address for script in scripts for address in IN_SCRIPT.findall(script))


def main(folder: str) -> int:
    """Print the addresses that the site would load, and return the exit code."""
    files = [path for path in sorted(Path(folder).rglob("*.*")) if path.suffix in KINDS]
    if not any(path.name == "index.html" for path in files):
        print(f"site: there is no site in {folder}")
        return 1
    found = [f"{path}: it loads {address}" for path in files for address in loads(path)]
    print("\n".join([*found, f"site: {len(files)} files, {len(found)} addresses on other hosts are loaded"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
