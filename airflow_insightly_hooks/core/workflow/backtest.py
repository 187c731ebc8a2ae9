"""What a workflow would have done with past changes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from airflow_insightly_hooks.core.criteria import (
    Compared,
    ConditionOutcome,
    Criteria,
    Explanation,
    GroupOutcome,
    Predicate,
)
from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.detection.changes import RecordChange, check_changes
from airflow_insightly_hooks.core.detection.storable_changes import record_of
from airflow_insightly_hooks.core.plurals import counted

if TYPE_CHECKING:
    from airflow_insightly_hooks.core.workflow.definition import WorkflowDefinition

__all__ = ["NOT_MET", "Backtest", "Verdict", "backtest", "verdicts"]

NOT_MET = "the record does not meet the criteria"
"""The reason if the criteria decide. With any other reason, the criteria are not used."""

_INDEX = re.compile(r"\[\d+\]")
_NUMBERED = re.compile(r"\.conditions\[(\d+)\]$")
"""The end of the path of a condition that a logic line can name. A logic line counts from 1."""


class Verdict(NamedTuple):
    """What a workflow would have done with a change."""

    change: RecordChange
    """The change, as a sensor returns it."""
    triggers: bool
    """Whether it would have triggered the workflow."""
    reason: str | None
    """Why it does not trigger. It holds no contents of the record."""
    conditions: tuple[ConditionOutcome, ...]
    """Each condition of the criteria, and whether it held."""
    groups: tuple[GroupOutcome, ...] = ()
    """Each group and logic line of the criteria, and whether it held: a group before its members."""
    culprits: tuple[ConditionOutcome, ...] = ()
    """The conditions because of which the record does not meet the criteria."""

    def explained(self, compared: Iterable[Compared] = ()) -> Iterator[str]:
        """Yield a line for each group and condition, in their order: ``>`` marks the culprits.

        :param compared: the values that the conditions compare. If given, the lines show them, including the
            record's values.
        """
        values = {one.path: one for one in compared}
        culprits = {culprit.path for culprit in self.culprits}
        groups = {group.path: group for group in self.groups}
        for condition in self.conditions:
            for path in _groups_of(condition.path):
                if path in groups:  # otherwise its line came before an earlier condition
                    yield f"  {path}: {_met(groups.pop(path).held)}"
            number = _NUMBERED.search(condition.path)
            named = f"{int(number[1]) + 1}: " if number else ""
            mark = "> " if condition.path in culprits else "  "
            about = f"{condition.field} {condition.operator}"
            met = _met(condition.held)
            if (one := values.get(condition.path)) is not None:
                about = f"{about} {one.value_text}".rstrip()
                met = f"{met} (it is {one.found_text})"
            yield f"{mark}{condition.path}: {named}{about}: {met}"


def _met(held: bool) -> str:
    return "met" if held else "not met"


def _groups_of(condition: str) -> Iterator[str]:
    """Yield the paths of the groups that contain a condition, and of its logic line, the outermost first."""
    for index in _INDEX.finditer(condition):
        group = condition[: index.start()]
        yield group
        if group.endswith(".conditions"):
            yield f"{group.removesuffix('.conditions')}.logic"


class Backtest(NamedTuple):
    """What a workflow would have done with changes, in their order."""

    verdicts: tuple[Verdict, ...]
    """One for each change."""

    @property
    def triggering(self) -> list[RecordChange]:
        """The changes that would have triggered."""
        return [verdict.change for verdict in self.verdicts if verdict.triggers]

    def __str__(self) -> str:
        number = len(self.triggering)
        verb = "triggers" if number == 1 else "trigger"
        lines = [f"{number:,} of {counted(len(self.verdicts), 'change')} {verb}"]
        for verdict in self.verdicts:
            change = verdict.change
            about = f"{change['record_type']} {change['record_id']} {change['event']} {change['changed_at']}"
            lines.append(f"  {about}: {'triggers' if verdict.triggers else verdict.reason}")
            if not verdict.triggers:
                lines += [f"  {line}" for line in verdict.explained()]
        return "\n".join(lines)


def backtest(
    workflow: WorkflowDefinition,
    changes: Iterable[RecordChange],
    *,
    now: datetime | None = None,
    multi_select: Iterable[str] | None = None,
    triggered: Iterable[int] = (),
) -> Backtest:
    """Return what the workflow would have done. See ``Workflow.backtest``."""
    checked = check_changes(list(changes))
    return Backtest(
        tuple(verdicts(workflow, checked, now=now, multi_select=multi_select, triggered=triggered))
    )


def verdicts(
    workflow: WorkflowDefinition,
    changes: Iterable[RecordChange],
    *,
    now: datetime | None = None,
    multi_select: Iterable[str] | None = None,
    triggered: Iterable[int] = (),
) -> Iterator[Verdict]:
    """Yield what the workflow would have done with each change. See ``Workflow.backtest``."""
    options = frozenset(multi_select) if multi_select is not None else None
    criteria = Criteria(workflow.criteria)
    relative = criteria.has_relative_dates

    @lru_cache(maxsize=64)  # with relative dates, one entry for each time
    def compiled_at(at: datetime | None) -> tuple[Predicate, Explanation]:
        return (
            criteria.compile(now=at, multi_select=options),
            criteria.compile_explanation(now=at, multi_select=options),
        )

    seen = set(triggered)
    for change in changes:
        at = now or api_time(change["changed_at"], "changed_at")
        meets, explain = compiled_at(at if relative else now)
        record = record_of(change)
        conditions = tuple(explain(record))
        reason = _reason(workflow, change, seen)
        if reason is None and not meets(record):
            reason = NOT_MET
        groups, culprits = criteria.group_outcomes(conditions), criteria.culprits(conditions)
        if reason is None:
            seen.add(change["record_id"])
        yield Verdict(change, reason is None, reason, conditions, tuple(groups), tuple(culprits))


def _reason(workflow: WorkflowDefinition, change: RecordChange, seen: set[int]) -> str | None:
    """Return why the criteria are not used for a change; ``None`` if they are."""
    if not workflow.active:
        return "the workflow is not active"
    if change["record_type"] != workflow.record_type:
        return f"it is a change of {change['record_type']}, not {workflow.record_type}"
    if "undeliverable" in change:
        return f"it can't be delivered: {change['undeliverable']}"
    if change["event"] not in workflow.events:
        return f"the record was {change['event']}, and evaluate is {workflow.evaluate!r}"
    if workflow.evaluate == "until_triggered" and change["record_id"] in seen:
        return "the record has triggered before"
    return None
