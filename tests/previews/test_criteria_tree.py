"""How criteria came out, as they nest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import given

from airflow_insightly_hooks.core.criteria import Criteria
from airflow_insightly_hooks.core.workflow.backtest import Verdict
from airflow_insightly_hooks.core.workflow.preview import PreviewedChange
from airflow_insightly_hooks.previews.criteria_tree import TreeNode, criteria_tree
from tests.strategies import CRITERIA_NOW, criteria, criteria_records


def looked_at(spec: Any, record: dict[str, Any]) -> tuple[TreeNode | None, PreviewedChange, bool]:
    made = Criteria(spec)
    conditions = tuple(made.compile_explanation(now=CRITERIA_NOW)(record))
    verdict = Verdict(
        {},  # type: ignore[typeddict-item]  # the tree doesn't ask for it
        False,
        None,
        conditions,
        tuple(made.group_outcomes(conditions)),
        tuple(made.culprits(conditions)),
    )
    change = PreviewedChange(verdict, (), tuple(made.compared(record)))
    return criteria_tree(spec, change), change, made.compile(now=CRITERIA_NOW)(record)


def nodes(node: TreeNode) -> Iterator[TreeNode]:
    yield node
    for member in node.members:
        yield from nodes(member)


@given(criteria(), criteria_records)
def test_the_tree_says_what_the_criteria_say(spec: Any, record: dict[str, Any]) -> None:
    """Its root holds if they are met, it has all conditions in their order, and the culprits are marked."""
    tree, change, is_met = looked_at(spec, record)
    assert (tree is None) == (spec is None)
    if tree is None:
        return
    assert tree.held is is_met
    conditions = [node for node in nodes(tree) if node.field is not None]
    verdict = change.verdict
    assert [(node.field, node.held) for node in conditions] == [(c.field, c.held) for c in verdict.conditions]
    assert [node.is_culprit for node in conditions] == [c in verdict.culprits for c in verdict.conditions]


def test_a_logic_line_numbers_its_conditions() -> None:
    """Also one that names a single condition, and one that is part of a group."""
    condition = {"field": "A", "operator": "equals", "value": "x"}
    for line, held in (("1", True), ("NOT  1", False), ("(1)", True)):
        tree, _, _ = looked_at({"conditions": [condition], "logic": line}, {"A": "X"})
        assert tree is not None
        assert (tree.held, tree.words) == (held, f"{' '.join(line.split())} holds, of these:")
        assert [(m.number, m.held, m.value, m.found) for m in tree.members] == [(1, True, "'x'", "'X'")]
    tree, _, _ = looked_at({"any": [{"conditions": [condition, condition]}]}, {"A": "y"})
    assert tree is not None
    assert [(m.number, m.is_culprit) for m in tree.members[0].members] == [(None, True), (None, True)]
