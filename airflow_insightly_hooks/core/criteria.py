"""Workflow criteria -> a predicate over records.

::

    criteria  := none | condition | {"all": [criteria…]} | {"any": [criteria…]} | {"none": [criteria…]}
    condition := {"field", "operator", "value"?, "case_sensitive"?}

A field is a record's own (``TITLE``), a custom one (``Region__c``), ``TAGS`` (the tags' names), or a dotted
path into nested data (``LINKS.ROLE``). Where a path leads to several values, an operator holds if it holds
for one of them. A missing field is blank: negative operators hold for it, positive ones don't. Criteria are
compiled once; everything that can be wrong with them is found then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.errors import InvalidCriteria, did_you_mean
from airflow_insightly_hooks.core.records import field_value

__all__ = ["OPERATORS", "compile_criteria", "fields_of"]

Predicate = Callable[[Mapping[str, Any]], bool]
Test = Callable[[Any], bool]
"""A condition's test of one value that is not blank."""

GROUPS = ("all", "any", "none")
CONDITION_KEYS = ("field", "operator", "value", "case_sensitive")
NOT_YET = frozenset({"before", "after", "on", "within_last", "within_next"})
"""Operators that compare dates, which this version refuses."""


def compile_criteria(
    spec: Mapping[str, Any] | None,
    *,
    now: datetime | None = None,  # noqa: ARG001 — see below
) -> Predicate:
    """Return a function that tells whether a record meets the criteria.

    :param spec: the criteria as above; ``None`` is met by every record.
    :param now: what relative dates are measured from; this version refuses them and does not use it.
    :raises InvalidCriteria: if they can't be compiled; its ``path`` says where in them.
    """
    return _criteria(spec, "criteria")


def fields_of(spec: Mapping[str, Any] | None) -> frozenset[str]:
    """Return the fields that criteria ask for, of dotted paths the first step."""
    if spec is None:
        return frozenset()
    for kind in GROUPS:
        if kind in spec:
            return frozenset().union(*map(fields_of, spec[kind]))
    return frozenset({spec["field"].split(".")[0]})


def _criteria(spec: object, path: str) -> Predicate:
    if spec is None:
        return lambda _record: True
    if not isinstance(spec, Mapping):
        raise InvalidCriteria(path, f"a group or a condition is needed, not {type(spec).__name__}")
    if "logic" in spec or "conditions" in spec:
        raise InvalidCriteria(path, "numbered conditions with a logic line are not supported by this version")
    if any(key in spec for key in GROUPS):
        return _group(spec, path)
    return _condition(spec, path)


def _group(spec: Mapping[str, Any], path: str) -> Predicate:
    if len(spec) != 1:
        raise InvalidCriteria(
            path, f"a group has one key, {', '.join(GROUPS)}; this has {', '.join(map(str, spec))}"
        )
    ((kind, members),) = spec.items()
    if not isinstance(members, Sequence) or isinstance(members, str):
        raise InvalidCriteria(f"{path}.{kind}", f"a list is needed, not {type(members).__name__}")
    if not members:
        raise InvalidCriteria(f"{path}.{kind}", "a group needs at least one member")
    predicates = [_criteria(member, f"{path}.{kind}[{i}]") for i, member in enumerate(members)]
    if kind == "all":
        return lambda record: all(predicate(record) for predicate in predicates)
    if kind == "any":
        return lambda record: any(predicate(record) for predicate in predicates)
    return lambda record: not any(predicate(record) for predicate in predicates)


def _condition(spec: Mapping[str, Any], path: str) -> Predicate:
    for key in spec:
        if key not in CONDITION_KEYS:
            guess = did_you_mean(key, CONDITION_KEYS) or f"; a group has one key: {', '.join(GROUPS)}"
            raise InvalidCriteria(f"{path}.{key}", f"not a key of a condition{guess}")
    for key in ("field", "operator"):
        if not isinstance(spec.get(key), str) or not spec[key]:
            raise InvalidCriteria(f"{path}.{key}", "a text is needed")
    operator = _operator(spec["operator"], f"{path}.operator")
    if operator.takes_value and "value" not in spec:
        raise InvalidCriteria(f"{path}.value", f"{spec['operator']!r} needs a value")
    if not operator.takes_value and "value" in spec:
        raise InvalidCriteria(f"{path}.value", f"{spec['operator']!r} takes no value")
    case_sensitive = spec.get("case_sensitive", False)
    if not isinstance(case_sensitive, bool):
        raise InvalidCriteria(f"{path}.case_sensitive", "true or false is needed")

    values = _values_of(spec["field"])
    test = operator.build(_Operand(spec.get("value"), case_sensitive, f"{path}.value"))
    if operator.negative:
        return lambda record: not any(map(test, values(record)))
    return lambda record: any(map(test, values(record)))


def _operator(name: str, path: str) -> Operator:
    if name in NOT_YET:
        raise InvalidCriteria(path, f"{name!r} is not supported by this version, which compares no dates")
    try:
        return OPERATORS[name]
    except KeyError:
        guess = did_you_mean(name, OPERATORS) or f"; there are {', '.join(OPERATORS)}"
        raise InvalidCriteria(path, f"{name!r} is not an operator{guess}") from None


# --- the values of a field -------------------------------------------------------------------------------


def _values_of(field: str) -> Callable[[Mapping[str, Any]], list[Any]]:
    """Return a function that gives a record's values of a field, those that aren't blank."""
    if field == "TAGS":
        field = "TAGS.TAG_NAME"
    name, *rest = field.split(".")
    if not rest:
        return lambda record: _flat([field_value(record, field)])

    def values(record: Mapping[str, Any]) -> list[Any]:
        found = _flat([field_value(record, name)])
        for step in rest:
            found = _flat([value.get(step) for value in found if isinstance(value, Mapping)])
        return found

    return values


def _flat(values: list[Any]) -> list[Any]:
    """Return the values with lists opened and blanks (null, empty text, empty list) left out."""
    flat: list[Any] = []
    for value in values:
        if isinstance(value, list):
            flat.extend(_flat(value))
        elif value is not None and value != "":
            flat.append(value)
    return flat


# --- the operators -----------------------------------------------------------------------------------------


class _Operand(NamedTuple):
    """What a condition compares with."""

    value: Any
    case_sensitive: bool
    path: str

    def fold(self, text: str) -> str:
        return text if self.case_sensitive else text.casefold()

    def text(self) -> str:
        if isinstance(self.value, bool) or not isinstance(self.value, str | int | float):
            raise InvalidCriteria(self.path, f"a text is needed, not {type(self.value).__name__}")
        return self.fold(str(self.value))

    def number(self) -> Decimal:
        number = _number(self.value)
        if number is None:
            raise InvalidCriteria(self.path, "a number is needed (dates are not compared by this version)")
        return number

    def each(self) -> list[_Operand]:
        if not isinstance(self.value, Sequence) or isinstance(self.value, str):
            raise InvalidCriteria(self.path, f"a list is needed, not {type(self.value).__name__}")
        if not self.value:
            raise InvalidCriteria(self.path, "the list is empty")
        return [self._replace(value=value, path=f"{self.path}[{i}]") for i, value in enumerate(self.value)]


def _number(value: object) -> Decimal | None:
    """Return a number, or a text that reads as one, exactly; ``None`` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _equals(operand: _Operand) -> Test:
    wanted = operand.value
    if isinstance(wanted, bool):
        return lambda value: value is wanted
    text = operand.text()
    number = _number(wanted)
    if not text:
        raise InvalidCriteria(operand.path, "an empty text equals nothing: use is_blank or is_not_blank")

    def equal(value: Any) -> bool:
        if isinstance(value, str) and isinstance(wanted, str):
            return operand.fold(value) == text
        return number is not None and _number(value) == number

    return equal


def _in(operand: _Operand) -> Test:
    tests = [_equals(each) for each in operand.each()]
    return lambda value: any(test(value) for test in tests)


def _on_text(compare: Callable[[str, str], bool]) -> Callable[[_Operand], Test]:
    def build(operand: _Operand) -> Test:
        wanted = operand.text()
        if not wanted:
            raise InvalidCriteria(operand.path, "an empty text is in every text: give one, or use is_blank")
        return lambda value: _is_text(value) and compare(operand.fold(str(value)), wanted)

    return build


def _is_text(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _matches(operand: _Operand) -> Test:
    if not isinstance(operand.value, str):
        raise InvalidCriteria(
            operand.path, f"a regular expression is needed, not {type(operand.value).__name__}"
        )
    try:
        pattern = re.compile(operand.value, 0 if operand.case_sensitive else re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidCriteria(operand.path, f"not a regular expression: {error}") from None
    return lambda value: _is_text(value) and pattern.search(str(value)) is not None


def _on_number(compare: Callable[[Decimal, Decimal], bool]) -> Callable[[_Operand], Test]:
    def build(operand: _Operand) -> Test:
        wanted = operand.number()
        return lambda value: (number := _number(value)) is not None and compare(number, wanted)

    return build


def _between(operand: _Operand) -> Test:
    bounds = [each.number() for each in operand.each()]
    if len(bounds) != 2 or bounds[0] > bounds[1]:
        raise InvalidCriteria(operand.path, "two numbers are needed, the lower one first")
    low, high = bounds
    return lambda value: (number := _number(value)) is not None and low <= number <= high


class Operator(NamedTuple):
    """How an operator tests a value; a negative one holds where the test holds for none of the values."""

    build: Callable[[_Operand], Test]
    negative: bool = False
    takes_value: bool = True


OPERATORS: Mapping[str, Operator] = {
    "equals": Operator(_equals),
    "not_equals": Operator(_equals, negative=True),
    "in": Operator(_in),
    "not_in": Operator(_in, negative=True),
    "contains": Operator(_on_text(lambda text, wanted: wanted in text)),
    "not_contains": Operator(_on_text(lambda text, wanted: wanted in text), negative=True),
    "starts_with": Operator(_on_text(str.startswith)),
    "ends_with": Operator(_on_text(str.endswith)),
    "matches": Operator(_matches),
    "is_blank": Operator(lambda _operand: lambda _value: True, negative=True, takes_value=False),
    "is_not_blank": Operator(lambda _operand: lambda _value: True, takes_value=False),
    "is_checked": Operator(lambda _operand: lambda value: value is True, takes_value=False),
    "is_not_checked": Operator(
        lambda _operand: lambda value: value is True, negative=True, takes_value=False
    ),
    "greater_than": Operator(_on_number(lambda number, wanted: number > wanted)),
    "greater_or_equal": Operator(_on_number(lambda number, wanted: number >= wanted)),
    "less_than": Operator(_on_number(lambda number, wanted: number < wanted)),
    "less_or_equal": Operator(_on_number(lambda number, wanted: number <= wanted)),
    "between": Operator(_between),
}
