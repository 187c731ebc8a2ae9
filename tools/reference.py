"""Make the blocks of the reference: Markdown in the pages of docs, from the declarations in the code.

A page has a block between two comments. The first one names the block's kind and subject:

    <!-- begin: class operators.webhook.WebhookOperator -->
    <!-- end -->

With ``--check``, nothing is written. The exit code is 1 if a block is outdated, or can't be made, because its
subject is not described. ``tests/test_reference.py`` tests that everything has a block.
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
    """Return a page's text with updated blocks.

    :raises ValueError: if a block can't be made, because its subject has no description.
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
    """Return the kind and subject of all blocks in the pages."""
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
            print(f"{page.relative_to(ROOT)}: a block is outdated: run make reference")
            stale += 1
        else:
            page.write_text(anew, encoding="utf-8")
            print(f"updated the blocks of {page.relative_to(ROOT)}")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
