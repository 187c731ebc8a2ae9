"""Counts what a workflow would have done with many changes. Memory doesn't grow with their number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from airflow_insightly_hooks.core.workflow.backtest import NOT_MET, Verdict

__all__ = ["BacktestSummary", "Trigger", "summarize"]


@dataclass(frozen=True)
class Trigger:
    """A change that would have triggered. Of the record, it has only the id.

    :param changed_at: when the change happened (ISO 8601, UTC).
    """

    record_id: int
    event: str
    changed_at: str


@dataclass
class BacktestSummary:
    """How many changes would have triggered, and why the others would not.

    :param changes: how many changes there were.
    :param triggers: how many of them would have triggered.
    :param first: the first of the changes that would have triggered.
    :param reasons: for each reason why the others would not have triggered, how many changes have it.
    :param culprits: for each condition because of which records didn't meet the criteria (its path, field and
        operator), how many records there are. A record may have several such conditions.
    """

    changes: int = 0
    triggers: int = 0
    first: list[Trigger] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    culprits: Counter[tuple[str, str, str]] = field(default_factory=Counter)


def summarize(verdicts: Iterable[Verdict], limit: int) -> BacktestSummary:
    """Return a summary of what ``core.workflow.backtest.verdicts`` yields.

    :param limit: how many of the triggering changes are kept.
    """
    summary = BacktestSummary()
    for verdict in verdicts:
        change = verdict.change
        summary.changes += 1
        if verdict.triggers:
            summary.triggers += 1
            if len(summary.first) < limit:
                summary.first.append(Trigger(change["record_id"], change["event"], change["changed_at"]))
            continue
        # The reasons why records can't be delivered differ from record to record, so they are one reason
        # here.
        reason = "it can't be delivered" if "undeliverable" in change else str(verdict.reason)
        summary.reasons[reason] += 1
        if verdict.reason == NOT_MET:
            summary.culprits.update((c.path, c.field, c.operator) for c in verdict.culprits)
    return summary
