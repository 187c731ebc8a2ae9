"""``backtest``: show which records of a past period would have triggered a workflow."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track

from airflow_insightly_hooks.cli.arguments.times import time_of
from airflow_insightly_hooks.cli.arguments.workflows import workflow_of
from airflow_insightly_hooks.cli.exit_codes import ExitCode
from airflow_insightly_hooks.cli.output import (
    is_structured,
    print_line,
    print_rows,
    print_value,
    say,
)
from airflow_insightly_hooks.cli.run import UsageError
from airflow_insightly_hooks.core.criteria import Criteria
from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.detection.changes import ChangeWindow, changes_in
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.core.workflow.backtest import verdicts
from airflow_insightly_hooks.core.workflow.backtest_summary import BacktestSummary, summarize
from airflow_insightly_hooks.operators.common.field_checks import MULTI_SELECTS, custom_fields_of
from airflow_insightly_hooks.previews.record_source import insightly_hook
from airflow_insightly_hooks.workflows.workflow import Workflow

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.insightly import InsightlyHook

__all__ = ["backtest"]


def backtest(args: Namespace) -> int:
    """Print the changes that would have triggered, and how many would not have, by reason."""
    workflow = workflow_of(args.workflow)
    now = datetime.now(timezone.utc).replace(microsecond=0)
    until = time_of(args.until, "--until", now) if args.until else now
    since = time_of(args.since, "--since", now)
    if since >= until:
        raise UsageError(
            f"--since: {iso_time(since)} is not before the end of the period, {iso_time(until)}: give an "
            "earlier time, or a later --until"
        )
    window = ChangeWindow(since, until)
    hook = insightly_hook(args.conn or workflow.insightly_conn_id)
    summary = summarize(_verdicts(workflow, hook, window), args.limit)
    if is_structured(args.output):
        print_value(_shown(workflow, window, summary), args.output)
    else:
        _print(workflow, window, summary, args)
    return ExitCode.OK


def _verdicts(workflow: Workflow, hook: InsightlyHook, window: ChangeWindow) -> Iterator[Any]:
    """Yield a verdict on each change of the period, while reading from Insightly."""
    kind = RECORD_TYPES[workflow.record_type]
    multi_select = None
    if Criteria(workflow.criteria).option_fields:
        multi_select = custom_fields_of(hook.custom_fields(kind.name), MULTI_SELECTS)
    records = _tracked(hook, kind.name, window)
    # As in a preview, an inactive workflow counts as active: only the criteria decide.
    active = workflow.model_copy(update={"active": True})
    return verdicts(active, changes_in(window, kind, records), multi_select=multi_select)


def _tracked(hook: InsightlyHook, record_type: str, window: ChangeWindow) -> Iterable[dict[str, Any]]:
    """Return the records that were updated since the period began; on a terminal, show the progress."""
    records = hook.iter_records(record_type, updated_after=window.search_from)
    if not sys.stderr.isatty():
        return records
    total = hook.count_records(record_type, window.search_from)
    return track(records, f"Reading {record_type}", total, console=Console(stderr=True), transient=True)


def _shown(workflow: Workflow, window: ChangeWindow, summary: BacktestSummary) -> dict[str, Any]:
    """Return the result as a JSON value."""
    return {
        "workflow": workflow.name,
        "dag_id": workflow.dag_id,
        "record_type": workflow.record_type,
        **window.as_dict(),
        "changes": summary.changes,
        "triggers": summary.triggers,
        "first": _triggers(summary),
        "reasons": dict(summary.reasons.most_common()),
        "culprits": _culprits(summary),
    }


def _triggers(summary: BacktestSummary) -> list[dict[str, Any]]:
    return [
        {"record_id": one.record_id, "event": one.event, "changed_at": one.changed_at}
        for one in summary.first
    ]


def _culprits(summary: BacktestSummary) -> list[dict[str, Any]]:
    return [
        {"records": count, "condition": path, "field": field, "operator": operator}
        for (path, field, operator), count in summary.culprits.most_common()
    ]


def _print(workflow: Workflow, window: ChangeWindow, summary: BacktestSummary, args: Namespace) -> None:
    if summary.first:
        print_rows(_triggers(summary), args.output)
    if (more := summary.triggers - len(summary.first)) and args.limit:
        print_line(f"and {more:,} more (--limit)")
    start, end = iso_time(window.start), iso_time(window.end)
    changes = f"{counted(summary.changes, 'change')} of {workflow.record_type}"
    verb = "triggers" if summary.triggers == 1 else "trigger"
    print_line(f"{summary.triggers:,} of {changes} {verb}, from {start} to {end}")
    for reason, count in summary.reasons.most_common():
        print_line(f"  {count:,} {'does' if count == 1 else 'do'} not: {reason}")
    if args.explain and summary.culprits:
        print_line("The conditions because of which they do not (a record may have several):")
        print_rows(_culprits(summary), args.output)
    if not workflow.active:
        say("Note: the workflow is not active: its tasks send nothing until it is active")
