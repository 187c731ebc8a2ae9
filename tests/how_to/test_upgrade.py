"""The commands of docs/how-to/upgrade.md are Airflow's."""

from __future__ import annotations

from tests.how_to.airflow_commands import commands, parsed_commands
from tests.how_to.pages import Page

PAGE = Page("upgrade.md")


def test_the_commands_are_airflows() -> None:
    """Each has the options that it uses."""
    assert len(list(parsed_commands(PAGE))) == len(commands(PAGE)) == 6
