"""Plays 10,000 random histories of a CRM's users, a reader that crashes, and clocks that differ.

``python benchmarks/histories.py [histories [seed]]``
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.core.detection.test_scan_model import History

HISTORIES = 10_000
SEED = 2026


def main(histories: int = HISTORIES, chosen: int = SEED) -> None:
    """Play the histories, and print what was read."""
    counts: Counter[str] = Counter()

    class Counted(History):
        def a_window_was_read(self, outcome: str) -> None:
            counts[outcome] += 1

        def teardown(self) -> None:
            counts["histories"] += 1
            counts["changes"] += len(self.told)

    started = time.perf_counter()
    run_state_machine_as_test(
        seed(chosen)(Counted),
        settings=settings(
            max_examples=histories,
            stateful_step_count=12,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(
        f"{counts['histories']} histories in {time.perf_counter() - started:.0f} s: "
        f"{counts['read']} windows read, {counts['crashed']} readings crashed, {counts['incomplete']} "
        f"given up as incomplete; {counts['changes']} changes told, each once; no counter-example"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
