"""``doctor``: check connections, accounts, receivers and Airflow's settings."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter

from airflow_insightly_hooks.cli.exit_codes import ExitCode
from airflow_insightly_hooks.cli.output import print_rows, say
from airflow_insightly_hooks.cli.run import UsageError
from airflow_insightly_hooks.core.errors import UnknownRecordType
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.diagnosis.diagnosis import diagnose
from airflow_insightly_hooks.diagnosis.findings import PROBLEM, SKIPPED, WARNING

__all__ = ["doctor"]


def doctor(args: Namespace) -> int:
    """Print the findings; a summary goes to standard error."""
    try:
        findings = list(
            diagnose(
                args.insightly,
                args.receiver,
                args.incoming,
                record_types=args.record_types,
                posts=args.post,
            )
        )
    except UnknownRecordType as error:
        raise UsageError(f"--record-types: {error}") from None
    print_rows([finding._asdict() for finding in findings], args.output)
    counts = Counter(finding.level for finding in findings)
    say(", ".join(counted(counts[level], level) for level in (PROBLEM, WARNING)) + _skipped(counts[SKIPPED]))
    return ExitCode.FOUND if counts[PROBLEM] else ExitCode.OK


def _skipped(number: int) -> str:
    return f", {number} skipped" if number else ""
