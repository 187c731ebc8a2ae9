"""The counts that a task keeps."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_insightly_hooks.core.errors import InvalidState
from airflow_insightly_hooks.core.state.run_counts import RunCounts


@pytest.mark.parametrize(
    "counts", [RunCounts(), RunCounts(detected=0), RunCounts(3, 2, 10, 100, "insightly_default")]
)
def test_it_is_read_as_it_was_written(counts: RunCounts) -> None:
    """Unknown numbers are left out instead of being null; 0 is a known number."""
    value = counts.as_dict()
    assert None not in value.values()
    assert value["version"] == 1
    assert RunCounts.of(value) == counts


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"version": 2, "detected": 1},
        {"version": 1, "detected": "1"},
        {"version": 1, "met": -1},
        {"version": 1, "met": True},
        {"version": 1, "insightly_conn_id": 5},
        {"__airflow_state_ref__": "elsewhere"},
    ],
)
def test_what_cannot_be_read(value: Any) -> None:
    """The error says that the counts can't be read, whatever the value is."""
    with pytest.raises(InvalidState, match="run_counts"):
        RunCounts.of(value)


def test_what_a_later_version_adds_is_passed_over() -> None:
    """Unknown keys are ignored as long as the value says version 1."""
    assert RunCounts.of({"version": 1, "met": 1, "more": {}}) == RunCounts(met=1)
