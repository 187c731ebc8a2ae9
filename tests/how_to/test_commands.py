"""The commands of the pages are commands of Airflow, with arguments that it knows."""

from __future__ import annotations

import pytest

from tests.how_to.pages import Page, commands

PAGES = [
    "dead-letters.md",
    "insightly-screens.md",
    "real-account.md",
    "receive-webhooks.md",
    "troubleshooting.md",
]


@pytest.mark.parametrize("name", PAGES)
def test_airflow_knows_the_commands(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Airflow's own parser takes each command of the page."""
    from airflow.cli.cli_parser import get_parser

    lines = [
        line
        for kind, code in Page(name).blocks
        if kind == "bash"
        for line in commands(code)
        if line[0] == "airflow"
    ]
    assert lines
    for line in lines:
        try:
            get_parser().parse_args(line[1:])
        except SystemExit:
            pytest.fail(f"{' '.join(line)}: {capsys.readouterr().err}")
