"""docs/how-to/insightly-screens.md: its workflow does what Insightly's process does, body included."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from airflow_insightly_hooks import Workflow, load_workflow
from airflow_insightly_hooks.hooks.insightly import InsightlyHook
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.cli.conftest import Command, command  # noqa: F401 — a fixture
from tests.conftest import Connect
from tests.how_to.pages import Page, commands

PAGE = Page("insightly-screens.md")
VECTORS = Path(__file__).parent.parent / "vectors"
HELP_PAGE_BODY = (VECTORS / "help_page_task_body.json").read_text("utf-8")
HELP_PAGE_RECORD = json.loads((VECTORS / "help_page_task_record.json").read_text("utf-8"))
TASK_ID = 99922875
"""The help page's task, which the sandbox has."""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's workflow file, in the folder that the page's commands name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    path = tmp_path / "workflows" / "new_lead_task.yaml"
    path.parent.mkdir()
    path.write_text(PAGE.block("yaml", "name: New lead task"), "utf-8")
    return path


def without_white_space(text: str) -> str:
    """Return JSON without the white space outside of its texts."""
    return "".join(
        part if part.startswith('"') else re.sub(r"\s", "", part)
        for part in re.split(r'("(?:[^"\\]|\\.)*")', text)
    )


def in_whole_seconds(body: str) -> str:
    return body.replace("1489116850787", "1489116850000")


def test_no_block_is_without_a_test() -> None:
    """The tests below execute every block of the page."""
    assert PAGE.kinds() == ["bash", "bash", "yaml", "python", "bash", "", "bash", "json", "bash"]


def test_the_page_shows_insightlys_body() -> None:
    """The JSON of the page is the body of Insightly's help page."""
    assert without_white_space(PAGE.block("json", "entity")) == without_white_space(HELP_PAGE_BODY)


def test_the_workflow_sends_insightlys_body(file: Path) -> None:
    """For the help page's task, both webhooks send the page's body, byte for byte except for white space."""
    (change,) = load_workflow(file).preview(HELP_PAGE_RECORD, event="added").changes
    assert change.verdict.triggers
    bodies = {message.payload["body"] for message in change.messages}
    assert bodies == {without_white_space(PAGE.block("json", "entity"))}


def test_a_record_of_the_api(file: Path, insightly: RunningSandbox) -> None:
    """The API gives the task's times in whole seconds. The second webhook waits until 13 March."""
    record = InsightlyHook().get_record("Tasks", TASK_ID)
    (change,) = load_workflow(file).preview(record, event="added").changes
    at_once, later = change.messages
    assert at_once.payload["body"] == in_whole_seconds(without_white_space(HELP_PAGE_BODY))
    assert at_once.due is None
    assert later.due is not None
    assert later.due.isoformat() == "2017-03-13T08:00:00+00:00"


@pytest.mark.parametrize(
    ("changed", "triggers"),
    [
        ({}, True),
        ({"PRIORITY": 1}, False),
        ({"PRIORITY": 1, "COMPLETED": True}, True),
        ({"TITLE": "Old Lead Task"}, False),
    ],
)
def test_the_criteria(file: Path, changed: dict[str, object], triggers: bool) -> None:
    """``1 AND (2 OR 3)``, as the page writes it."""
    (change,) = load_workflow(file).preview({**HELP_PAGE_RECORD, **changed}, event="added").changes
    assert change.verdict.triggers is triggers


def test_the_ways_of_evaluating() -> None:
    """The page names all three values of ``evaluate``."""
    (keys,) = re.findall(r"\*\*when created\*\*.*?\n\n", PAGE.text, re.DOTALL)
    named = re.findall(r"`evaluate: (\w+)`", keys)
    webhooks = [{"name": "Billing", "conn_id": "billing_webhook"}]
    for evaluate in named:
        Workflow(name="Tasks", record_type="Tasks", evaluate=evaluate, webhooks=webhooks)
    assert sorted(named) == ["created", "created_and_edited", "until_triggered"]


def test_its_commands(
    file: Path,
    insightly: RunningSandbox,
    connect: Connect,
    command: Command,  # noqa: F811 — the fixture
) -> None:
    """``check`` prints the page's line, and ``preview`` prints the body. ``fields`` and ``backtest`` work."""
    connect("billing_webhook", host=insightly.bin_url("billing"))
    ran = {}
    for words in ("fields", "check", "preview", "backtest"):
        (line,) = commands(PAGE.block("bash", f"insightly {words} "))
        ran[words] = command(*line[2:])
        assert ran[words].code == 0, ran[words].err
    assert PAGE.block("", "file checked") in ran["check"].out + ran["check"].err
    assert in_whole_seconds(without_white_space(HELP_PAGE_BODY)) in ran["preview"].out
    assert "TITLE" in ran["fields"].out
    assert "changes of Tasks trigger" in ran["backtest"].out
