"""The documents' site: `make docs` builds it with Sphinx.

Every page is plain Markdown that GitHub shows, too. Two things are changed while a page is read:

- ``index.md`` has no toctrees, which GitHub would show as code. They are made of its shelves, which list all
  pages.
- Links to what is outside of ``docs`` and no page of the site lose their target; links to single files stay,
  and the site holds copies of these.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_insightly_hooks.version import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).parent
SHELF = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)#:\s]+)(#[^)]*)?\)")

project = "airflow-insightly-hooks"
version = release = __version__
extensions = ["myst_parser"]
exclude_patterns = ["_static", "screenshots"]
nitpicky = True
# Options of commands begin with two hyphens, which must stay two.
smartquotes = False

# Headings have the anchors that GitHub gives them, down to the sixth level.
myst_heading_anchors = 6

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"{project} {release}"
# No dates, no copies of sources: the same pages make the same site.
html_last_updated_fmt = None
html_use_index = False
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False


def toctrees(index: str) -> str:
    """Return the hidden toctrees of the site, made of the shelves of ``index.md``."""
    made = []
    for caption, text in SHELF.findall(index):
        if names := [target.removesuffix(".md") for _, target, _ in LINK.findall(text)]:
            made.append("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *names, "```"]))
    return "\n\n".join(made)


def without_outer_links(text: str, folder: Path) -> str:
    """Return a page's text, where links out of ``docs`` to folders and documents are plain text."""

    def plain(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        is_kept = target.is_relative_to(DOCS) or (target.is_file() and target.suffix != ".md")
        return link[0] if is_kept else link[1]

    return LINK.sub(plain, text)


def read(_app: Sphinx, name: str, source: list[str]) -> None:
    """Change a page's text before it is parsed."""
    source[0] = without_outer_links(source[0], (DOCS / name).parent)
    if name == "index":
        source[0] += "\n" + toctrees(source[0]) + "\n"


def setup(app: Sphinx) -> None:
    """Tell Sphinx what to call."""
    app.connect("source-read", read)
