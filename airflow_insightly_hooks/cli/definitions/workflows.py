"""The commands for workflows, records and receivers, which need no Airflow database."""

from __future__ import annotations

from airflow.cli.cli_config import ARG_OUTPUT, ActionCommand, Arg, CLICommand, positive_int

from airflow_insightly_hooks.cli.definitions.shared import ARG_YES, lazy

__all__ = ["WORKFLOW_COMMANDS"]

ARG_WORKFLOW = Arg(
    ("workflow",),
    metavar="WORKFLOW",
    help="a workflow file or folder, followed by #dag_id if it holds several workflows; "
    "or a Python object: module:attribute or file.py:attribute",
)
ARG_WORKFLOWS_CONN = Arg(
    ("--conn",), metavar="CONN_ID", help="the Insightly connection (default: the workflow's)"
)
ARG_CONN = Arg(
    ("--conn",),
    metavar="CONN_ID",
    default="insightly_default",
    help="the Insightly connection (default: %(default)s)",
)
ARG_JSON = Arg(
    ("--json",),
    metavar="FILE",
    help="a JSON file with a record as Insightly's API returns it; - for standard input",
)
WORKFLOW_COMMANDS: tuple[CLICommand, ...] = (
    ActionCommand(
        name="backtest",
        help="Show which records of a past period would have triggered a workflow",
        description="Read the records of a period from Insightly, and show which would have triggered the "
        "workflow. The API has only a record's present state and its latest change. Of a record, only the id "
        "is shown.",
        func=lazy("backtest", "backtest"),
        args=(
            ARG_WORKFLOW,
            Arg(
                ("--since",),
                required=True,
                metavar="TIME",
                help="the start of the period: a time (2026-01-31, 2026-01-31T08:00:00Z), or a duration "
                "before now (30d, 12h)",
            ),
            Arg(
                ("--until",),
                metavar="TIME",
                help="the end of the period, in the same form (default: now)",
            ),
            Arg(
                ("--explain",),
                action="store_true",
                help="show for each condition how many records have failed the criteria because of it",
            ),
            Arg(
                ("--limit",),
                type=positive_int(allow_zero=True),
                default=20,
                metavar="NUMBER",
                help="how many records to list (default: %(default)s)",
            ),
            ARG_WORKFLOWS_CONN,
            ARG_OUTPUT,
        ),
        epilog="Examples:\n  airflow insightly backtest dags/workflows/opportunity_won.yaml --since 30d\n"
        "  airflow insightly backtest dags/workflows#opportunity_won --since 2026-01-01 --explain\n\n"
        "Exit codes: 0 read, 2 wrong usage, 3 Insightly can't be read.",
    ),
    ActionCommand(
        name="check",
        help="Check workflow files (YAML); for CI and pre-commit",
        description="Check workflow files (YAML) as load_workflows would load them, without a database "
        "and without a connection. Each mistake is one line: file:line: path: message.",
        func=lazy("check", "check"),
        args=(
            Arg(
                ("paths",),
                nargs="+",
                metavar="FOLDER_OR_FILE",
                help="folders of workflow files (with all folders below them), and single files",
            ),
        ),
        epilog="Examples:\n  airflow insightly check dags/workflows\n"
        "  airflow insightly check dags/workflows/opportunity_won.yaml\n\n"
        "Exit codes: 0 no mistakes, 1 mistakes, 2 wrong usage (no such file).",
    ),
    ActionCommand(
        name="fields",
        help="List the standard and custom fields of a record type",
        func=lazy("fields", "fields"),
        args=(
            Arg(("record_type",), metavar="RECORD_TYPE", help="such as Contacts, or Invoice__c"),
            Arg(
                ("--standard",),
                action="store_true",
                help="only standard fields; needs no connection",
            ),
            ARG_CONN,
            ARG_OUTPUT,
        ),
        epilog="Examples:\n  airflow insightly fields Contacts\n"
        "  airflow insightly fields Opportunities --conn insightly_test --output json\n\n"
        "Exit codes: 0 listed, 2 wrong usage (no such record type), 3 Insightly can't be read.",
    ),
    ActionCommand(
        name="preview",
        help="Show what a workflow would do with one record",
        description="Show whether a record would trigger a workflow, condition by condition, and the exact "
        "body and headers of each webhook. It shows the record's contents, and no credentials.",
        func=lazy("preview", "preview"),
        args=(
            ARG_WORKFLOW,
            Arg(("--record",), type=int, metavar="ID", help="the record with this id, read from Insightly"),
            ARG_JSON,
            Arg(
                ("--event",),
                choices=("added", "updated"),
                help="treat the record as added or as updated (default: both)",
            ),
            Arg(
                ("--now",),
                metavar="TIME",
                help="the time from which relative dates are measured: a time, now, or a duration "
                "before now (7d) (default: the time of the change)",
            ),
            Arg(
                ("--always",),
                action="store_true",
                help="show the messages (and send them, with --send) even if the record does not trigger",
            ),
            Arg(
                ("--send",),
                action="store_true",
                help="POST each message once as a test, with a new id; nothing is recorded",
            ),
            ARG_YES,
            ARG_WORKFLOWS_CONN,
            ARG_OUTPUT,
        ),
        epilog="Examples:\n  airflow insightly preview dags/workflows/opportunity_won.yaml --record 7\n"
        "  airflow insightly preview dags/workflows#opportunity_won --json record.json --always\n"
        "  airflow insightly preview my_workflows:won --record 7 --send\n\n"
        "Exit codes: 0 the record triggers (and all messages are acknowledged, with --send), 1 it does not, "
        "2 wrong usage, 3 Insightly can't be read.",
    ),
    ActionCommand(
        name="send-test",
        help="POST a test message to a receiver",
        description="POST a test message to a receiver once, and show the answer. The body is a made-up "
        "contact, and each of its texts says that it is a test. With --record or --json, it is that record.",
        func=lazy("send_test", "send_test"),
        args=(
            Arg(
                ("connection",),
                nargs="?",
                metavar="CONN_ID",
                help="the receiver: a connection of type insightly_webhook",
            ),
            Arg(("--uri",), help="the receiver's URI instead of a connection"),
            Arg(("--record",), metavar="TYPE:ID", help="send this record from Insightly: Contacts:7"),
            ARG_JSON,
            ARG_YES,
            ARG_CONN,
            ARG_OUTPUT,
        ),
        epilog="Examples:\n  airflow insightly send-test billing_webhook\n"
        "  airflow insightly send-test billing_webhook --record Contacts:7 --yes\n\n"
        "Exit codes: 0 acknowledged, 1 not acknowledged, 2 wrong usage, 3 the message could not be sent.",
    ),
)
