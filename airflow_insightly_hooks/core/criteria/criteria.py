"""The class ``Criteria``, which parses criteria once and compiles them to a predicate or an explanation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timezone
from functools import cached_property
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.criteria.explanation import (
    Compared,
    GroupOutcome,
    culprits_of,
    group_outcomes,
)
from airflow_insightly_hooks.core.criteria.field_paths import (
    check_field,
    custom_value,
    is_custom,
    is_plain,
    values_of,
)
from airflow_insightly_hooks.core.criteria.operands import Reference
from airflow_insightly_hooks.core.criteria.parsing import Spec, parse_criteria
from airflow_insightly_hooks.core.criteria.predicates import (
    OPTION_OPERATORS,
    Incomparable,
    Predicate,
    combine,
    compile_conditions,
)
from airflow_insightly_hooks.core.errors import InvalidCriteria
from airflow_insightly_hooks.core.records import CUSTOM_FIELDS, RecordType

__all__ = [
    "ConditionOutcome",
    "Criteria",
    "Explanation",
    "check_criteria",
    "compile_criteria",
    "compile_explanation",
]

SOME_TIME = datetime(2000, 1, 1, tzinfo=timezone.utc)
"""The time from which relative dates are measured when criteria are only checked."""


class ConditionOutcome(NamedTuple):
    """Whether one condition held for a record; ``path`` is its place in the criteria."""

    path: str
    """Such as ``criteria.all[0]``."""
    field: str
    """The field's name, or a dotted path."""
    operator: str
    """The operator's name."""
    held: bool
    """Whether the condition held."""


Explanation = Callable[[Mapping[str, Any]], list[ConditionOutcome]]


class Criteria:
    """A workflow's criteria, parsed.

    Create one object wherever criteria are used: each object parses the criteria once.

    :param spec: the criteria, as ``core.criteria`` describes them; ``None`` is met by every record.
    :raises InvalidCriteria: if a condition or a group has the wrong form; ``path`` is its place in the
        criteria. The values of conditions are checked later, when the criteria are compiled.
    """

    def __init__(self, spec: Spec) -> None:
        self._conditions, self._expression = parse_criteria(spec)

    @property
    def fields(self) -> frozenset[str]:
        """The fields that the criteria use; of dotted paths, the first step."""
        return frozenset(condition.field.split(".")[0] for condition in self._conditions)

    @property
    def option_fields(self) -> frozenset[str]:
        """The custom fields for which it matters whether they are multi-selects."""
        return frozenset(
            condition.field
            for condition in self._conditions
            if condition.operator in OPTION_OPERATORS and is_custom(condition.field)
        )

    @cached_property
    def has_relative_dates(self) -> bool:
        """Whether a date in the criteria is measured from ``now``.

        :raises InvalidCriteria: if the criteria can't be compiled.
        """
        reference = Reference(SOME_TIME)
        compile_conditions(self._conditions, reference, None, None)
        return reference.used

    def check(self, record_type: RecordType | None = None) -> None:
        """Check that the criteria can be compiled, and that records of a type can meet them.

        :param record_type: the records' type; ``None`` doesn't check whether the fields exist and fit the
            operators.
        :raises InvalidCriteria: if there is a mistake. It holds the mistakes of all conditions.
        """
        mistakes = []
        for condition in self._conditions:
            try:
                compile_conditions([condition], Reference(SOME_TIME), None, None)
                if record_type is not None:
                    check_field(
                        record_type, condition.field, condition.operator, condition.value, condition.path
                    )
            except InvalidCriteria as error:
                mistakes.append(error)
        if mistakes:
            raise InvalidCriteria.of(mistakes)

    def compile(
        self,
        *,
        now: datetime | None = None,
        multi_select: Collection[str] | None = None,
        on_incomparable: Callable[[Incomparable], None] | None = None,
    ) -> Predicate:
        """Return a function that returns whether a record meets the criteria.

        :param now: the aware time from which relative dates are measured; with ``None``, they are refused.
        :param multi_select: the custom fields that are multi-selects: in these, ``contains`` looks for a
            whole option. ``None``: it is not known. Then a custom field's text counts as a multi-select if it
            holds a ';'.
        :param on_incomparable: called with a value that can't be compared, once for each condition.
        :raises InvalidCriteria: if the criteria can't be compiled; ``path`` is the place of the mistake.
        :raises ValueError: if ``now`` has no time zone.
        """
        predicates = compile_conditions(self._conditions, Reference(now), multi_select, on_incomparable)
        return combine(self._expression, predicates)

    def compile_explanation(
        self, *, now: datetime | None = None, multi_select: Collection[str] | None = None
    ) -> Explanation:
        """Return a function that returns the result of each condition for a record, in the criteria's order.

        It evaluates all conditions, also those that can't change the result. The parameters are those of
        ``compile``. The results hold nothing of the record's contents.

        :raises InvalidCriteria: if the criteria can't be compiled.
        :raises ValueError: if ``now`` has no time zone.
        """
        predicates = compile_conditions(self._conditions, Reference(now), multi_select, None)
        return lambda record: [
            ConditionOutcome(condition.path, condition.field, condition.operator, predicate(record))
            for condition, predicate in zip(self._conditions, predicates, strict=True)
        ]

    def compared(self, record: Mapping[str, Any]) -> list[Compared]:
        """Return the two values that each condition compares, in the criteria's order."""
        return [
            Compared(condition.path, condition.value, _found(record, condition.field))
            for condition in self._conditions
        ]

    def group_outcomes(self, conditions: Sequence[ConditionOutcome]) -> list[GroupOutcome]:
        """Return the result of each group and logic line: a group before its members.

        :param conditions: what an explanation returned for a record.
        """
        return group_outcomes(self._expression, [condition.held for condition in conditions])

    def culprits(self, conditions: Sequence[ConditionOutcome]) -> list[ConditionOutcome]:
        """Return the conditions because of which a record does not meet the criteria.

        The list is empty if the record meets them. A condition in a ``none`` group or after a ``NOT`` is in
        the list if it held.

        :param conditions: what an explanation returned for the record.
        """
        numbers = culprits_of(self._expression, [condition.held for condition in conditions])
        return [condition for number, condition in enumerate(conditions, 1) if number in numbers]


def _found(record: Mapping[str, Any], field: str) -> Any:
    if not is_plain(field):
        return values_of(field)(record)
    value = record.get(field)
    return custom_value(record.get(CUSTOM_FIELDS), field) if value is None else value


def compile_criteria(
    spec: Spec,
    *,
    now: datetime | None = None,
    multi_select: Collection[str] | None = None,
    on_incomparable: Callable[[Incomparable], None] | None = None,
) -> Predicate:
    """Return a function that returns whether a record meets the criteria.

    :param spec: the criteria; as for ``Criteria``.
    :param now: the aware time that relative dates are measured from; ``None`` refuses them.
    :param multi_select: the custom fields that are multi-selects; as for ``Criteria.compile``.
    :param on_incomparable: is called with values that can't be compared, once a condition.
    :raises InvalidCriteria: if the criteria can't be compiled.
    """
    return Criteria(spec).compile(now=now, multi_select=multi_select, on_incomparable=on_incomparable)


def check_criteria(spec: Spec, record_type: RecordType | None = None) -> None:
    """Check that criteria can be compiled, and that records of a type can meet them.

    :param spec: the criteria; as for ``Criteria``.
    :param record_type: the records' type; ``None`` doesn't check whether the fields exist and fit the
        operators.
    :raises InvalidCriteria: if there is a mistake. It holds the mistakes of all conditions. Fields and values
        are checked once the form of every condition is right.
    """
    Criteria(spec).check(record_type)


def compile_explanation(
    spec: Spec, *, now: datetime | None = None, multi_select: Collection[str] | None = None
) -> Explanation:
    """Return a function that returns the result of each condition for a record, in the criteria's order.

    :param spec: the criteria; as for ``Criteria``.
    :param now: the aware time that relative dates are measured from; ``None`` refuses them.
    :param multi_select: the custom fields that are multi-selects; as for ``Criteria.compile``.
    :raises InvalidCriteria: if the criteria can't be compiled.
    """
    return Criteria(spec).compile_explanation(now=now, multi_select=multi_select)
