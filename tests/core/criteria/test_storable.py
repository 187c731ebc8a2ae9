"""What criteria may contain, so that Airflow can store their DAG."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_insightly_hooks.core.criteria.storable import DEEPEST, check_storable
from airflow_insightly_hooks.core.errors import InvalidCriteria


def nested(depth: int, inner: Any) -> Any:
    for _ in range(depth):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    ("criteria", "path", "reason"),
    [
        ({"all": [{"value": 2**64}]}, "criteria.all[0].value", "beyond 64 bits can't be stored"),
        ({"value": [1, -(2**63) - 1]}, "criteria.value[1]", "beyond 64 bits can't be stored"),
        ({"value": float("inf")}, "criteria.value", "not finite"),
        ({"value": float("nan")}, "criteria.value", "not finite"),
        ({"value": "a\0"}, "criteria.value", "U+0000"),
        ({"field": "\ud800"}, "criteria.field", "half of a surrogate pair"),
        ({"a\0": 1}, "criteria", "U+0000"),
        ({"value": nested(300, "x")}, "criteria", "they nest more than 250 levels deep: use fewer levels"),
    ],
    ids=str,
)
def test_what_cannot_be_stored_is_refused(criteria: Any, path: str, reason: str) -> None:
    """The error says where. Otherwise Airflow would lose all DAGs of the file."""
    with pytest.raises(InvalidCriteria) as caught:
        check_storable(criteria)
    assert caught.value.path == path
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    "criteria",
    [None, "{{ x }}", {"value": [2**64 - 1, -(2**63), 1e300, True, "ä\n"]}, nested(DEEPEST - 1, {})],
    ids=repr,
)
def test_what_can_be_stored_is_taken(criteria: Any) -> None:
    """Templates can be stored, and so can the largest numbers."""
    check_storable(criteria)


def test_lists_that_hold_themselves_are_no_trap() -> None:
    """Such a list is refused, not followed for ever. A list may contain another list many times."""
    loop: list[Any] = []
    loop.append(loop)
    laughs: Any = ["x"]
    for _ in range(DEEPEST - 2):
        laughs = [laughs] * 10
    check_storable(laughs)
    with pytest.raises(InvalidCriteria, match="250 levels deep"):
        check_storable({"all": loop})
