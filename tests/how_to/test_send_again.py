"""The commands of docs/how-to/send-again.md are Airflow's. tests/e2e/test_redelivery.py runs similar ones."""

from __future__ import annotations

import shlex

from tests.how_to.airflow_commands import parse, parsed_commands, quoted_commands
from tests.how_to.pages import Page

PAGE = Page("send-again.md")


def test_the_commands_are_airflows() -> None:
    """Each has the options that it uses."""
    assert len(list(parsed_commands(PAGE))) == 5
    table = [parse(command) for command in quoted_commands(PAGE) if len(shlex.split(command)) > 3]
    assert len(table) == 5


def test_a_part_of_the_tasks_id_is_named() -> None:
    """Airflow 3.3 searches the ids for this literal text, so a pattern finds no task."""
    assert "--task-regex deliver " in PAGE.text
