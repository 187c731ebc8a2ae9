"""``backtest``: which records of a past period would have triggered a workflow."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.cli.conftest import Command

WORKFLOW = """\
name: Head of something
record_type: Contacts
evaluate: created
criteria:
  all:
    - {field: TITLE, operator: starts_with, value: Head}
    - {field: FIRST_NAME, operator: equals, value: Backtest}
webhooks: [{name: w, conn_id: c}]
"""


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    (tmp_path / "w.yaml").write_text(WORKFLOW)
    return tmp_path / "w.yaml"


@pytest.fixture
def since(insightly: RunningSandbox) -> str:
    """A time after which three records that trigger, and two others, were added."""
    since = datetime.now(timezone.utc) - timedelta(seconds=1)
    for title in ("Head of sales", "Head of work", "Assistant", "Head of nothing"):
        insightly.create("Contacts", FIRST_NAME="Backtest", LAST_NAME="Secret", TITLE=title)
    insightly.create("Contacts", FIRST_NAME="Nobody", LAST_NAME="Secret", TITLE="Assistant")
    return since.isoformat(timespec="seconds")


def test_a_table(command: Command, workflow: Path, since: str) -> None:
    """Triggering records are listed by id, up to the limit. Reasons, and culprits on request, are counted."""
    ran = command("backtest", workflow, "--since", since, "--until", "2100-01-01", "--limit", 2, "--explain")
    assert ran.code == 0
    lines = [line.rstrip() for line in ran.out.splitlines() if line.strip()]
    assert lines[0].split() == ["record_id", "|", "event", "|", "changed_at"]
    assert len([line for line in lines if "| added |" in line]) == 2
    assert lines[4] == "and 1 more (--limit)"
    assert lines[5].startswith("3 of 5 changes of Contacts trigger, from ")
    assert lines[6:8] == [
        "  2 do not: the record does not meet the criteria",
        "The conditions because of which they do not (a record may have several):",
    ]
    assert [line.split() for line in lines[10:]] == [
        ["2", "|", "criteria.all[0]", "|", "TITLE", "|", "starts_with"],
        ["1", "|", "criteria.all[1]", "|", "FIRST_NAME", "|", "equals"],
    ]
    assert "Secret" not in ran.out + ran.err


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_for_programs(command: Command, workflow: Path, since: str, output: str, read: Any) -> None:
    """JSON and YAML hold all counts."""
    ran = command("backtest", workflow, "--since", since, "--until", "2100-01-01", "-o", output)
    found = read(ran.out)
    assert (ran.code, found["changes"], found["triggers"], len(found["first"])) == (0, 5, 3, 3)
    assert found["reasons"] == {"the record does not meet the criteria": 2}
    assert [one["records"] for one in found["culprits"]] == [2, 1]


def test_nothing_changed(command: Command, workflow: Path, insightly: RunningSandbox) -> None:
    """An empty period is no error."""
    ran = command("backtest", workflow, "--since", "2001-01-01", "--until", "2001-01-02")
    assert (ran.code, ran.out) == (
        0,
        "0 of 0 changes of Contacts trigger, from 2001-01-01T00:00:00Z to 2001-01-02T00:00:00Z\n",
    )


def test_progress_is_for_terminals(
    command: Command, workflow: Path, since: str, monkeypatch: pytest.MonkeyPatch, insightly: RunningSandbox
) -> None:
    """On a terminal, standard error shows the progress. Standard output stays the same."""
    arguments = ("backtest", workflow, "--since", since, "--until", "2100-01-01", "-o", "json")
    without = command(*arguments)
    assert without.err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    ran = command(*arguments)
    assert ran.out == without.out
    assert "Reading Contacts" in ran.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--since", "yesterday"], 2, "--since: a time (2026-01-31, "),
        (["--since", "999999w"], 2, "--since: a time in the years 1 to 9999 is needed"),
        (["--since", "now+999999w"], 2, "--since: a time in the years 1 to 9999 is needed"),
        (["--since", "1d", "--until", "2d"], 2, "is not before the end"),
        (["--since", "1d", "--conn", "nowhere"], 3, "The conn_id `nowhere` isn't defined"),
    ],
)
def test_wrong_input(command: Command, workflow: Path, arguments: list[str], code: int, said: str) -> None:
    """Invalid times, an empty period and a missing account are refused."""
    ran = command("backtest", workflow, *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("error: ")
    assert said in ran.err
