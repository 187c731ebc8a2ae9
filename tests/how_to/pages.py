"""The how-to pages' code blocks, as readers copy them."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path

__all__ = ["HOW_TO", "Page", "commands"]

HOW_TO = Path(__file__).parent.parent.parent / "docs" / "how-to"
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


class Page:
    """A page of docs/how-to.

    :ivar blocks: language and text of each code block, in the page's order.
    """

    def __init__(self, name: str) -> None:
        self.text = (HOW_TO / name).read_text("utf-8")
        self.blocks = [(kind, textwrap.dedent(code)) for _, kind, code in BLOCK.findall(self.text)]

    def kinds(self) -> list[str]:
        """Return the blocks' languages, in order."""
        return [kind for kind, _ in self.blocks]

    def block(self, kind: str, words: str) -> str:
        """Return the one block of a language that holds ``words``."""
        (found,) = [code for language, code in self.blocks if language == kind and words in code]
        return found


def commands(code: str) -> list[list[str]]:
    """Return a shell block's commands, split into words. A line with a backslash at its end continues."""
    return [shlex.split(line) for line in code.replace("\\\n", "").splitlines() if line.strip()]
