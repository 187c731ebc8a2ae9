"""What the command line consists of: the commands, their arguments and their help.

Airflow loads this module whenever ``airflow`` starts, so it imports nothing but what Airflow has loaded by
then. A command's function is imported when the command runs. It takes the parsed arguments and returns an
exit code of ``cli.exit_codes``; ``cli.run`` says what becomes of errors.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from importlib import import_module

from airflow.cli.cli_config import (
    ARG_OUTPUT,
    ARG_YES,
    ActionCommand,
    Arg,
    CLICommand,
    GroupCommand,
    positive_int,
)

__all__ = ["COMMANDS", "get_cli_commands"]


def _lazy(module: str, name: str) -> Callable[[Namespace], None]:
    """Return what imports a command's function and runs it; it ends by ``SystemExit``."""

    def command(args: Namespace) -> None:
        from airflow_insightly_hooks.cli.run import run

        run(getattr(import_module(f"airflow_insightly_hooks.cli.{module}"), name), args)

    command.__name__ = name
    return command


ARG_DAG_ID = Arg(("-d", "--dag-id"), nargs="+", metavar="DAG_ID", help="only of these workflows")
ARG_WEBHOOK = Arg(("-w", "--webhook"), nargs="+", metavar="NAME", help="only of these webhooks")
ARG_RECORD = Arg(("-r", "--record"), nargs="+", type=int, metavar="ID", help="only of these records")
ARG_ALL = Arg(("--all",), action="store_true", help="all that is pending, if nothing else is named")
NEEDS_DATABASE = "It needs Airflow's database, so run it where Airflow's scheduler or API server runs."
PENDING_CODES = (
    "Exit codes: 0 done, 1 nothing is pending that was named, or you answered no, 2 wrong usage,\n"
    "3 Airflow's database can't be read."
)
PENDING_COMMANDS = (
    ActionCommand(
        name="list",
        help="List the webhooks that wait for their time",
        description="List the webhooks of time triggers that wait for their time, the next one first; times "
        f"are UTC. {NEEDS_DATABASE}",
        func=_lazy("pending", "list_pending"),
        args=(
            ARG_DAG_ID,
            ARG_WEBHOOK,
            ARG_RECORD,
            Arg(("--limit",), type=positive_int(allow_zero=True), default=100, help="at most (100; 0: all)"),
            Arg(("--offset",), type=positive_int(allow_zero=True), default=0, help="how many to pass over"),
            ARG_OUTPUT,
        ),
        epilog="Examples:\n  airflow insightly pending list\n"
        "  airflow insightly pending list --dag-id opportunity_won --record 123 --output json\n\n"
        "Exit codes: 0 listed, even if nothing is pending, 2 wrong usage,\n"
        "3 Airflow's database can't be read.",
    ),
    ActionCommand(
        name="cancel",
        help="Have pending webhooks not be sent",
        description="Have pending webhooks not be sent. A run of the workflow's DAG {dag_id}__pending does "
        f"it; a webhook that is sent by then is left out. {NEEDS_DATABASE}",
        func=_lazy("pending", "cancel_pending"),
        args=(ARG_DAG_ID, ARG_WEBHOOK, ARG_RECORD, ARG_ALL, ARG_YES, ARG_OUTPUT),
        epilog="Examples:\n  airflow insightly pending cancel --record 123\n"
        f"  airflow insightly pending cancel --dag-id opportunity_won --all --yes\n\n{PENDING_CODES}",
    ),
    ActionCommand(
        name="send-now",
        help="Send pending webhooks before their time",
        description="Send pending webhooks at once, as if they were due: each record is read again, recheck "
        "holds, and the message id stays the same. A run of the workflow's DAG {dag_id}__pending does it. "
        f"{NEEDS_DATABASE}",
        func=_lazy("pending", "send_pending_now"),
        args=(ARG_DAG_ID, ARG_WEBHOOK, ARG_RECORD, ARG_ALL, ARG_YES, ARG_OUTPUT),
        epilog="Examples:\n  airflow insightly pending send-now --record 123 --webhook check_after_a_week\n"
        f"  airflow insightly pending send-now --all\n\n{PENDING_CODES}",
    ),
)

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
    GroupCommand(
        name="pending",
        help="List, cancel and send webhooks that wait for their time",
        description=f"List, cancel and send the webhooks of time triggers that wait. {NEEDS_DATABASE}",
        subcommands=PENDING_COMMANDS,
        epilog="Examples:\n  airflow insightly pending list\n"
        "  airflow insightly pending cancel --record 123\n"
        f"  airflow insightly pending send-now --dag-id opportunity_won --all\n\n{PENDING_CODES}",
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
