"""The commands of all how-to pages are commands of Airflow, with arguments that it knows."""

from __future__ import annotations

import pytest

from tests.how_to.airflow_commands import command_lines, parse
from tests.how_to.pages import HOW_TO, Page

PAGES = sorted(path.name for path in HOW_TO.glob("*.md"))


@pytest.mark.parametrize("name", PAGES)
def test_airflow_knows_the_commands(name: str) -> None:
    """Airflow's own parser takes each command of the page's shell blocks."""
    for command in command_lines(Page(name)):
        parse(command)


def test_there_are_commands() -> None:
    """All pages but one have some."""
    assert [name for name in PAGES if not command_lines(Page(name))] == ["test-dags.md"]
