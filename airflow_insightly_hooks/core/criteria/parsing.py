"""Parses criteria into their conditions and the expression that combines these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.criteria.logic import Expression, Operation, parse_logic
from airflow_insightly_hooks.core.criteria.operators import OPERATORS
from airflow_insightly_hooks.core.errors import InvalidCriteria
from airflow_insightly_hooks.core.suggestions import did_you_mean

__all__ = ["MAX_DEPTH", "Condition", "Spec", "parse_criteria"]

MAX_DEPTH = 100
"""How deep groups may nest."""
MAX_MEMBERS = 10_000
"""How many conditions and groups there may be. A few lists that contain each other can make billions."""

Spec = Mapping[str, Any] | None
"""Criteria before they are parsed."""

GROUPS = ("all", "any", "none")
NUMBERED_KEYS = ("conditions", "logic")
CONDITION_KEYS = ("field", "operator", "value", "case_sensitive")


class Condition(NamedTuple):
    """A condition whose keys are valid, and whose value has not been checked yet."""

    path: str
    field: str
    operator: str
    value: Any
    case_sensitive: bool


def parse_criteria(spec: object) -> tuple[list[Condition], Expression]:
    """Return the conditions in their order, numbered from 1, and the expression that combines them.

    :raises InvalidCriteria: if a condition or a group has the wrong form. It holds the mistakes of all
        conditions, up to the first mistake of a group.
    """
    reader = _Reader()
    expression: Expression = 0
    try:
        expression = reader.expression(spec, "criteria", 0)
    except InvalidCriteria as error:
        reader.mistakes.append(error)
    if reader.mistakes:
        raise InvalidCriteria.of(reader.mistakes)
    return reader.conditions, expression


class _Reader:
    """Reads criteria from top to bottom."""

    def __init__(self) -> None:
        self.conditions: list[Condition] = []
        self.mistakes: list[InvalidCriteria] = []
        self._members = 0

    def expression(self, spec: object, path: str, depth: int) -> Expression:
        self._count(1, path)
        if spec is None:
            return Operation("all", ())
        if not isinstance(spec, Mapping):
            raise InvalidCriteria(path, f"a group or a condition is needed, not {type(spec).__name__}")
        if any(key in spec for key in NUMBERED_KEYS):
            return self._numbered(spec, path)
        if not any(key in spec for key in GROUPS):
            self._add_condition(spec, path)
            return len(self.conditions)
        if len(spec) != 1:
            raise InvalidCriteria(
                path,
                f"a group has one key, which is one of {', '.join(GROUPS)}; this group has "
                f"{', '.join(map(str, spec))}",
            )
        if depth == MAX_DEPTH:
            raise InvalidCriteria(path, f"groups nest deeper than {MAX_DEPTH} levels")
        ((kind, members),) = spec.items()
        path = f"{path}.{kind}"
        read: list[Expression] = []
        for i, member in enumerate(_members(members, path, "a group needs at least one member")):
            read.append(self.expression(member, f"{path}[{i}]", depth + 1))
        return Operation(kind, tuple(read), path)

    def _numbered(self, spec: Mapping[str, Any], path: str) -> Expression:
        if any(key not in NUMBERED_KEYS for key in spec):
            raise InvalidCriteria(
                path,
                f"numbered conditions have the keys {' and '.join(NUMBERED_KEYS)}; "
                f"here there are {', '.join(map(str, spec))}",
            )
        before = len(self.conditions)
        path_of_list = f"{path}.conditions"
        members = _members(spec.get("conditions"), path_of_list, "at least one condition is needed")
        self._count(len(members), path_of_list)
        for i, member in enumerate(members):
            if not isinstance(member, Mapping) or any(key in member for key in (*GROUPS, *NUMBERED_KEYS)):
                found = "a group" if isinstance(member, Mapping) else type(member).__name__
                raise InvalidCriteria(f"{path_of_list}[{i}]", f"a condition is needed, not {found}")
            self._add_condition(member, f"{path_of_list}[{i}]")
        if spec.get("logic") is None:
            return Operation("all", tuple(range(before + 1, len(self.conditions) + 1)), path_of_list)
        path_of_line = f"{path}.logic"
        line = parse_logic(spec["logic"], len(members), path=path_of_line, offset=before)
        return line._replace(path=path_of_line) if isinstance(line, Operation) else line

    def _add_condition(self, spec: Mapping[str, Any], path: str) -> None:
        try:
            self.conditions.append(_condition(spec, path))
        except InvalidCriteria as error:
            self.mistakes.append(error)

    def _count(self, members: int, path: str) -> None:
        self._members += members
        if self._members > MAX_MEMBERS:
            raise InvalidCriteria(
                path, f"there are more than {MAX_MEMBERS:,} conditions and groups: use fewer"
            )


def _members(members: object, path: str, at_least_one: str) -> Sequence[Any]:
    if not isinstance(members, Sequence) or isinstance(members, str):
        raise InvalidCriteria(path, f"a list is needed, not {type(members).__name__}")
    if not members:
        raise InvalidCriteria(path, at_least_one)
    return members


def _condition(spec: Mapping[str, Any], path: str) -> Condition:
    for key in spec:
        if key not in CONDITION_KEYS:
            guess = did_you_mean(key, (*CONDITION_KEYS, *GROUPS))
            guess = guess or f"; a group has one key, which is one of {', '.join(GROUPS)}"
            raise InvalidCriteria(f"{path}.{key}", f"not a key of a condition{guess}")
    for key in ("field", "operator"):
        if not isinstance(spec.get(key), str) or not spec[key]:
            raise InvalidCriteria(f"{path}.{key}", "a text is needed")
    name = spec["operator"]
    operator = OPERATORS.get(name)
    if operator is None:
        guess = did_you_mean(name, OPERATORS) or f"; the operators are {', '.join(OPERATORS)}"
        raise InvalidCriteria(f"{path}.operator", f"{name!r} is not an operator{guess}")
    if operator.takes_value and "value" not in spec:
        raise InvalidCriteria(f"{path}.value", f"{name!r} needs a value")
    if not operator.takes_value and "value" in spec:
        raise InvalidCriteria(f"{path}.value", f"{name!r} takes no value")
    case_sensitive = spec.get("case_sensitive", False)
    if not isinstance(case_sensitive, bool):
        raise InvalidCriteria(f"{path}.case_sensitive", "true or false is needed")
    return Condition(path, spec["field"], name, spec.get("value"), case_sensitive)
