"""The results of criteria for a record as a tree of groups and conditions, with the compared values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.workflow.description import GROUPS, OPERATORS
from airflow_insightly_hooks.core.workflow.preview import PreviewedChange

__all__ = ["TreeNode", "criteria_tree"]


class TreeNode(NamedTuple):
    """A group, a logic line with its conditions, or a condition. Its values are contents of the record."""

    held: bool
    words: str
    """The requirement: ``all of these hold:`` for a group, or the operator of a condition."""
    members: tuple[TreeNode, ...] = ()
    """The members of a group; empty for a condition."""
    field: str | None = None
    """The field of a condition; ``None`` for a group."""
    value: str = ""
    """The condition's value, shortened; empty if its operator takes no value."""
    found: str = ""
    """The record's value, shortened."""
    number: int | None = None
    """The number of the condition in a logic line; ``None`` outside of a logic line."""
    is_culprit: bool = False
    """Whether the record doesn't meet the criteria because of this condition."""


def criteria_tree(spec: Mapping[str, Any] | None, change: PreviewedChange) -> TreeNode | None:
    """Return the tree of the criteria's results; ``None`` if the workflow has no criteria.

    :param spec: the criteria of the preview.
    """
    return None if spec is None else _Tree(change).node(spec, "criteria")


class _Tree:
    """Makes the nodes, and finds their results by the paths that ``core.criteria`` gives them."""

    def __init__(self, change: PreviewedChange) -> None:
        verdict = change.verdict
        self._conditions = {condition.path: condition.held for condition in verdict.conditions}
        self._groups = {group.path: group.held for group in verdict.groups}
        self._culprits = {condition.path for condition in verdict.culprits}
        self._compared = {compared.path: compared for compared in change.compared}

    def node(self, spec: Mapping[str, Any] | None, path: str) -> TreeNode:
        if spec is None:
            return TreeNode(True, "always")
        for kind, words in GROUPS.items():
            if kind in spec:
                inner = f"{path}.{kind}"
                return TreeNode(self._groups[inner], words, self._members(spec[kind], inner))
        if "conditions" in spec:
            return self._numbered(spec, path)
        return self._condition(spec, path)

    def _members(self, members: Sequence[Any], path: str) -> tuple[TreeNode, ...]:
        return tuple(self.node(member, f"{path}[{i}]") for i, member in enumerate(members))

    def _numbered(self, spec: Mapping[str, Any], path: str) -> TreeNode:
        inner = f"{path}.conditions"
        members = self._members(spec["conditions"], inner)
        if spec.get("logic") is None:
            return TreeNode(self._groups[inner], GROUPS["all"], members)
        numbered = tuple(member._replace(number=number) for number, member in enumerate(members, 1))
        # A line with only one condition is not a group.
        held = self._groups.get(f"{path}.logic", members[0].held)
        return TreeNode(held, f"{' '.join(spec['logic'].split())} holds, of these:", numbered)

    def _condition(self, spec: Mapping[str, Any], path: str) -> TreeNode:
        compared = self._compared[path]
        return TreeNode(
            self._conditions[path],
            OPERATORS[spec["operator"]],
            field=spec["field"],
            value=compared.value_text,
            found=compared.found_text,
            is_culprit=path in self._culprits,
        )
