"""The README and the URLs for the package's page on a package index. Hatchling runs this module.

The README's links are relative, for readers of a clone. On a package index, they lead to the repository at
the tag of the version.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PATTERN = re.compile(
    r"""
    (?P<code> ^```.*?^``` | `[^`\n]+` )
    | (?P<before>
        !?\[ (?P<label> (?: !\[[^\]]*\]\([^)]*\) | `[^`]*` | [^\]`] )* ) \]\(
        | \b(?:src|srcset|href)="
      )
      (?P<target> [^)"\s]+ )
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
"""Code, or a link's target with the text before it. A label may hold code, or an image."""
ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


class PackageMetadata(MetadataHookInterface):
    """Sets the dynamic fields of pyproject.toml, except the version."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set ``readme`` and ``urls``."""
        root = Path(self.root)
        repository, tag = self.config["repository"], f"v{metadata['version']}"
        text = absolute_links((root / "README.md").read_text(encoding="utf-8"), root, repository, tag)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        metadata["urls"] = urls(repository)


def urls(repository: str) -> dict[str, str]:
    """Return the links for the package's page."""
    return {
        "Source": repository,
        "Documentation": f"{repository}/tree/main/docs",
        "Changelog": f"{repository}/blob/main/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


def absolute_links(text: str, root: Path, repository: str, tag: str) -> str:
    """Return a README whose links and images lead to the repository at a tag.

    :param text: Markdown, which may hold HTML. Code is not changed.
    :param root: the README's folder, to tell files from folders.
    """

    def absolute(found: re.Match[str]) -> str:
        before, label, target = found["before"], found["label"], found["target"]
        if found["code"]:
            return found[0]
        if label:
            before = before.replace(label, PATTERN.sub(absolute, label), 1)
        if ABSOLUTE.match(target) or target.startswith("//"):
            return before + target
        path = "README.md" if target.startswith("#") else target.partition("#")[0].removeprefix("./")
        anchor = "".join(target.partition("#")[1:])
        is_image = before.startswith(("!", "src"))
        kind = "raw" if is_image else "tree" if (root / path).is_dir() else "blob"
        return f"{before}{repository}/{kind}/{tag}/{path}{anchor}"

    return PATTERN.sub(absolute, text)
