"""Why a record meets criteria or not: how each group came out, and which conditions decided it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from airflow_insightly_hooks.core.criteria.logic import Expression

__all__ = ["GroupOutcome", "culprits_of", "group_outcomes"]


class GroupOutcome(NamedTuple):
    """Whether one group, or logic line, held for a record; ``path`` says where it stands in the criteria."""

    path: str
    held: bool


def group_outcomes(expression: Expression, held: Sequence[bool]) -> list[GroupOutcome]:
    """Return how each group and logic line came out, in the criteria's order, a group before its members.

    :param held: the conditions' outcomes, in their order.
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
    """Return the numbers, from 1, of the conditions by whose outcomes the criteria are not met.

    In ``all`` those that didn't hold, in ``any`` all of them, in ``none`` and ``NOT`` those that held.
    Empty if the criteria are met.
    """
    return frozenset() if _holds(expression, held) else frozenset(_blamed(expression, held, wanted=True))


def _blamed(expression: Expression, held: Sequence[bool], *, wanted: bool) -> set[int]:
    """Return the conditions by which an expression came out other than wanted."""
    if isinstance(expression, int):
        return {expression}
    of_member = wanted if expression.kind != "none" else not wanted
    members = [member for member in expression.members if _holds(member, held) is not of_member]
    return set().union(*(_blamed(member, held, wanted=of_member) for member in members))
