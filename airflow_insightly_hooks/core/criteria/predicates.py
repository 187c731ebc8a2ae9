"""Compiles parsed conditions to predicates over records, and combines these into one predicate."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.criteria.field_paths import custom_value, flat, is_plain, is_tags, values_of
from airflow_insightly_hooks.core.criteria.logic import Expression
from airflow_insightly_hooks.core.criteria.operands import Operand, Reference
from airflow_insightly_hooks.core.criteria.operators import OPERATORS, Test, among_options, whole_option
from airflow_insightly_hooks.core.criteria.parsing import Condition
from airflow_insightly_hooks.core.records import CUSTOM_FIELDS

__all__ = ["OPTION_OPERATORS", "Incomparable", "Predicate", "combine", "compile_conditions"]

Predicate = Callable[[Mapping[str, Any]], bool]

OPTION_OPERATORS = frozenset({"contains", "not_contains"})
"""The operators that look for one option of a multi-select, or for one tag."""

NUMBERS_AND_CHECKBOXES = frozenset({int, float, bool})


class Incomparable(NamedTuple):
    """A value that a condition could not compare: ``found`` is its type, such as ``text``."""

    path: str
    field: str
    operator: str
    found: str


def compile_conditions(
    conditions: list[Condition],
    reference: Reference,
    multi_select: Collection[str] | None,
    on_incomparable: Callable[[Incomparable], None] | None,
) -> list[Predicate]:
    """Return a predicate for each condition."""
    predicates = []
    for condition in conditions:
        operator = OPERATORS[condition.operator]
        operand = Operand(condition.value, condition.case_sensitive, f"{condition.path}.value", reference)
        test = custom_test = operator.build(operand)
        if condition.operator in OPTION_OPERATORS:
            if is_tags(condition.field):
                test = whole_option(operand)
            elif not is_plain(condition.field):
                pass
            elif multi_select is None:
                custom_test = among_options(operand, known=False)
            elif condition.field in multi_select:
                test = custom_test = among_options(operand, known=True)
        report = _reporter(condition, on_incomparable)
        if is_plain(condition.field):
            holds = _on_field(condition.field, test, custom_test, report)
        else:
            holds = _on_path(condition.field, test, report)
        predicates.append(_not(holds) if operator.negative else holds)
    return predicates


def _reporter(
    condition: Condition, on_incomparable: Callable[[Incomparable], None] | None
) -> Callable[[object], None]:
    """Return a function that is called with values that can't be compared, and reports the first one."""
    is_reported = on_incomparable is None

    def report(value: object) -> None:
        nonlocal is_reported
        if not is_reported and on_incomparable is not None:
            is_reported = True
            on_incomparable(
                Incomparable(condition.path, condition.field, condition.operator, _type_name(value))
            )

    return report


def _type_name(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "object"


def _on_field(field: str, test: Test, custom_test: Test, report: Callable[[object], None]) -> Predicate:
    """Return a predicate over a record's own field, or else over its custom field of that name."""

    def holds(record: Mapping[str, Any]) -> bool:
        value = record.get(field)
        compare = test
        if value is None:
            value = custom_value(record.get(CUSTOM_FIELDS), field)
            if value is None:
                return False
            compare = custom_test
        kind = type(value)
        if kind is str:
            if not value:
                return False
        elif kind not in NUMBERS_AND_CHECKBOXES:
            return _any(flat(value), compare, report)
        held = compare(value)
        if held is None:
            report(value)
            return False
        return held

    return holds


def _on_path(field: str, test: Test, report: Callable[[object], None]) -> Predicate:
    values = values_of(field)
    return lambda record: _any(values(record), test, report)


def _any(values: list[Any], test: Test, report: Callable[[object], None]) -> bool:
    for value in values:
        held = test(value)
        if held:
            return True
        if held is None:
            report(value)
    return False


def _not(predicate: Predicate) -> Predicate:
    return lambda record: not predicate(record)


def combine(expression: Expression, conditions: list[Predicate]) -> Predicate:
    """Return a predicate that combines the conditions' predicates; each level is one call deep."""
    if isinstance(expression, int):
        return conditions[expression - 1]
    kind = expression.kind
    combined = []
    for member in expression.members:
        combined.append(combine(member, conditions))
    members = tuple(combined)
    # Plain loops, because all() and any() over a generator take twice the time.
    if kind == "all":

        def every(record: Mapping[str, Any]) -> bool:
            for member in members:  # noqa: SIM110 — half the time
                if not member(record):
                    return False
            return True

        return every

    def some(record: Mapping[str, Any]) -> bool:
        for member in members:  # noqa: SIM110 — half the time
            if member(record):
                return True
        return False

    def no(record: Mapping[str, Any]) -> bool:
        for member in members:  # noqa: SIM110 — half the time
            if member(record):
                return False
        return True

    return some if kind == "any" else no
