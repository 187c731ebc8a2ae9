"""The commands that search deliveries and send messages again."""

from __future__ import annotations

from airflow.cli.cli_config import ARG_OUTPUT, ActionCommand, Arg, CLICommand, positive_int

from airflow_insightly_hooks.cli.definitions.shared import ARG_DAG_ID, ARG_YES, NEEDS_DATABASE, lazy

__all__ = ["DELIVERY_COMMANDS"]

FILTER = (
    ARG_DAG_ID,
    Arg(("--run-id",), metavar="RUN_ID", help="only messages of this run; name its DAG with --dag-id"),
    Arg(("--task-id",), metavar="TASK_ID", help="only messages of this task; name its run with --run-id"),
    Arg(
        ("--receiver",),
        metavar="RECEIVER",
        help="only messages to this receiver: a connection's id, or a part of the receiver's URI",
    ),
    Arg(
        ("-r", "--record"),
        nargs="+",
        action="extend",
        metavar="[TYPE:]ID",
        help="only messages about these records: 7, or Contacts:7",
    ),
    Arg(
        ("--message",),
        nargs="+",
        action="extend",
        metavar="MESSAGE_ID",
        help="only the messages with these ids (webhook-id)",
    ),
    Arg(
        ("--since",),
        metavar="TIME",
        help="only messages at this time or later: a time, or a duration before now (7d, 12h)",
    ),
    Arg(("--until",), metavar="TIME", help="only messages before this time"),
)
# The states of core.delivery.stored_deliveries: a test compares them.
STATES = ("delivered", "undelivered", "failed", "gone", "in-doubt", "unsent", "left", "dry-run")

DELIVERY_COMMANDS: tuple[CLICommand, ...] = (
    ActionCommand(
        name="deliveries",
        help="Search delivered and undelivered messages",
        description="List messages with their states, the newest first; times are UTC. It does not show the "
        "contents of records. If a connection has keep_response, it shows the receiver's answer, which may "
        f"repeat a value. {NEEDS_DATABASE}",
        func=lazy("deliveries", "list_deliveries"),
        args=(
            *FILTER,
            Arg(
                ("--state",),
                choices=STATES,
                help="only messages in this state; undelivered: all but delivered, left and dry-run",
            ),
            Arg(
                ("--limit",),
                type=positive_int(allow_zero=False),
                default=50,
                help="the most messages to list (default: %(default)s)",
            ),
            Arg(
                ("--offset",),
                type=positive_int(allow_zero=True),
                default=0,
                help="how many of the newest messages to skip",
            ),
            Arg(
                ("--attempts",),
                action="store_true",
                help="show a row for each of the last three POSTs of a message",
            ),
            ARG_OUTPUT,
        ),
        epilog="Examples:\n  airflow insightly deliveries --receiver billing_webhook --since 7d\n"
        "  airflow insightly deliveries --record 123 --attempts\n"
        "  airflow insightly deliveries --state undelivered --since 12h --output json\n\n"
        "Exit codes: 0 listed, even if nothing is found, 2 wrong usage, 3 Airflow's database can't be read.",
    ),
    ActionCommand(
        name="resend",
        help="Send messages again, with the same ids",
        description="Send messages again: their deliver tasks are cleared, and send only these messages, "
        "with the same ids. Without --state, only undelivered messages are sent again. If you name messages "
        f"or records, delivered ones are sent again, too. {NEEDS_DATABASE}",
        func=lazy("deliveries", "resend_deliveries"),
        args=(
            *FILTER,
            Arg(
                ("--state",),
                choices=(*STATES, "any"),
                help="only messages in this state (default: undelivered; any with --message or --record)",
            ),
            ARG_YES,
            ARG_OUTPUT,
        ),
        epilog="Examples:\n  airflow insightly resend --receiver billing_webhook --since 12h\n"
        "  airflow insightly resend --message msg_2c26b46b68ffc68ff99b453c\n"
        "  airflow insightly resend --dag-id opportunity_won --since 2026-01-31 --state any --yes\n\n"
        "Exit codes: 0 requested, 1 no message matches, some can't be sent again, or you answered no,\n"
        "2 wrong usage, 3 Airflow's database can't be read.",
    ),
)
