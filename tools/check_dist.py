"""Check a wheel and an sdist: ``python tools/check_dist.py WHEEL SDIST``."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "airflow_insightly_hooks"
DEMO = f"{PACKAGE}/demo"
"""Where the wheel has the folder ``dags``."""
RELATIVE_LINK = re.compile(r"\]\((?![a-z]+:)[^)]*\)")


def faults(wheel: Path, sdist: Path) -> Iterator[str]:
    """Yield a sentence for each fault."""
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True)
    files = {name for name in listed.stdout.splitlines() if not name.startswith(".ci/")}
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (archive.read(n).decode() for n in names if n.endswith(".dist-info/METADATA"))
    for name in names:
        if not name.startswith((f"{PACKAGE}/", f"{PACKAGE}-")):
            yield f"{wheel.name} holds {name}"
    needed = {name for name in files if name.startswith(f"{PACKAGE}/")}
    needed |= {f"{DEMO}/{name}" for name in files if name.startswith("dags/")}
    if missing := needed - set(names):
        yield f"{wheel.name} lacks {', '.join(sorted(missing)[:5])}"
    if links := RELATIVE_LINK.findall(metadata.partition("\n\n")[2]):
        yield f"{wheel.name}: its description has relative links: {', '.join(links)}"
    with tarfile.open(sdist) as source:
        inside = {name.partition("/")[2] for name in source.getnames()}
    if missing := files - inside:
        yield f"{sdist.name} lacks {', '.join(sorted(missing)[:5])}"
    if untracked := inside - files - {"PKG-INFO"}:
        yield f"{sdist.name} holds files that are not in the repository: {', '.join(sorted(untracked)[:5])}"


if __name__ == "__main__":
    found = list(faults(Path(sys.argv[1]), Path(sys.argv[2])))
    print("\n".join(found) or "dist: nothing is missing")
    sys.exit(bool(found))
