"""Make the blocks of the reference: what the code declares, as Markdown in the pages of docs.

A page says where a block stands, by its kind and what it is about:

    <!-- begin: class operators.webhook.WebhookOperator -->
    <!-- end -->

With ``--check`` nothing is written: the exit code is 1 if a block is stale, or something is in no block.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from blocks import (
    api,
    commands,
    connections,
    criteria,
    errors,
    faults,
    metrics,
    shelves,
    state,
    workflow_keys,
)

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^<!-- begin: (\S+)(?: (.+?))? -->\n(.*?)^<!-- end -->$", re.MULTILINE | re.DOTALL)
KINDS: dict[str, Callable[[str], str]] = {
    "class": api.class_block,
    "command": commands.block,
    "connection-fields": connections.block,
    "criteria-operators": criteria.block,
    "errors": errors.block,
    "faults": faults.block,
    "fixture": api.fixture_block,
    "function": api.function_block,
    "metrics": metrics.block,
    "shelf": shelves.block,
    "state": state.block,
    "workflow-keys": workflow_keys.block,
}


def made(page: str) -> str:
    """Return a page's text with its blocks made anew.

    :raises ValueError: if a block can't be made, since what it is about is not described.
    """

    def block(found: re.Match[str]) -> str:
        kind, about = found[1], found[2] or ""
        if kind not in KINDS:
            raise ValueError(f"there is no block {kind!r}; there are {', '.join(KINDS)}")
        head = f"<!-- begin: {kind}{' ' if about else ''}{about} -->"
        return f"{head}\n{KINDS[kind](about)}\n<!-- end -->"

    return BLOCK.sub(block, page)


def pages() -> Iterator[Path]:
    """Yield the pages that may have blocks."""
    yield from sorted(DOCS.rglob("*.md"))


def blocks() -> set[tuple[str, str]]:
    """Return kind and subject of all blocks that the pages have."""
    found = (BLOCK.finditer(page.read_text(encoding="utf-8")) for page in pages())
    return {(block[1], block[2] or "") for page in found for block in page}


def main() -> int:
    """Write the blocks, or check them."""
    stale = 0
    for page in pages():
        text = page.read_text(encoding="utf-8")
        try:
            anew = made(text)
        except ValueError as error:
            print(f"{page.relative_to(ROOT)}: {error}")
            stale += 1
            continue
        if anew == text:
            continue
        if "--check" in sys.argv:
            print(f"{page.relative_to(ROOT)}: a block is stale: run make reference")
            stale += 1
        else:
            page.write_text(anew, encoding="utf-8")
            print(f"made the blocks of {page.relative_to(ROOT)}")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
