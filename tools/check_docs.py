"""Compare the documents with the files: modules must be listed, and the targets of links must exist.

Part of ``make check``. It prints each fault, and exits with 1 if there is one.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
REGISTRIES = re.compile(r"\b(pypi|pythonhosted|npmjs)\.(org|com)\b")


def faults() -> Iterator[str]:
    """Yield a sentence for each fault."""
    # -z: other names than ASCII ones are quoted otherwise
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [ROOT / name for name in tracked.stdout.split("\0") if (ROOT / name).is_file()]
    yield from broken_links([path for path in files if path.suffix == ".md"])
    yield from registry_addresses(files)
    yield from unlisted_modules(files)
    yield from missing_modules()


def unlisted_modules(files: list[Path]) -> Iterator[str]:
    """Yield modules that docs/architecture.md or the sandbox's page lacks, and ones that don't exist."""
    listed = listed_modules((ROOT / "docs" / "architecture.md").read_text())
    sandbox = (ROOT / "docs" / "reference" / "sandbox.md").read_text()
    package = ROOT / "airflow_insightly_hooks"
    there = set()
    for path in files:
        if (
            not path.is_relative_to(package)
            or path.suffix not in (".py", ".json")
            or path.name == "__init__.py"
        ):
            continue
        module = path.relative_to(package)
        if module.parts[0] != "sandbox":
            there.add(module.with_suffix("").as_posix() if path.suffix == ".py" else module.as_posix())
        elif f"`{module.as_posix()}`" not in sandbox:
            yield f"docs/reference/sandbox.md: its table of modules lacks {module}"
    for name in sorted(there ^ listed):
        yield f"docs/architecture.md: in its tree, {name} is {'missing' if name in there else 'not there'}"


def listed_modules(page: str) -> set[str]:
    """Return the paths that the tree of modules names, such as ``core/dates``, without ``.py``."""
    tree = re.search(r"```\n(core/.*?)```", page, re.DOTALL)
    found: set[str] = set()
    top = folder = ""
    for line in tree[1].splitlines() if tree else ():
        text = line.partition("#")[0]
        if head := re.match(r"( *)([\w.]+)/", text):
            top = top if head[1] else head[2]
            folder = f"{top}/{head[2]}" if head[1] else top
            text = text[head.end() :]
        found |= {f"{folder}/{name}".removeprefix("./") for name in text.split()}
    return found


def missing_modules() -> Iterator[str]:
    """Yield the files that docs/architecture.md names although they don't exist."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    for name in sorted(set(re.findall(r"`([\w/]+/\w+\.py)`", page))):
        if not any((folder / name).is_file() for folder in (ROOT / "airflow_insightly_hooks", ROOT)):
            yield f"docs/architecture.md: there is no {name}"


def broken_links(documents: list[Path]) -> Iterator[str]:
    """Yield the relative links whose file or heading does not exist."""
    for document in documents:
        text = FENCED.sub("", document.read_text())
        for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)", text):
            path = document.parent / target if target else document
            if not path.exists():
                yield f"{document.relative_to(ROOT)}: the link to {target} leads to no file"
            elif anchor and path.suffix == ".md" and anchor not in anchors(path.read_text()):
                yield f"{document.relative_to(ROOT)}: the link to {target}#{anchor} leads to no heading"


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, by GitHub's rules."""
    counts: Counter[str] = Counter()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", FENCED.sub("", text), re.MULTILINE):
        shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        counts[anchor] += 1
    return {f"{anchor}-{n}" if n else anchor for anchor, count in counts.items() for n in range(count)}


def registry_addresses(files: list[Path]) -> Iterator[str]:
    """Yield the files that name a package registry. Only the user's own settings must name one."""
    for path in files:
        if path.is_file() and path != Path(__file__) and REGISTRIES.search(path.read_text(errors="replace")):
            yield f"{path.relative_to(ROOT)}: it names a package registry"


def main() -> int:
    """Print the faults, and return the exit code."""
    found = list(faults())
    for fault in found:
        print(fault)
    print(f"docs: {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
