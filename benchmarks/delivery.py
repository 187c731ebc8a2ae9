"""POSTs a second of the deliver task's engine, beside other ways to send the same: ``make bench-delivery``.

Each figure is the median of five. The contestants take turns, so other load on the machine affects all of
them. Ratios are computed within each turn. The receiver is a separate process on loopback
(benchmarks/receiver.py). The engine is ``WebhookOperator`` with everything that it does: a ledger in a state
store that takes as long as Airflow's, a check of the receiver's address for each connection, a deadline,
limits, metrics and a report. The others are loops over a ``requests.Session`` that keeps its connection open,
and Airflow's own ``HttpOperator``, mapped.

The first table has the receiver on http, and on https with a round trip of 0, 20 and 80 ms. ``--only table``
measures nothing else, and takes three to four minutes. The ideal speed of 32 POSTs at once is 32 divided by
the time of a single exchange on an open connection in the same run: the round trip and the receiver's own
time.

The exit code is 1 if a target is missed.

Usage: python benchmarks/delivery.py [--repetitions 5] [--scale 1.0] [--without-airflow] [--only table]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from contestants import Run, by_engine, make_payloads
from delivery_table import by_distance
from mapped_tasks import why_not, with_airflow
from receiver import receiving

SLOW = {0.05: 32, 1.0: 64}
"""By the seconds that a receiver takes: how many POSTs are sent at once, for ten seconds."""
SIZES = (1_000, 10_000, 100_000)
MAPPED = 100
ONE_TASK = (100, 1_000)


def with_slow_receivers(repetitions: int, scale: float) -> dict[str, float]:
    """Return which share of the ideal speed is reached with slow receivers, and print it."""
    shares: dict[float, list[float]] = defaultdict(list)
    for _ in range(repetitions):
        for delay, at_once in SLOW.items():
            posts = round(at_once * max(2, scale * 10 / delay))
            with receiving(delay) as receiver:
                run = by_engine(receiver.url, make_payloads(posts), concurrency=at_once)
            shares[delay].append(run.rate * delay / at_once)
    print("\nSlow receivers: share of the ideal speed")
    for delay, of_ideal in shares.items():
        print(f"{f'{delay:g} s, {SLOW[delay]} at once':42} {median(of_ideal):14.2f}")
    return {f"of ideal, {delay:g} s": median(of_ideal) for delay, of_ideal in shares.items()}


def measure_size(url: str, posts: int, results: Any) -> None:
    """Send payloads with the engine, in a new process."""
    import airflow_insightly_hooks.hooks.webhook
    import airflow_insightly_hooks.operators.webhook  # noqa: F401 — before the measuring begins

    payloads = make_payloads(posts)
    by_engine(url, payloads[:20])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = by_engine(url, payloads)
    results.put((run, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


def by_size(repetitions: int, scale: float) -> dict[str, float]:
    """Return the memory and the growth of the time for a POST up to 100,000 payloads, and print them."""
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    sizes = [round(size * scale) for size in SIZES]
    runs: dict[int, list[Run]] = defaultdict(list)
    memory: dict[int, list[float]] = defaultdict(list)
    with receiving() as receiver:
        for _ in range(repetitions):
            for size in sizes:
                process = spawn.Process(target=measure_size, args=(receiver.url, size, results))
                process.start()
                run, megabytes = results.get(timeout=1_200)
                process.join()
                runs[size].append(run)
                memory[size].append(megabytes)
    print(f"\n{'payloads in one task':20} {'seconds':>10} {'µs a POST':>12} {'CPU µs':>10} {'MB':>8}")
    for size in sizes:
        wall = median(run.wall for run in runs[size])
        cpu = median(run.cpu_a_post for run in runs[size])
        print(f"{size:20} {wall:10.2f} {wall / size * 1e6:12.0f} {cpu:10.0f} {median(memory[size]):8.1f}")
    small, _, large = (median(run.cpu_a_post for run in runs[size]) for size in sizes)
    return {"MB beyond the payloads": median(memory[sizes[-1]]), "CPU a POST, most / least": large / small}


def on_airflow(repetitions: int) -> dict[str, float]:
    """Return how much faster a deliver task is than mapped tasks, and print it."""
    missing = why_not()
    if missing is not None:
        print(f"\nmapped HttpOperator tasks: not measured, {missing}")
        return {}
    print()
    seconds: dict[str, list[float]] = defaultdict(list)
    with (
        receiving() as receiver,
        tempfile.TemporaryDirectory() as folder,
        with_airflow(Path(folder) / "airflow", receiver.url, MAPPED, ONE_TASK) as tasks,
    ):
        tasks.one_task(ONE_TASK[0])  # what is loaded only once, is now
        for _ in range(repetitions):
            seconds["mapped"].append(tasks.mapped())
            for number in ONE_TASK:
                seconds[f"one of {number}"].append(tasks.one_task(number))
    mapped = median(seconds["mapped"])
    print(
        f"from queue to end: {MAPPED} mapped HttpOperator tasks {mapped:8.2f} s, "
        f"{MAPPED / mapped:.1f} POSTs/s"
    )
    ratios = {}
    for number in ONE_TASK:
        of = [
            m * number / MAPPED / one
            for m, one in zip(seconds["mapped"], seconds[f"one of {number}"], strict=True)
        ]
        ratios[f"task of {number} / mapped"] = median(of)
        how = "" if number == MAPPED else f" (for as many mapped tasks, the time of {MAPPED} is scaled up)"
        taken = median(seconds[f"one of {number}"])
        print(
            f"  one deliver task of {number:5} payloads {taken:8.2f} s, {median(of):.0f} times as fast{how}"
        )
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="a part of the payloads, to try it out")
    parser.add_argument("--without-airflow", action="store_true")
    parser.add_argument("--only", choices=["table"], help="measure nothing but the table of distances")
    given = parser.parse_args()
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    print(f"{machine}, medians of {given.repetitions}", flush=True)
    measured = by_distance(given.repetitions, given.scale)
    if given.only != "table":
        measured |= with_slow_receivers(given.repetitions, given.scale)
        measured |= by_size(given.repetitions, given.scale)
        if not given.without_airflow:
            measured |= on_airflow(given.repetitions)
    print("\ntarget")
    are_reached = True
    for what, (is_reached, target) in TARGETS.items():
        if what in measured:
            verdict = "reached" if is_reached(measured[what]) else "MISSED"
            print(f"{what:32} {target:>10} {measured[what]:10.2f}  {verdict}")
            are_reached = are_reached and is_reached(measured[what])
    return 0 if are_reached else 1


TARGETS: dict[str, tuple[Callable[[float], bool], str]] = {
    "operator / a Session, http": (lambda ratio: ratio >= 1.5, "≥ 1.5"),
    "operator / 8 Sessions, TLS 0 ms": (lambda ratio: ratio >= 1.0, "≥ 1.0"),
    "operator / 8 Sessions, TLS 20 ms": (lambda ratio: ratio >= 1.0, "≥ 1.0"),
    "operator / 8 Sessions, TLS 80 ms": (lambda ratio: ratio >= 1.0, "≥ 1.0"),
    "32 at once of ideal, 80 ms": (lambda share: share >= 0.9, "≥ 0.9"),
    "of ideal, 0.05 s": (lambda share: share >= 0.9, "≥ 0.9"),
    "of ideal, 1 s": (lambda share: share >= 0.9, "≥ 0.9"),
    "task of 100 / mapped": (lambda ratio: ratio >= 15, "≥ 15"),
    "task of 1000 / mapped": (lambda ratio: ratio >= 120, "≥ 120"),
    "MB beyond the payloads": (lambda megabytes: megabytes < 150, "< 150"),
    "CPU a POST, most / least": (lambda growth: growth < 1.25, "< 1.25"),
}


if __name__ == "__main__":
    sys.exit(main())
