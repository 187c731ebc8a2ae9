"""The command line as a whole; ``cli/definitions`` has the single commands."""

from __future__ import annotations

from airflow.cli.cli_config import CLICommand, GroupCommand

from airflow_insightly_hooks.cli.definitions.deliveries import DELIVERY_COMMANDS
from airflow_insightly_hooks.cli.definitions.doctor import DOCTOR
from airflow_insightly_hooks.cli.definitions.pending import PENDING
from airflow_insightly_hooks.cli.definitions.workflows import WORKFLOW_COMMANDS

__all__ = ["COMMANDS", "get_cli_commands"]

COMMANDS: tuple[CLICommand, ...] = (*WORKFLOW_COMMANDS, *DELIVERY_COMMANDS, PENDING, DOCTOR)


def get_cli_commands() -> list[CLICommand]:
    """Return the commands of this package, in the form that Airflow's provider key ``cli`` expects."""
    return [
        GroupCommand(
            name="insightly",
            help="Check, preview and test Insightly workflows; search, resend and cancel what they deliver",
            subcommands=COMMANDS,
        )
    ]
