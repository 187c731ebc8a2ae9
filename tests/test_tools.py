"""The command-line tools say in one line what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def setup(python: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(ROOT / "tools" / "setup.sh")]
    return subprocess.run(
        command, env={**os.environ, "PYTHON": python}, capture_output=True, text=True, check=False
    )


def test_no_python() -> None:
    """A Python that isn't there is named, with how to name another."""
    done = setup("no-such-python")
    assert done.returncode == 1
    assert done.stderr == (
        "setup: no-such-python is missing: install Python 3.10 or later, or name one with 'make PYTHON=…'\n"
    )


def test_old_python(tmp_path: Path) -> None:
    """A Python that is too old is refused before anything is made."""
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.8.18" && exit\n[ -z "$2" ]\n')
    old.chmod(0o755)
    done = setup(str(old))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("setup: Python 3.10 or later is needed")
    assert "Python 3.8.18" in line


def test_no_browser(tmp_path: Path) -> None:
    """Where Chromium can't be installed, that is said in a line, and nothing fails."""
    for name in ("sh", "dirname"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    command = ["sh", str(ROOT / "tools" / "browser.sh")]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout == (
        "browser: there is no chromium, and no apt-get to install it with: "
        "the browser tests will be skipped\n"
    )
