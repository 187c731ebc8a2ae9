"""The command-line tools say in one line what is missing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def setup(python: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(ROOT / "tools" / "setup.sh")]
    return subprocess.run(
        command, env={**os.environ, "PYTHON": python}, capture_output=True, text=True, check=False
    )


def test_no_python() -> None:
    """A missing Python is named, with the way to choose another."""
    done = setup("no-such-python")
    assert done.returncode == 1
    assert done.stderr == (
        "setup: no-such-python is missing: install Python 3.10 to 3.13, or name one with 'make PYTHON=…'\n"
    )


def test_old_python(tmp_path: Path) -> None:
    """A Python that is too old is refused before anything is made."""
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.8.18" && exit\n[ -z "$2" ]\n')
    old.chmod(0o755)
    done = setup(str(old))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("setup: Python 3.10 to 3.13 is needed")
    assert "Python 3.8.18" in line


def test_no_browser(tmp_path: Path) -> None:
    """If Chromium can't be installed, a line says so, and nothing fails."""
    for name in ("sh", "dirname"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    command = ["sh", str(ROOT / "tools" / "browser.sh")]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout == (
        "browser: there is no chromium, and no apt-get to install it: the browser tests will be skipped\n"
    )


@pytest.mark.parametrize(("last", "code"), [("true", 0), ("false", 1), ("exit 7", 1)])
def test_side_by_side(tmp_path: Path, last: str, code: int) -> None:
    """Commands run at once, their output is shown in order, and a failing one fails the whole."""
    both = [f"mkfifo {tmp_path}/fifo; echo one; cat {tmp_path}/fifo", f"echo two; {last}"]
    # The first one ends only once the last one has begun.
    until_there = f"until [ -p {tmp_path}/fifo ]; do sleep 0.01; done; echo from the last >{tmp_path}/fifo"
    command = [str(ROOT / "tools" / "side_by_side.sh"), both[0], both[1], until_there]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (done.stdout, done.returncode) == ("one\nfrom the last\ntwo\n", code)


def test_side_by_side_with_a_limit(tmp_path: Path) -> None:
    """With JOBS=2, the third command begins when one of the first two has ended, and all are shown."""
    commands = [f"sleep 0.5; touch {tmp_path}/ended; echo one", "sleep 1; echo two", f"ls {tmp_path}"]
    done = subprocess.run(
        [str(ROOT / "tools" / "side_by_side.sh"), *commands],
        env={**os.environ, "JOBS": "2"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.stdout, done.returncode) == ("one\ntwo\nended\n", 0)


@pytest.mark.parametrize(
    ("ignored", "signals"),
    [
        ("", [signal.SIGINT]),
        ("", [signal.SIGTERM]),
        ("", [signal.SIGHUP]),
        ("INT", [signal.SIGINT, signal.SIGINT]),
        ("INT TERM", [signal.SIGINT, signal.SIGINT, signal.SIGINT]),
    ],
)
def test_side_by_side_is_stopped(tmp_path: Path, ignored: str, signals: list[signal.Signals]) -> None:
    """The commands end, also if the terminal is closed; a further Ctrl-C ends one that goes on."""
    pid = tmp_path / "pid"
    # A shell without job control starts what runs in the background so that it ignores Ctrl-C.
    running = subprocess.Popen(
        [
            *("env", "--default-signal=INT"),
            str(ROOT / "tools" / "side_by_side.sh"),
            f"trap '' {ignored}; echo $$ >{pid}.new; mv {pid}.new {pid}; exec sleep 60",
        ],
        start_new_session=True,
        stderr=subprocess.PIPE,
    )
    # Before it is ``sleep``, bash passes over a Ctrl-C that comes while it waits for ``mv``.
    wait_for(lambda: pid.exists() and name_of(pid.read_text().strip()) == "sleep")
    for number in signals:
        assert running.poll() is None
        running.send_signal(number)
        time.sleep(0.2)
    running.communicate(timeout=30)
    assert running.returncode == 130
    wait_for(lambda: not is_running(pid.read_text().strip()))


def test_side_by_side_without_a_temporary_folder(tmp_path: Path) -> None:
    """Nothing is run, and nothing is written elsewhere."""
    command = [str(ROOT / "tools" / "side_by_side.sh"), f"touch {tmp_path}/run"]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "none")}
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=30)
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []


def name_of(pid: str) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def is_running(pid: str) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"  # nobody may have asked yet how it has ended


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "not within the time"
        time.sleep(0.02)


def test_each_python_is_tested_in_a_clone_whose_path_has_spaces() -> None:
    """Make and the end-to-end tests put the environment's path into commands: it is relative to the clone."""
    script = (ROOT / "tools" / "test_all.sh").read_text()
    assert re.findall(r"\benv=(\S+)", script) == ['".venvs/${versions[number]}"']


def test_end_to_end_tests_are_where_they_are_run() -> None:
    """``make test-e2e`` and ``make test-scale`` run folders: no end-to-end test is outside of them."""
    command = (ROOT / "tools" / "end_to_end.sh").read_text()
    folders = [ROOT / folder for folder in re.findall(r"\$run (tests/[\w/]+)", command)]
    scale = re.findall(r"pytest -m scale (.*) --durations", (ROOT / "Makefile").read_text())[0]
    folders += [ROOT / folder for folder in scale.split()]
    marked = [
        path
        for path in ROOT.glob("tests/**/test_*.py")
        if re.search(r"^(pytestmark = .*|@)pytest\.mark\.e2e\b", path.read_text(), re.MULTILINE)
    ]
    assert len(marked) > 20
    assert [path for path in marked if not any(map(path.is_relative_to, folders))] == []


@pytest.mark.parametrize(("mark", "target"), [("slow", "test-faults"), ("scale", "test-scale")])
def test_marked_tests_are_where_they_are_run(mark: str, target: str) -> None:
    """None is outside of the folders that the mark's own target runs."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    made = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    (command,) = re.findall(rf'/pytest -m {mark} ([^"\n]*)', made.stdout)
    run = [ROOT / name for name in re.findall(r"\btests/[\w./]+", command)]
    marked = [path for path in ROOT.glob("tests/**/test_*.py") if f"pytest.mark.{mark}" in path.read_text()]
    assert marked
    assert [path for path in marked if not any(map(path.is_relative_to, run))] == []
