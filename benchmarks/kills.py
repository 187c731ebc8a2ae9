"""The cost of kills: 20 rounds in which a real Airflow delivers while its processes are killed with SIGKILL.

In each round, 2,000 payloads go to a receiver. It answers in 1 to 50 ms, and refuses 5 % of them at first.
One to three of these processes are killed: the task, its supervisor, the scheduler, the API server. The seed
decides at which random moments. No payload may be lost, and a kill may repeat only the POSTs of one second.
Needs PostgreSQL, as the end-to-end tests do; takes ten to twenty minutes.

Usage: python benchmarks/kills.py [rounds [first seed]]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

from kill_rounds import PAYLOADS, kill_rounds, plan
from postgresql import NoServerError

from airflow_insightly_hooks.demo.airflow_stack import StackError

ROUNDS = 20
FIRST_SEED = 1


def main() -> int:
    rounds, first = [*map(int, sys.argv[1:]), *(ROUNDS, FIRST_SEED)[len(sys.argv) - 1 :]]
    outcomes = []
    victims: Counter[str] = Counter()
    try:
        with tempfile.TemporaryDirectory() as folder, kill_rounds(Path(folder) / "airflow") as airflow:
            print("seed  POSTs  tries  duplicates (allowed)  seconds  killed after so many POSTs")
            for seed in range(first, first + rounds):
                outcome = airflow.play(seed)
                outcomes.append(outcome)
                strikes = plan(seed)[: outcome.kills]
                victims.update(strike.victim for strike in strikes)
                cost = ", ".join(f"{n} ({outcome.worth(by)})" for by, n in outcome.duplicates.items())
                print(
                    f"{seed:4} {len(outcome.posts):6} {outcome.tries:6}  {cost or '0':20}  "
                    f"{outcome.seconds:7.1f}  {', '.join(f'{s.victim} {s.after}' for s in strikes)}",
                    flush=True,
                )
                for fault in outcome.faults():
                    print(f"      {fault}", flush=True)
    except NoServerError as error:
        print(f"kills: {error}")
        return 2
    except (StackError, KeyboardInterrupt) as error:  # the rounds before it still count
        print(f"seed {first + len(outcomes)}: {error or 'interrupted'}")
    kills = sum(victims.values())
    # A kill without duplicates counts as 0.
    costs = sorted(n for outcome in outcomes for n in outcome.duplicates.values())
    costs = [0] * (kills - len(costs)) + costs
    print(
        f"{kills} kills ({', '.join(f'{victim} {n}' for victim, n in victims.most_common())}), "
        f"{len(outcomes) * PAYLOADS} payloads, {sum(len(outcome.lost) for outcome in outcomes)} lost; "
        f"duplicates a kill: median {statistics.median(costs or [0]):g}, worst {max(costs, default=0)}"
    )
    return 1 if len(outcomes) < rounds or any(outcome.faults() for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
