"""Airflow's pools: a receiver's limit over all tasks that send to it, and a pool that is missing."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from tests.e2e.conftest import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

CHUNK = 20
LIMIT = 10.0
"""The ``requests_per_second`` of the receiver's connection."""
SPAN = 2.0
"""Seconds over which the limit is measured; a chunk takes as long."""


def pools_with_problems(stack: Stack, code: int) -> set[str]:
    found = json.loads(
        stack.command("doctor", "--receiver", "receiver_pooled", "--output", "json", code=code)
    )
    return {
        one["subject"]
        for one in found
        if one["subject"].startswith("pool ") or "requests_per_second" in one["finding"]
        if one["level"] != "ok"
    }


@pytest.mark.scale
def test_a_pool_of_one_slot(stack: Stack) -> None:
    """Runs at the same time send one after another, so the receiver's limit holds for all of them.

    Until the pool exists, none of their tasks runs, and doctor says why.
    """
    chunks = [[[n, "2026-03-01T08:00:00Z"] for n in range(first, first + CHUNK)] for first in (0, CHUNK)]
    later = [[[n + 2 * CHUNK, at] for n, at in chunk] for chunk in chunks]
    runs = [stack.start_run("pooled", chunks=of_run) for of_run in (chunks, later)]
    assert "pool one_slot" in pools_with_problems(stack, code=1)
    assert stack.received("pooled") == []
    stack.airflow.api("/pools", "POST", {"name": "one_slot", "slots": 1})
    for run in runs:
        assert stack.wait_for_run("pooled", run) == "success"
    assert pools_with_problems(stack, code=0) == set()
    times = sorted(
        datetime.fromisoformat(kept["received_at"].replace("Z", "+00:00")).timestamp()
        for kept in stack.received("pooled")
    )
    assert len(times) == 4 * CHUNK
    busiest = max(sum(begin <= time < begin + SPAN for time in times) for begin in times)
    assert busiest <= 1.1 * LIMIT * SPAN
