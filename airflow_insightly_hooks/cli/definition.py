"""What the command line consists of: the commands, their arguments and their help.

Airflow loads this module whenever ``airflow`` starts, so it imports nothing but what Airflow has loaded by
then. A command's function is imported when the command runs. It takes the parsed arguments and returns an
exit code of ``cli.exit_codes``; ``cli.run`` says what becomes of errors.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from importlib import import_module

from airflow.cli.cli_config import ARG_OUTPUT, ActionCommand, Arg, CLICommand, GroupCommand

__all__ = ["COMMANDS", "get_cli_commands"]


def _lazy(module: str, name: str) -> Callable[[Namespace], None]:
    """Return what imports a command's function and runs it; it ends by ``SystemExit``."""

    def command(args: Namespace) -> None:
        from airflow_insightly_hooks.cli.run import run

        run(getattr(import_module(f"airflow_insightly_hooks.cli.{module}"), name), args)

    command.__name__ = name
    return command


COMMANDS: tuple[CLICommand, ...] = (
    ActionCommand(
        name="check",
        help="Check workflow files (YAML); for CI and pre-commit",
        description="Check workflow files (YAML) as load_workflows would load them, without a database "
        "and without a connection. Each mistake is a line: file:line: path: message.",
        func=_lazy("check", "check"),
        args=(
            Arg(
                ("paths",),
                nargs="+",
                metavar="FOLDER_OR_FILE",
                help="folders of workflow files, those below them included, and single files",
            ),
        ),
        epilog="Examples:\n  airflow insightly check dags/workflows\n"
        "  airflow insightly check dags/workflows/opportunity_won.yaml\n\n"
        "Exit codes: 0 no mistakes, 1 mistakes, 2 wrong usage (no such file).",
    ),
    ActionCommand(
        name="doctor",
        help="Check connections, accounts, receivers and Airflow's settings, and say what to do",
        description="Check Airflow's version, state store and components, Insightly accounts (key, pod, "
        "clock, requests left, record types) and receivers (address, TLS). Receivers are connected to, and "
        "nothing is sent to them unless --post is given. Without --insightly and --receiver, all connections "
        "of environment and database are checked.",
        func=_lazy("doctor", "doctor"),
        args=(
            Arg(
                ("--insightly",),
                nargs="+",
                action="extend",
                default=[],
                metavar="CONN",
                help="connections to Insightly accounts",
            ),
            Arg(
                ("--receiver",),
                nargs="+",
                action="extend",
                default=[],
                metavar="CONN",
                help="connections to receivers of webhooks",
            ),
            Arg(
                ("--record-types",),
                nargs="+",
                action="extend",
                metavar="TYPE",
                help="record types that the key must be able to read (default: all are tried, and those "
                "that can't be read are warned of)",
            ),
            Arg(
                ("--post",),
                action="store_true",
                help="POST an empty JSON object ({}) to each receiver, to see its answer",
            ),
            ARG_OUTPUT,
        ),
        epilog="Examples:\n  airflow insightly doctor\n"
        "  airflow insightly doctor --insightly insightly_default --record-types Contacts Opportunities\n"
        "  airflow insightly doctor --receiver billing_webhook --post --output json\n\n"
        "Exit codes: 0 no problem (warnings don't count), 1 problems, 2 wrong usage.",
    ),
)


def get_cli_commands() -> list[CLICommand]:
    """Return the commands of this package, as Airflow's provider key ``cli`` asks for them."""
    return [
        GroupCommand(
            name="insightly",
            help="Check, preview and test Insightly workflows",
            subcommands=COMMANDS,
        )
    ]
