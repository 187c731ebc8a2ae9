"""docs/reference/command-line.md and .pre-commit-hooks.yaml match the commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_insightly_hooks.cli.definition import COMMANDS
from airflow_insightly_hooks.cli.exit_codes import ExitCode
from tests.cli.conftest import Command

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "reference" / "command-line.md").read_text("utf-8")


def actions(commands: Sequence[Any]) -> Iterator[Any]:
    for command in commands:
        yield from actions(command.subcommands) if hasattr(command, "subcommands") else [command]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_is_described(command: Any) -> None:
    """It is in the table, and has a section with an example, its own options and its exit codes."""
    assert f"| [`{command.name}`](#{command.name}) |" in PAGE
    section = re.search(rf"^## {command.name}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None
    assert f"airflow insightly {command.name}" in section[1]
    assert "Exit codes: 0 " in section[1]
    common = {"--output", "--yes"}
    for action in actions([command]):
        flags = {flag for arg in action.args for flag in arg.flags if flag.startswith("--")}
        assert {flag for flag in flags - common if f"`{flag}" not in section[1]} == set()


def test_every_exit_code_is_described() -> None:
    """The table of exit codes is whole."""
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)] == [*ExitCode]


def test_the_pre_commit_hook(command: Command) -> None:
    """Its entry is the command, to which pre-commit adds the names of files that the pattern matches."""
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))
    start = ["python", "-m", "airflow_insightly_hooks"]
    entry = shlex.split(hook["entry"])
    assert entry[:3] == start
    names = [path.relative_to(ROOT).as_posix() for path in (ROOT / "dags").rglob("*.*")]
    files = [name for name in names if re.search(hook["files"], name) and name.endswith(".yaml")]
    ran = command(*entry[3:], *(ROOT / name for name in files))
    assert (ran.code, ran.err) == (0, "10 files checked: 0 mistakes\n")
    assert hook["id"] in PAGE
