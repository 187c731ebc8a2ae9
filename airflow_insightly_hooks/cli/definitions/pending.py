"""The commands for webhooks that wait for their time."""

from __future__ import annotations

from airflow.cli.cli_config import ARG_OUTPUT, ActionCommand, Arg, GroupCommand, positive_int

from airflow_insightly_hooks.cli.definitions.shared import ARG_DAG_ID, ARG_YES, NEEDS_DATABASE, lazy

__all__ = ["PENDING"]

ARG_WEBHOOK = Arg(
    ("-w", "--webhook"), nargs="+", action="extend", metavar="NAME", help="only webhooks with these names"
)
ARG_RECORD = Arg(
    ("-r", "--record"), nargs="+", action="extend", type=int, metavar="ID", help="only for these records"
)
ARG_ALL = Arg(("--all",), action="store_true", help="all pending webhooks, if you name no others")
PENDING_CODES = (
    "Exit codes: 0 done, 1 no pending webhook matches, or you answered no, 2 wrong usage,\n"
    "3 Airflow's database can't be read."
)
PENDING_COMMANDS = (
    ActionCommand(
        name="list",
        help="List the webhooks that wait for their time",
        description="List the webhooks with a time trigger that wait for their time, the next one first; "
        f"times are UTC. {NEEDS_DATABASE}",
        func=lazy("pending", "list_pending"),
        args=(
            ARG_DAG_ID,
            ARG_WEBHOOK,
            ARG_RECORD,
            Arg(
                ("--limit",),
                type=positive_int(allow_zero=True),
                default=100,
                help="the most webhooks to list (default: %(default)s); 0 lists all",
            ),
            Arg(
                ("--offset",), type=positive_int(allow_zero=True), default=0, help="how many webhooks to skip"
            ),
            ARG_OUTPUT,
        ),
        epilog="Examples:\n  airflow insightly pending list\n"
        "  airflow insightly pending list --dag-id opportunity_won --record 123 --output json\n\n"
        "Exit codes: 0 listed, even if nothing is pending, 2 wrong usage,\n"
        "3 Airflow's database can't be read.",
    ),
    ActionCommand(
        name="cancel",
        help="Cancel pending webhooks, so that they are not sent",
        description="Cancel pending webhooks, so that they are not sent. A run of the workflow's DAG "
        f"{{dag_id}}__pending does it. A webhook that is sent before then stays sent. {NEEDS_DATABASE}",
        func=lazy("pending", "cancel_pending"),
        args=(ARG_DAG_ID, ARG_WEBHOOK, ARG_RECORD, ARG_ALL, ARG_YES, ARG_OUTPUT),
        epilog="Examples:\n  airflow insightly pending cancel --record 123\n"
        f"  airflow insightly pending cancel --dag-id opportunity_won --yes\n\n{PENDING_CODES}",
    ),
    ActionCommand(
        name="send-now",
        help="Send pending webhooks before their time",
        description="Send pending webhooks at once, as if they were due: each record is read again, recheck "
        "applies, and the message id stays the same. A run of the workflow's DAG {dag_id}__pending does it. "
        f"{NEEDS_DATABASE}",
        func=lazy("pending", "send_pending_now"),
        args=(ARG_DAG_ID, ARG_WEBHOOK, ARG_RECORD, ARG_ALL, ARG_YES, ARG_OUTPUT),
        epilog="Examples:\n  airflow insightly pending send-now --record 123 --webhook check_after_a_week\n"
        f"  airflow insightly pending send-now --all\n\n{PENDING_CODES}",
    ),
)

PENDING = GroupCommand(
    name="pending",
    help="List, cancel and send webhooks that wait for their time",
    description=f"List, cancel and send webhooks with a time trigger that wait. {NEEDS_DATABASE}",
    subcommands=PENDING_COMMANDS,
    epilog="Examples:\n  airflow insightly pending list\n"
    "  airflow insightly pending cancel --record 123\n"
    f"  airflow insightly pending send-now --dag-id opportunity_won\n\n{PENDING_CODES}",
)
