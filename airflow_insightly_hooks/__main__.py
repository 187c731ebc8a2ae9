"""``python -m airflow_insightly_hooks …``: the same commands as ``airflow insightly …``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from airflow.cli.cli_config import ActionCommand, CLICommand, DefaultHelpParser
from rich_argparse import RawTextRichHelpFormatter

from airflow_insightly_hooks.cli.definition import COMMANDS

__all__ = ["main"]

ENTRY = "python -m airflow_insightly_hooks"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command.

    :param arguments: the command and its arguments; ``None`` takes them from the process.
    :raises SystemExit: always, with the command's exit code.
    """
    args = parser().parse_args(arguments)
    args.func(args)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments. It is the same as Airflow's own for these commands."""
    top = DefaultHelpParser(
        prog=ENTRY,
        description="Check, preview and test Insightly workflows; search, resend and cancel what they "
        "deliver. Most commands need no Airflow database.",
        formatter_class=RawTextRichHelpFormatter,
    )
    _add_commands(top, COMMANDS)
    return top


def _add_commands(parent: argparse.ArgumentParser, commands: Sequence[CLICommand]) -> None:
    parsers = parent.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    for command in sorted(commands, key=lambda command: command.name):
        made = parsers.add_parser(
            command.name,
            help=command.help,
            description=command.description or command.help,
            epilog=command.epilog and command.epilog.replace("airflow insightly", ENTRY),
            formatter_class=RawTextRichHelpFormatter,
        )
        if isinstance(command, ActionCommand):
            for arg in command.args:
                arg.add_to_parser(made)
            made.set_defaults(func=command.func)
        else:
            _add_commands(made, tuple(command.subcommands))


if __name__ == "__main__":
    main()
