"""The benchmark of deliveries runs: what it compares sends what it is given."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_contestants(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine and the loops deliver all payloads to the benchmark's receiver, fast or slow."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from contestants import by_engine, by_session, make_payloads
    from receiver import receiving

    payloads = make_payloads(20)
    with receiving() as fast, receiving(0.01) as slow:
        runs = [by_engine(fast, payloads), by_engine(slow, payloads, concurrency=4)]
        runs += [by_session(fast, payloads), by_session(fast, payloads, threads=2)]
    assert [run.posts for run in runs] == [20] * 4
    assert all(run.rate > 0 and run.cpu_a_post > 0 for run in runs)
    assert runs[1].wall >= 20 * 0.01 / 4
