"""Exit codes of commands, and the errors that they print."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import pytest
import structlog
import yaml
from airflow.cli.cli_config import GroupCommand
from airflow.cli.cli_parser import get_parser
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_insightly_hooks.__main__ import parser
from airflow_insightly_hooks.cli.definition import COMMANDS, get_cli_commands
from airflow_insightly_hooks.cli.output import print_rows
from airflow_insightly_hooks.cli.run import UsageError, run
from airflow_insightly_hooks.core.errors import InvalidConnection

SECRET = "hunter2"


def raises(error: BaseException) -> Callable[[Namespace], int]:
    def command(args: Namespace) -> int:
        raise error

    return command


def ended_with(command: Callable[[Namespace], int]) -> Any:
    with pytest.raises(SystemExit) as ended:
        run(command, Namespace())
    return ended.value.code


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("no such file"), 2, "error: no such file\n"),
        (InvalidConnection("c", "host", "it is empty"), 3, "error: connection 'c', host: it is empty\n"),
        (
            AirflowNotFoundException("no connection"),
            3,
            "error: no connection: add it (airflow connections add), or set AIRFLOW_CONN_… for it\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_known_errors_are_one_line(
    error: BaseException, code: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A known error is one line without a traceback, and each kind has its exit code."""
    assert ended_with(raises(error)) == code
    assert capfd.readouterr() == ("", said)


def test_an_unknown_error_shows_no_values(capfd: pytest.CaptureFixture[str]) -> None:
    """An unexpected error is shown with its place and class, never with its text."""
    assert ended_with(raises(KeyError(SECRET))) == 3
    err = capfd.readouterr().err
    assert "error: KeyError at test_run.py:" in err
    assert SECRET not in err


def test_logs_go_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    """Airflow's log lines don't mix with the command's output."""

    def command(args: Namespace) -> int:
        structlog.get_logger("one that is new").warning("something odd")
        print_rows([{"a": 1}], "json")
        return 0

    capfd.readouterr()
    assert ended_with(command) == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == [{"a": 1}]
    assert "something odd" in err


def test_airflows_warning_of_the_connection_type(capfd: pytest.CaptureFixture[str]) -> None:
    """It is left out. Other log lines about connections are not."""
    from airflow.models import Connection

    def command(args: Namespace) -> int:
        connection = Connection(conn_id="c", conn_type="insightly_webhook")
        assert connection.get_uri() == "insightly-webhook://"
        connection.log.warning("something odd")
        return 0

    capfd.readouterr()
    assert ended_with(command) == 0
    err = capfd.readouterr().err
    assert "something odd" in err
    assert "RFC3986" not in err


def test_a_closed_pipe() -> None:
    """If the reader of the output goes away, the command ends as shells expect, without a traceback."""
    code = (
        "from argparse import Namespace\n"
        "from airflow_insightly_hooks.cli.output import print_rows\n"
        "from airflow_insightly_hooks.cli.run import run\n"
        "run(lambda args: print_rows([{'a': 'x' * 50}] * 10_000, 'table'), Namespace())\n"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_rows_in_each_format(capfd: pytest.CaptureFixture[str]) -> None:
    """JSON and YAML keep types. A table shows texts unchanged, whatever they look like."""
    rows = [{"name": "[red]1e5", "count": 2, "options": ["a", "b\x1b[2J"], "none": None}]
    for output, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        print_rows(rows, output)
        assert read(capfd.readouterr().out) == rows
    for output in ("table", "plain"):
        print_rows(rows, output)
        lines = capfd.readouterr().out.splitlines()
        assert lines[0].split() == (
            ["name", "|", "count", "|", "options", "|", "none"]
            if output == "table"
            else ["name", "count", "options", "none"]
        )
        (shown,) = [line for line in lines if "[red]1e5" in line]
        assert "a, b\\x1b[2J" in shown  # nothing acts on the terminal


ROW = {
    "at": "2026-11-26T08:02:00Z",
    "record": "Opportunities:40000007",
    "error": "answered 503: the service is being maintained until tomorrow, at about eight o'clock",
    "message_id": "msg_2c26b46b68ffc68ff99b453c",
    "run_id": "scheduled__2026-11-26T08:00:00+00:00",
}
ROW_WIDTH = sum(map(len, ROW.values())) + 4 * len(" | ")


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (None, 1),  # no terminal
        (ROW_WIDTH, 1),
        (ROW_WIDTH - 1, 2),
        (ROW_WIDTH - len(ROW["error"]) + 24, 5),
        (120, 1),  # no room for what must be whole: the terminal breaks the lines, but no cell
    ],
)
def test_a_table_at_a_terminals_width(
    columns: int | None, lines: int, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids and times are never cut. Sentences are folded if that makes the table fit."""
    if columns is not None:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    capfd.readouterr()
    print_rows([ROW], "table")
    printed = re.sub("\x1b\\[[0-9;]*m", "", capfd.readouterr().out)
    _, _, *shown = [line for line in printed.splitlines() if line.strip()]
    assert len(shown) == lines
    for name in ("at", "record", "message_id", "run_id"):
        assert ROW[name] in shown[0]
    cells = [line.split("|")[2].strip() for line in shown]
    assert " ".join(cells) == ROW["error"]
    assert all(len(line) <= max(columns or 0, ROW_WIDTH) for line in shown)


def test_both_entries_have_the_same_commands() -> None:
    """``airflow insightly`` and ``python -m`` parse the same arguments, and every command has examples."""
    commands = [*COMMANDS, *(c for g in COMMANDS if isinstance(g, GroupCommand) for c in g.subcommands)]
    for command in commands:
        assert "Examples:" in command.epilog
        assert "Exit codes: 0" in command.epilog
    (group,) = get_cli_commands()
    assert tuple(group.subcommands) == COMMANDS
    ours = parser().parse_args(["check", "x", "y"])
    airflows = get_parser().parse_args(["insightly", "check", "x", "y"])
    assert vars(ours) == vars(airflows)
