"""Why a record does or doesn't meet criteria: the result of each group, and the conditions that decided."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.criteria.logic import Expression
from airflow_insightly_hooks.core.exact_json import ExactNumber

__all__ = ["Compared", "GroupOutcome", "culprits_of", "group_outcomes"]

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200
_SHORT.maxlist = 10


class GroupOutcome(NamedTuple):
    """Whether one group or logic line held for a record; ``path`` is its place in the criteria."""

    path: str
    """Such as ``criteria.all``."""
    held: bool
    """Whether the group held."""


class Compared(NamedTuple):
    """The two values that one condition compares; ``found`` is a part of a record's contents.

    :param path: the condition's place in the criteria.
    :param value: the condition's value, as the criteria have it; ``None`` if its operator takes no value.
    :param found: the record's value. For a dotted path or ``TAGS``, it is the list of values that aren't
        blank.
    """

    path: str
    value: Any
    found: Any

    def plain(self) -> dict[str, Any]:
        """Return ``value`` and ``found`` as JSON and YAML can hold them; other values become texts."""
        return {"value": _plain(self.value), "found": _plain(self.found)}

    @property
    def value_text(self) -> str:
        """The condition's value, shortened if it is long; empty if the operator takes no value."""
        return "" if self.value is None else _text(self.value)

    @property
    def found_text(self) -> str:
        """The record's value, shortened if it is long."""
        return "blank" if self.found in (None, "", []) else _text(self.found)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, ExactNumber):
        return value.text
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


def _text(value: Any) -> str:
    """Return a value on one line, without characters that control a terminal."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _SHORT.repr(_plain(value))


def group_outcomes(expression: Expression, held: Sequence[bool]) -> list[GroupOutcome]:
    """Return the result of each group and logic line, in the criteria's order: a group before its members.

    :param held: the results of the conditions, in their order.
    """
    found: list[GroupOutcome] = []
    _groups(expression, held, found)
    return found


def _groups(expression: Expression, held: Sequence[bool], found: list[GroupOutcome]) -> None:
    if isinstance(expression, int):
        return
    if expression.path is not None:
        found.append(GroupOutcome(expression.path, _holds(expression, held)))
    for member in expression.members:
        _groups(member, held, found)


def _holds(expression: Expression, held: Sequence[bool]) -> bool:
    if isinstance(expression, int):
        return held[expression - 1]
    outcomes = [_holds(member, held) for member in expression.members]
    if expression.kind == "all":
        return all(outcomes)
    return any(outcomes) is (expression.kind == "any")


def culprits_of(expression: Expression, held: Sequence[bool]) -> frozenset[int]:
    """Return the numbers, from 1, of the conditions because of which the criteria are not met.

    In ``all`` these are the conditions that didn't hold, in ``any`` all conditions, in ``none`` and ``NOT``
    the conditions that held. The result is empty if the criteria are met.
    """
    return frozenset() if _holds(expression, held) else frozenset(_culprits(expression, held, wanted=True))


def _culprits(expression: Expression, held: Sequence[bool], *, wanted: bool) -> set[int]:
    """Return the conditions because of which an expression doesn't have the result ``wanted``."""
    if isinstance(expression, int):
        return {expression}
    of_member = wanted if expression.kind != "none" else not wanted
    members = [member for member in expression.members if _holds(member, held) is not of_member]
    return set().union(*(_culprits(member, held, wanted=of_member) for member in members))
