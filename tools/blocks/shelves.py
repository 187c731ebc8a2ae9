"""The blocks of the front page: the pages of each shelf, in their order, with their titles."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parent.parent.parent / "docs"
SHELVES = {
    "tutorial": ("tutorial",),
    "how-to": (
        *("real-account", "insightly-screens", "incoming", "receive-webhooks", "test-dags", "scale-out"),
        *("backfill", "send-again", "dead-letters", "troubleshooting", "personal-data", "upgrade", "remove"),
    ),
    "reference": (
        *("workflow-files", "criteria", "operators", "python", "connections", "messages", "command-line"),
        *("pages", "metrics", "state", "errors", "faults", "sandbox", "compatibility"),
    ),
    "explanation": ("detection", "delivery", "incoming", "scale", "parity", "architecture"),
}
"""The pages of each folder in the order of reading. Other pages follow, sorted by name."""
OUTSIDE = {"tutorial": ("tutorial.md",), "explanation": ("architecture.md",)}
"""Pages of a shelf that are in no folder."""


def block(shelf: str) -> str:
    """Return the pages of a shelf as a list of links."""
    order = SHELVES[shelf]
    paths = [*(DOCS / shelf).glob("*.md"), *(DOCS / name for name in OUTSIDE.get(shelf, ()))]
    names = sorted(path.stem for path in paths if path.exists())
    names.sort(key=lambda name: order.index(name) if name in order else len(order))
    found = {path.stem: path for path in paths}
    return "\n".join(
        f"- [{_title(found[name])}]({found[name].relative_to(DOCS).as_posix()})" for name in names
    )


def _title(page: Path) -> str:
    title = re.match(r"# (.+)", page.read_text(encoding="utf-8"))
    if title is None:
        raise ValueError(f"{page.name} has no title")
    return title[1]
