"""Criteria: what can be made of them, and what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.criteria.field_paths import check_field, is_custom
from airflow_insightly_hooks.core.criteria.operands import Reference
from airflow_insightly_hooks.core.criteria.parsing import Spec, parse_criteria
from airflow_insightly_hooks.core.criteria.predicates import (
    OPTION_OPERATORS,
    Incomparable,
    Predicate,
    combine,
    compile_conditions,
)
from airflow_insightly_hooks.core.records import RecordType

__all__ = [
    "ConditionOutcome",
    "Explanation",
    "check_criteria",
    "compile_criteria",
    "compile_explanation",
    "fields_of",
    "is_relative",
    "option_fields_of",
]

SOME_TIME = datetime(2000, 1, 1, tzinfo=timezone.utc)
"""What relative dates are measured from where no record is decided on."""


class ConditionOutcome(NamedTuple):
    """Whether one condition held for a record; ``path`` says where it stands in the criteria."""

    path: str
    field: str
    operator: str
    held: bool


Explanation = Callable[[Mapping[str, Any]], list[ConditionOutcome]]


def compile_criteria(
    spec: Spec,
    *,
    now: datetime | None = None,
    multi_select: Collection[str] | None = None,
    on_incomparable: Callable[[Incomparable], None] | None = None,
) -> Predicate:
    """Return a function that tells whether a record meets the criteria.

    :param spec: the criteria, as ``core.criteria`` describes them; ``None`` is met by every record.
    :param now: the aware time that relative dates are measured from; ``None`` refuses them.
    :param multi_select: the custom fields that are multi-selects, of which ``contains`` asks for a whole
        option; ``None`` where that is unknown, so that a custom field's text counts as one if it holds a ';'.
    :param on_incomparable: told of values that can't be compared, once a condition.
    :raises InvalidCriteria: if they can't be compiled; its ``path`` says where in them.
    """
    conditions, expression = parse_criteria(spec)
    predicates = compile_conditions(conditions, Reference(now), multi_select, on_incomparable)
    return combine(expression, predicates)


def check_criteria(spec: Spec, record_type: RecordType | None = None) -> None:
    """Check that criteria can be compiled, and that records of a type can meet them.

    :param record_type: ``None`` leaves out whether the fields exist and fit the operators.
    :raises InvalidCriteria: if not; its ``path`` says where in them.
    """
    conditions, _ = parse_criteria(spec)
    compile_conditions(conditions, Reference(SOME_TIME), None, None)
    if record_type is not None:
        for condition in conditions:
            check_field(record_type, condition.field, condition.operator, condition.value, condition.path)


def compile_explanation(
    spec: Spec, *, now: datetime | None = None, multi_select: Collection[str] | None = None
) -> Explanation:
    """Return what tells of a record how each condition came out, in the criteria's order, needed or not.

    The parameters are those of ``compile_criteria``. What the record holds is not in the answer.

    :raises InvalidCriteria: if the criteria can't be compiled.
    """
    conditions, _ = parse_criteria(spec)
    predicates = compile_conditions(conditions, Reference(now), multi_select, None)
    return lambda record: [
        ConditionOutcome(condition.path, condition.field, condition.operator, predicate(record))
        for condition, predicate in zip(conditions, predicates, strict=True)
    ]


def is_relative(spec: Spec) -> bool:
    """Tell whether a date in the criteria is measured from ``now``.

    :raises InvalidCriteria: if they can't be compiled.
    """
    reference = Reference(SOME_TIME)
    compile_conditions(parse_criteria(spec)[0], reference, None, None)
    return reference.used


def fields_of(spec: Spec) -> frozenset[str]:
    """Return the fields that criteria ask for, of dotted paths the first step.

    :raises InvalidCriteria: if something else stands where a condition should.
    """
    return frozenset(condition.field.split(".")[0] for condition in parse_criteria(spec)[0])


def option_fields_of(spec: Spec) -> frozenset[str]:
    """Return the custom fields for which it matters whether they are multi-selects.

    :raises InvalidCriteria: if something else stands where a condition should.
    """
    return frozenset(
        condition.field
        for condition in parse_criteria(spec)[0]
        if condition.operator in OPTION_OPERATORS and is_custom(condition.field)
    )
