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
NEEDED = (
    f"{PACKAGE}/py.typed",
    f"{PACKAGE}/workflow.schema.json",
    f"{PACKAGE}/core/record_types.json",
    f"{PACKAGE}/ui/templates/",
    f"{PACKAGE}/ui/static/",
    f"{PACKAGE}/demo/dags/new_task_webhook.py",
    f"{PACKAGE}/demo/dags/workflows/new_invoice.yaml",
)
"""Files and folders that the wheel has besides modules."""
RELATIVE_LINK = re.compile(r"\]\((?![a-z]+:)[^)]*\)")


def faults(wheel: Path, sdist: Path) -> Iterator[str]:
    """Yield a sentence for each fault."""
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (archive.read(n).decode() for n in names if n.endswith(".dist-info/METADATA"))
    for needed in NEEDED:
        if not any(name.startswith(needed) for name in names):
            yield f"{wheel.name} lacks {needed}"
    for name in names:
        if not name.startswith((f"{PACKAGE}/", f"{PACKAGE}-")):
            yield f"{wheel.name} holds {name}"
    missing = {name for name in tracked if name.startswith(f"{PACKAGE}/")} - set(names)
    if missing:
        yield f"{wheel.name} lacks {', '.join(sorted(missing))}"
    if links := RELATIVE_LINK.findall(metadata.partition("\n\n")[2]):
        yield f"{wheel.name}: its description has relative links: {', '.join(links)}"
    with tarfile.open(sdist) as source:
        inside = {name.partition("/")[2] for name in source.getnames()}
    for name in ("pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", "tools/package_metadata.py"):
        if name not in inside:
            yield f"{sdist.name} lacks {name}"
    untracked = {n for n in inside if n} - set(tracked) - {"PKG-INFO"}
    if untracked:
        yield f"{sdist.name} holds files that are not in the repository: {', '.join(sorted(untracked)[:5])}"


if __name__ == "__main__":
    found = list(faults(Path(sys.argv[1]), Path(sys.argv[2])))
    print("\n".join(found) or "dist: nothing is missing")
    sys.exit(bool(found))
