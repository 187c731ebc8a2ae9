"""The task's process is killed with SIGKILL. ``benchmarks/one_task.py`` covers more cases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CHANGES, NEW = 2_500, 495
"""How many changes there are, and how many records of a page are new: five overlap."""
SETTLED = 1_900
"""At least as many changes as the first two batches have: four pages, with the sandbox's own contacts."""
SEED = 17
"""Makes the kill come in the third batch."""


@pytest.mark.slow
def test_a_kill_costs_what_was_under_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All messages arrive.

    No page and no message of batches that were settled before the kill comes again.
    """
    for folder in ("benchmarks", "tools"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    import one_task
    import recording_receiver

    monkeypatch.setattr(one_task, "KILLS", 1)
    # The benchmark's settings are restored after the test.
    for name in ("FAILING", "DELAY"):
        monkeypatch.setattr(recording_receiver, name, getattr(recording_receiver, name))
    for name in ("INSIGHTLY", "WEBHOOK"):
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}_DEFAULT", "")
    with one_task.running_crm(CHANGES) as crm:
        one_task.kill_it(crm, CHANGES, SEED)
    output = capsys.readouterr().out
    assert f"0 of {CHANGES} were lost" in output
    rows = re.findall(r"^ +(\d+|ended) +(\d+) +(\d+) +(\d+)$", output, re.MULTILINE)
    (killed_after, _, _, _), (ended, read_again, twice, _) = rows
    assert ended == "ended", output
    assert SETTLED < int(killed_after) < CHANGES
    assert int(read_again) <= (CHANGES - SETTLED) / NEW + 2  # the last page is begun, and its end confirmed
    assert int(twice) <= int(killed_after) - SETTLED
