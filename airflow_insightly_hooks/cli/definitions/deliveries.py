"""The commands about what was delivered, and what is sent again."""

from __future__ import annotations

from airflow.cli.cli_config import ARG_OUTPUT, ActionCommand, Arg, CLICommand, positive_int

from airflow_insightly_hooks.cli.definitions.shared import ARG_DAG_ID, ARG_YES, NEEDS_DATABASE, lazy

__all__ = ["DELIVERY_COMMANDS"]

FILTER = (
    ARG_DAG_ID,
    Arg(("--run-id",), metavar="RUN_ID", help="only of this run; name its DAG with --dag-id"),
    Arg(("--task-id",), metavar="TASK_ID", help="only of this task of the run"),
    Arg(
        ("--receiver",),
        metavar="RECEIVER",
        help="only to this receiver: a connection's id, or a part of the receiver's URI",
    ),
    Arg(
        ("-r", "--record"),
        nargs="+",
        action="extend",
        metavar="[TYPE:]ID",
        help="only about these records: 7, or Contacts:7",
    ),
    Arg(
        ("--message",),
        nargs="+",
        action="extend",
        metavar="MESSAGE_ID",
        help="only these messages (webhook-id)",
    ),
    Arg(
        ("--since",),
        metavar="TIME",
        help="only from then on: a time, or a duration before now (7d, 12h); default: all",
    ),
    Arg(("--until",), metavar="TIME", help="only before then"),
)
# Those of core.delivery.stored_deliveries: a test compares them.
STATES = ("delivered", "undelivered", "failed", "gone", "in-doubt", "unsent", "left", "dry-run")

DELIVERY_COMMANDS: tuple[CLICommand, ...] = (
    ActionCommand(
        name="deliveries",
        help="Search what was delivered, and what was not",
        description="List messages and what became of them, the newest first; times are UTC. "
        "It shows no record's contents, but for a receiver's answer that its connection keeps "
        f"(keep_response). {NEEDS_DATABASE}",
        func=lazy("deliveries", "list_deliveries"),
        args=(
            *FILTER,
            Arg(
                ("--state",),
                choices=STATES,
                help="only in this state; undelivered: all but delivered, left and dry-run",
            ),
            Arg(("--limit",), type=positive_int(allow_zero=False), default=50, help="at most (50)"),
            Arg(("--offset",), type=positive_int(allow_zero=True), default=0, help="how many to pass over"),
            Arg(("--attempts",), action="store_true", help="a row for each of the last three POSTs"),
            ARG_OUTPUT,
        ),
        epilog="Examples:\n  airflow insightly deliveries --receiver billing_webhook --since 7d\n"
        "  airflow insightly deliveries --record 123 --attempts\n"
        "  airflow insightly deliveries --state undelivered --since 12h --output json\n\n"
        "Exit codes: 0 listed, even if nothing is found, 2 wrong usage, 3 Airflow's database can't be read.",
    ),
    ActionCommand(
        name="resend",
        help="Send messages again, under the same ids",
        description="Send messages again: their deliver tasks are cleared, and send these alone, under the "
        "same ids. Without --state, only undelivered messages are sent again. If you name messages or a "
        f"record, delivered ones are sent again, too. {NEEDS_DATABASE}",
        func=lazy("deliveries", "resend_deliveries"),
        args=(
            *FILTER,
            Arg(
                ("--state",),
                choices=(*STATES, "any"),
                help="only in this state (default: undelivered; any with --message or --record)",
            ),
            ARG_YES,
            ARG_OUTPUT,
        ),
        epilog="Examples:\n  airflow insightly resend --receiver billing_webhook --since 12h\n"
        "  airflow insightly resend --message msg_2c26b46b68ffc68ff99b453c\n"
        "  airflow insightly resend --dag-id opportunity_won --since 2026-01-31 --state any --yes\n\n"
        "Exit codes: 0 asked for, 1 nothing matches, some can't be sent again, or you answered no,\n"
        "2 wrong usage, 3 Airflow's database can't be read.",
    ),
)
