"""Workflow criteria -> a predicate over records.

::

    criteria  := none | group | {"conditions": [condition…], "logic": "1 AND (2 OR NOT 3)"}
    group     := {"all": [criteria…]} | {"any": [criteria…]} | {"none": [criteria…]}
    condition := {"field", "operator", "value"?, "case_sensitive"?}

A field is a record's own (``TITLE``), a custom one (``Region__c``), ``TAGS`` (the tags' names), or a dotted
path into nested data (``LINKS.ROLE``). Where a path leads to several values, an operator holds if it holds
for one of them. A missing field is blank: negative operators hold for it, positive ones don't. The same goes
for values that an operator can't compare. Without a logic line, all numbered conditions must hold.

Criteria are compiled once; everything that can be wrong with them is found then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.criteria.field_paths import (
    check_field,
    custom_value,
    flat,
    is_custom,
    is_plain,
    values_of,
)
from airflow_insightly_hooks.core.criteria.logic import Expression, Operation, parse_logic
from airflow_insightly_hooks.core.criteria.operands import Operand, Reference
from airflow_insightly_hooks.core.criteria.operators import OPERATORS, Test, among_options
from airflow_insightly_hooks.core.errors import InvalidCriteria, did_you_mean
from airflow_insightly_hooks.core.records import CUSTOM_FIELDS, RecordType

__all__ = [
    "MAX_DEPTH",
    "OPERATORS",
    "ConditionOutcome",
    "Explanation",
    "Incomparable",
    "Predicate",
    "check_criteria",
    "compile_criteria",
    "compile_explanation",
    "fields_of",
    "is_relative",
    "option_fields_of",
]

MAX_DEPTH = 100
"""How deep groups may nest."""

Spec = Mapping[str, Any] | None
Predicate = Callable[[Mapping[str, Any]], bool]

GROUPS = ("all", "any", "none")
NUMBERED_KEYS = ("conditions", "logic")
CONDITION_KEYS = ("field", "operator", "value", "case_sensitive")
OPTION_OPERATORS = frozenset({"contains", "not_contains"})
"""The operators that ask for one option of a multi-select."""

NUMBERS_AND_CHECKBOXES = frozenset({int, float, bool})
SOME_TIME = datetime(2000, 1, 1, tzinfo=timezone.utc)
"""What relative dates are measured from where no record is decided on."""


class Incomparable(NamedTuple):
    """A value that a condition could not compare: ``found`` is its type, such as ``text``."""

    path: str
    field: str
    operator: str
    found: str


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

    :param spec: the criteria as above; ``None`` is met by every record.
    :param now: the aware time that relative dates are measured from; ``None`` refuses them.
    :param multi_select: the custom fields that are multi-selects, of which ``contains`` asks for a whole
        option; ``None`` where that is unknown, so that a custom field's text counts as one if it holds a ';'.
    :param on_incomparable: told of values that can't be compared, once a condition.
    :raises InvalidCriteria: if they can't be compiled; its ``path`` says where in them.
    """
    conditions, expression = _read(spec)
    predicates = _compiled(conditions, Reference(now), multi_select, on_incomparable)
    return _combined(expression, predicates)


def check_criteria(spec: Spec, record_type: RecordType | None = None) -> None:
    """Check that criteria can be compiled, and that records of a type can meet them.

    :param record_type: ``None`` leaves out whether the fields exist and fit the operators.
    :raises InvalidCriteria: if not; its ``path`` says where in them.
    """
    conditions, _ = _read(spec)
    _compiled(conditions, Reference(SOME_TIME), None, None)
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
    conditions, _ = _read(spec)
    predicates = _compiled(conditions, Reference(now), multi_select, None)
    return lambda record: [
        ConditionOutcome(condition.path, condition.field, condition.operator, predicate(record))
        for condition, predicate in zip(conditions, predicates, strict=True)
    ]


def is_relative(spec: Spec) -> bool:
    """Tell whether a date in the criteria is measured from ``now``.

    :raises InvalidCriteria: if they can't be compiled.
    """
    reference = Reference(SOME_TIME)
    _compiled(_read(spec)[0], reference, None, None)
    return reference.used


def fields_of(spec: Spec) -> frozenset[str]:
    """Return the fields that criteria ask for, of dotted paths the first step.

    :raises InvalidCriteria: if something else stands where a condition should.
    """
    return frozenset(condition.field.split(".")[0] for condition in _read(spec)[0])


def option_fields_of(spec: Spec) -> frozenset[str]:
    """Return the custom fields for which it matters whether they are multi-selects.

    :raises InvalidCriteria: if something else stands where a condition should.
    """
    return frozenset(
        condition.field
        for condition in _read(spec)[0]
        if condition.operator in OPTION_OPERATORS and is_custom(condition.field)
    )


# --- reading -----------------------------------------------------------------------------------------------


class _Condition(NamedTuple):
    """A condition with sound keys, whose value has not been looked at."""

    path: str
    field: str
    operator: str
    value: Any
    case_sensitive: bool


def _read(spec: object) -> tuple[list[_Condition], Expression]:
    """Return the conditions in their order, and how they are combined; they are numbered from 1."""
    conditions: list[_Condition] = []
    return conditions, _expression(spec, "criteria", 0, conditions)


def _expression(spec: object, path: str, depth: int, conditions: list[_Condition]) -> Expression:
    if spec is None:
        return Operation("all", ())
    if not isinstance(spec, Mapping):
        raise InvalidCriteria(path, f"a group or a condition is needed, not {type(spec).__name__}")
    if any(key in spec for key in NUMBERED_KEYS):
        return _numbered(spec, path, conditions)
    if not any(key in spec for key in GROUPS):
        conditions.append(_condition(spec, path))
        return len(conditions)
    if len(spec) != 1:
        raise InvalidCriteria(
            path, f"a group has one key, {', '.join(GROUPS)}; this has {', '.join(map(str, spec))}"
        )
    if depth == MAX_DEPTH:
        raise InvalidCriteria(path, f"groups nest deeper than {MAX_DEPTH} levels")
    ((kind, members),) = spec.items()
    read: list[Expression] = []
    for i, member in enumerate(_members(members, f"{path}.{kind}", "a group needs at least one member")):
        read.append(_expression(member, f"{path}.{kind}[{i}]", depth + 1, conditions))
    return Operation(kind, tuple(read))


def _numbered(spec: Mapping[str, Any], path: str, conditions: list[_Condition]) -> Expression:
    if any(key not in NUMBERED_KEYS for key in spec):
        raise InvalidCriteria(
            path,
            f"numbered conditions have the keys {' and '.join(NUMBERED_KEYS)}; "
            f"this has {', '.join(map(str, spec))}",
        )
    before = len(conditions)
    path_of_list = f"{path}.conditions"
    for i, member in enumerate(
        _members(spec.get("conditions"), path_of_list, "at least one condition is needed")
    ):
        if not isinstance(member, Mapping) or any(key in member for key in (*GROUPS, *NUMBERED_KEYS)):
            found = "a group" if isinstance(member, Mapping) else type(member).__name__
            raise InvalidCriteria(f"{path_of_list}[{i}]", f"a condition is needed, not {found}")
        conditions.append(_condition(member, f"{path_of_list}[{i}]"))
    if spec.get("logic") is None:
        return Operation("all", tuple(range(before + 1, len(conditions) + 1)))
    return parse_logic(spec["logic"], len(conditions) - before, path=f"{path}.logic", offset=before)


def _members(members: object, path: str, at_least_one: str) -> Sequence[Any]:
    if not isinstance(members, Sequence) or isinstance(members, str):
        raise InvalidCriteria(path, f"a list is needed, not {type(members).__name__}")
    if not members:
        raise InvalidCriteria(path, at_least_one)
    return members


def _condition(spec: Mapping[str, Any], path: str) -> _Condition:
    for key in spec:
        if key not in CONDITION_KEYS:
            guess = did_you_mean(key, CONDITION_KEYS) or f"; a group has one key: {', '.join(GROUPS)}"
            raise InvalidCriteria(f"{path}.{key}", f"not a key of a condition{guess}")
    for key in ("field", "operator"):
        if not isinstance(spec.get(key), str) or not spec[key]:
            raise InvalidCriteria(f"{path}.{key}", "a text is needed")
    name = spec["operator"]
    operator = OPERATORS.get(name)
    if operator is None:
        guess = did_you_mean(name, OPERATORS) or f"; there are {', '.join(OPERATORS)}"
        raise InvalidCriteria(f"{path}.operator", f"{name!r} is not an operator{guess}")
    if operator.takes_value and "value" not in spec:
        raise InvalidCriteria(f"{path}.value", f"{name!r} needs a value")
    if not operator.takes_value and "value" in spec:
        raise InvalidCriteria(f"{path}.value", f"{name!r} takes no value")
    case_sensitive = spec.get("case_sensitive", False)
    if not isinstance(case_sensitive, bool):
        raise InvalidCriteria(f"{path}.case_sensitive", "true or false is needed")
    return _Condition(path, spec["field"], name, spec.get("value"), case_sensitive)


# --- compiling ---------------------------------------------------------------------------------------------


def _compiled(
    conditions: list[_Condition],
    reference: Reference,
    multi_select: Collection[str] | None,
    tell: Callable[[Incomparable], None] | None,
) -> list[Predicate]:
    """Return a predicate for each condition."""
    predicates = []
    for condition in conditions:
        operator = OPERATORS[condition.operator]
        operand = Operand(condition.value, condition.case_sensitive, f"{condition.path}.value", reference)
        test = custom_test = operator.build(operand)
        if condition.operator in OPTION_OPERATORS and is_plain(condition.field):
            if multi_select is None:
                custom_test = among_options(operand, known=False)
            elif condition.field in multi_select:
                test = custom_test = among_options(operand, known=True)
        report = _reporter(condition, tell)
        if is_plain(condition.field):
            holds = _on_field(condition.field, test, custom_test, report)
        else:
            holds = _on_path(condition.field, test, report)
        predicates.append(_not(holds) if operator.negative else holds)
    return predicates


def _reporter(condition: _Condition, tell: Callable[[Incomparable], None] | None) -> Callable[[object], None]:
    """Return what is called with values that can't be compared, and tells of the first."""
    told = tell is None

    def report(value: object) -> None:
        nonlocal told
        if not told and tell is not None:
            told = True
            tell(Incomparable(condition.path, condition.field, condition.operator, _type_name(value)))

    return report


def _type_name(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "object"


def _on_field(field: str, test: Test, custom_test: Test, report: Callable[[object], None]) -> Predicate:
    """Return a predicate over a record's own field, else its custom field of that name."""

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


def _combined(expression: Expression, conditions: list[Predicate]) -> Predicate:
    """Return a predicate that combines those of the conditions; each level is one call deep."""
    if isinstance(expression, int):
        return conditions[expression - 1]
    kind = expression.kind
    combined = []
    for member in expression.members:
        combined.append(_combined(member, conditions))
    members = tuple(combined)
    # Plain loops, since all() and any() over a generator take twice the time.
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
