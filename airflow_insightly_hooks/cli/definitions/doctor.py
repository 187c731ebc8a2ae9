"""The command that checks connections, accounts, receivers and Airflow's settings."""

from __future__ import annotations

from airflow.cli.cli_config import ARG_OUTPUT, ActionCommand, Arg

from airflow_insightly_hooks.cli.definitions.shared import lazy

__all__ = ["DOCTOR"]

DOCTOR = ActionCommand(
    name="doctor",
    help="Check connections, accounts, receivers and Airflow's settings, and say what to do",
    description="Check Airflow's version, state store and components, Insightly accounts (key, pod, "
    "clock, requests left, record types), receivers (address, TLS), and whether Insightly's own webhooks "
    "start a DAG. It connects to receivers, but sends them nothing unless you give --post. Without "
    "--insightly, --receiver and --incoming, it checks all connections in the environment and the database.",
    func=lazy("doctor", "doctor"),
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
            ("--incoming",),
            nargs="+",
            action="extend",
            default=[],
            metavar="CONN",
            help="connections for Insightly's own webhooks, which start DAGs",
        ),
        Arg(
            ("--record-types",),
            nargs="+",
            action="extend",
            metavar="TYPE",
            help="record types that the key must be able to read (default: all are tried, and it is only a "
            "warning if some can't be read)",
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
)
