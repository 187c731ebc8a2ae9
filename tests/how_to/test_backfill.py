"""The commands of docs/how-to/backfill.md are Airflow's; its DAG runs in tests/e2e/pytest_plugin_suite."""

from __future__ import annotations

import json

from tests.how_to.airflow_commands import parsed_commands
from tests.how_to.pages import Page

PAGE = Page("backfill.md")


def test_the_commands_are_airflows() -> None:
    """Airflow knows each command's options, can read its dates, and its conf is JSON."""
    read = list(parsed_commands(PAGE))
    backfills = [command for command in read if command.subcommand == "create"]
    assert len(read) - len(backfills) >= 6
    assert [command.dry_run for command in backfills] == [True, False, False]
    assert [json.loads(command.dag_run_conf or "null") for command in backfills] == [
        None,
        {"dry_run": True},
        {"dry_run": False},
    ]
    assert backfills[-1].reprocess_behavior == "completed"
