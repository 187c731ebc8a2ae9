"""Deliveries while Airflow's processes are killed. ``benchmarks/kills.py`` plays more cases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kill_rounds import CONCURRENCY, VICTIMS, KillRounds, kill_rounds, plan
from postgresql import NoServerError

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SEEDS = (12, 1)
"""The first seed kills all kinds of processes but one. ``make test`` plays its round only."""


@pytest.fixture(scope="module", params=["postgresql"])
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KillRounds]:
    """A separate Airflow, since no other test can run while its processes are killed."""
    try:
        with kill_rounds(tmp_path_factory.mktemp("kills") / "airflow") as started:
            yield started
    except NoServerError as error:
        pytest.skip(str(error))


def test_the_seeds_kill_each_of_the_processes() -> None:
    """The rounds below kill the task, its supervisor, the scheduler and the API server."""
    assert {strike.victim for seed in SEEDS for strike in plan(seed)} == set(VICTIMS)


@pytest.mark.parametrize("seed", [SEEDS[0], pytest.param(SEEDS[1], marks=pytest.mark.scale)])
def test_kills_lose_nothing(rounds: KillRounds, seed: int) -> None:
    """All 2,000 payloads arrive. A kill repeats one second's messages at most, under the same ids."""
    outcome = rounds.play(seed)
    assert outcome.kills == len(plan(seed))
    assert outcome.faults() == []


def test_the_earlier_of_two_tries_alive_stops(rounds: KillRounds) -> None:
    """A try that Airflow has abandoned, and that wakes up beside the next try, stops at its next write."""
    outcome, woken_at, log = rounds.play_overtaken(seed=100, after=700)
    late = [post.at - woken_at for post in outcome.posts if post.sender == "1" and post.at > woken_at]
    beside = [post for post in outcome.posts if post.sender == "2" and post.at > woken_at]
    assert beside, "the next try had ended before the earlier one woke"
    # Its write was due long ago: what was under way goes out, and at most one more behind each of them.
    assert len(late) <= 2 * CONCURRENCY
    assert max(late, default=0.0) < 2.0
    assert "SupersededError" in log
    assert outcome.faults() == []
