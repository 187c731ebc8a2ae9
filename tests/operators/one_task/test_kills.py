"""The process of the task is killed with SIGKILL; ``benchmarks/one_task.py`` plays more of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CHANGES, NEW = 2_500, 495
"""In all, and on a page: five records overlap."""
SETTLED = 1_900
"""Changes of the first two batches, at least: four pages, which also show the sandbox's own contacts."""
SEED = 17
"""Has the kill come in the third batch."""


@pytest.mark.slow
def test_a_kill_costs_what_was_under_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All arrive; no page and no message of the batches that were settled before the kill comes again."""
    for folder in ("benchmarks", "tools"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    import one_task
    import recording_receiver

    monkeypatch.setattr(one_task, "KILLS", 1)
    # What the benchmark sets is put back after the test.
    for name in ("FAILING", "DELAY"):
        monkeypatch.setattr(recording_receiver, name, getattr(recording_receiver, name))
    for name in ("INSIGHTLY", "WEBHOOK"):
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}_DEFAULT", "")
    with one_task.running_crm(CHANGES) as crm:
        one_task.kill_it(crm, CHANGES, SEED)
    told = capsys.readouterr().out
    assert f"0 of {CHANGES} were lost" in told
    rows = re.findall(r"^ +(\d+|ended) +(\d+) +(\d+) +(\d+)$", told, re.MULTILINE)
    (killed_after, _, _, _), (ended, read_again, twice, _) = rows
    assert ended == "ended", told
    assert SETTLED < int(killed_after) < CHANGES
    assert int(read_again) <= (CHANGES - SETTLED) / NEW + 2  # the last page is begun, and its end confirmed
    assert int(twice) <= int(killed_after) - SETTLED
