"""The commands of docs/how-to/remove.md are Airflow's; tests/e2e/pytest_plugin_suite removes a workflow."""

from __future__ import annotations

from collections import Counter

from tests.how_to.airflow_commands import parse, parsed_commands, quoted_commands
from tests.how_to.pages import Page

PAGE = Page("remove.md")


def test_the_commands_are_airflows() -> None:
    """Airflow knows each command's options. All three DAGs of a workflow are deleted."""
    read = list(parsed_commands(PAGE))
    assert Counter(command.subcommand for command in read if command.subcommand == "delete") == {"delete": 8}
    deleted = [command.dag_id for command in read if getattr(command, "dag_id", None)]
    assert {"new_contacts", "new_contacts__retry", "new_contacts__pending"} <= {str(dag) for dag in deleted}
    for command in quoted_commands(PAGE):
        if "…" not in command and "delete" not in command:
            parse(command)
