"""The process of the task is killed with SIGKILL; ``benchmarks/one_task.py`` plays more of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CHANGES, BATCH, OVERLAP = 2_500, 1_000, 5


@pytest.mark.slow
def test_a_kill_costs_what_was_under_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All arrive; what is read or sent a second time is what was under way at the kill."""
    for folder in ("benchmarks", "tools"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    import one_task
    import recording_receiver

    monkeypatch.setattr(one_task, "KILLS", 1)
    monkeypatch.setattr(recording_receiver, "FAILING", 0.0)
    monkeypatch.setattr(recording_receiver, "DELAY", (0.0, 0.0))
    for name in ("INSIGHTLY", "WEBHOOK"):
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}_DEFAULT", "")  # set by the benchmark
    with one_task.running_crm(CHANGES) as crm:
        one_task.kill_it(crm, CHANGES, 3)
    told = capsys.readouterr().out
    assert f"0 of {CHANGES} were lost" in told
    rows = re.findall(r"^ +(\d+|ended) +(\d+) +(\d+) +(\d+)$", told, re.MULTILINE)
    (killed_after, read, _, in_the_last_second), (ended, read_again, twice, _) = rows
    assert ended == "ended"
    settled = max(0, (int(killed_after) - BATCH) // BATCH * BATCH)
    assert int(read_again) <= (CHANGES - settled) / (500 - OVERLAP) + 2
    assert int(read) + int(read_again) <= CHANGES / (500 - OVERLAP) + 2 + 9
    assert int(twice) <= 2 * int(in_the_last_second) + 2 * one_task.CONCURRENCY
