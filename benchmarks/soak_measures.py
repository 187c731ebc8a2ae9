"""Measures the memory of processes and the sizes in Airflow's database over time, for benchmarks/soak.py."""

from __future__ import annotations

import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy
from soak_checks import Reading

__all__ = ["Database", "Memory", "Sizes", "kept_slots", "rows_text"]

MEGABYTE = 1_000_000
TABLES_SHOWN = 12


@dataclass(frozen=True)
class Sizes:
    """Rows and bytes (with indexes and TOAST) of each table, at some moment.

    :ivar deliveries: acknowledged POSTs until then.
    """

    rows: Mapping[str, int]
    bytes: Mapping[str, int]
    deliveries: int


class Database:
    """Airflow's metadata database on PostgreSQL."""

    def __init__(self, address: str) -> None:
        self._engine = sqlalchemy.create_engine(address, isolation_level="AUTOCOMMIT")
        self.most: dict[str, tuple[int, int]] = {}
        """Keys and bytes of the assets' state by the first part of the key, at the most."""

    def ask(self, query: str) -> list[Any]:
        """Return the rows of a query."""
        with self._engine.connect() as connection:
            answer = connection.execute(sqlalchemy.text(query))
            return list(answer.all()) if answer.returns_rows else []

    def sizes(self, deliveries: int) -> Sizes:
        """Return the sizes of all tables that have rows."""
        found = self.ask(
            "select c.relname, pg_total_relation_size(c.oid) from pg_class c "
            "join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'public' and c.relkind = 'r'"
        )
        tables = {
            name: (self.ask(f'select count(*) from "{name}"')[0][0], size)  # noqa: S608 — the catalogue's names
            for name, size in found
        }
        return Sizes(
            {name: rows for name, (rows, _) in tables.items() if rows},
            {name: size for name, (rows, size) in tables.items() if rows},
            deliveries,
        )

    def asset_state(self) -> dict[str, tuple[int, int]]:
        """Return keys and bytes of the assets' state by the first part of the key; keep the most of each."""
        rows = self.ask(
            "select split_part(key, '/', 1), count(*), sum(length(value)) from asset_state_store group by 1"
        )
        now = {kind: (keys, size) for kind, keys, size in rows}
        for kind, (keys, size) in now.items():
            most = self.most.get(kind, (0, 0))
            self.most[kind] = max(keys, most[0]), max(size, most[1])
        return now

    def readings(self) -> dict[str, list[Reading]]:
        """Return what each DAG's runs have read."""
        found: dict[str, list[Reading]] = defaultdict(list)
        rows = self.ask(
            "select t.dag_id, extract(epoch from (x.value #>> '{end}')::timestamptz), "
            "extract(epoch from t.end_date) from xcom x join task_instance t on t.dag_id = x.dag_id "
            "and t.run_id = x.run_id and t.task_id = x.task_id and t.map_index = x.map_index "
            "where x.key = 'window' and t.state = 'success'"
        )
        for dag_id, until, ended in rows:
            found[dag_id].append(Reading(float(until), float(ended)))
        return found

    def is_idle(self) -> bool:
        """Whether no run has been active for long, and no run will start soon except ones that just came."""
        query = (
            "select count(*) from dag_run where state in ('running', 'queued') and (run_after > now() "
            "or run_after < now() - interval '20 seconds') and run_after < now() + interval '300 seconds'"
        )
        return self.ask(query)[0][0] == 0

    def failed(self) -> list[str]:
        """Return the tasks that have finally failed, with their numbers."""
        rows = self.ask(
            "select dag_id, task_id, count(*) from task_instance "
            "where state in ('failed', 'upstream_failed') group by 1, 2 order by 1, 2"
        )
        return [f"{dag_id}.{task_id}: {count}" for dag_id, task_id, count in rows]

    def tasks(self) -> int:
        """Return how many tasks have succeeded."""
        count: int = self.ask("select count(*) from task_instance where state = 'success'")[0][0]
        return count


def rows_text(parts: Sequence[tuple[str, Sizes, Sizes]]) -> str:
    """Return what the tables have gained for 1,000 deliveries, the largest first.

    :param parts: the name of each part of the time, and the sizes at its beginning and its end.
    """
    last = parts[-1][2]
    names = sorted(last.bytes, key=lambda name: -last.bytes[name])[:TABLES_SHOWN]
    heads = "".join(f"{name + ': rows':>22}{'kB':>9}" for name, _, _ in parts)
    lines = [f"{'for 1,000 deliveries':30}{heads}{'in all: rows':>16}{'MB':>9}"]
    totals = [0.0 for _ in parts]
    for name in names:
        line = f"{name:30}"
        for _, begin, end in parts:
            thousands = max(1, end.deliveries - begin.deliveries) / 1000
            rows = (end.rows.get(name, 0) - begin.rows.get(name, 0)) / thousands
            line += f"{rows:22.1f}{(end.bytes[name] - begin.bytes.get(name, 0)) / thousands / 1000:9.1f}"
        lines.append(f"{line}{last.rows[name]:16d}{last.bytes[name] / MEGABYTE:9.1f}")
    for number, (_, begin, end) in enumerate(parts):
        thousands = max(1, end.deliveries - begin.deliveries) / 1000
        totals[number] = (sum(end.bytes.values()) - sum(begin.bytes.values())) / thousands / 1000
    sums = "".join(f"{'':22}{total:9.1f}" for total in totals)
    lines.append(f"{'all of it':30}{sums}{'':16}{sum(last.bytes.values()) / MEGABYTE:9.1f}")
    return "\n".join(lines)


def kept_slots(log: Path) -> str:
    """Return how long tasks kept their slots after their end, by the scheduler's log."""
    finished = re.compile(r"^(\S+)Z .*TaskInstance Finished: .*run_end_date=(\S+ [\d:.]+)")
    found = [match.groups() for line in log.open(errors="replace") if (match := finished.search(line))]
    kept = [
        (datetime.fromisoformat(seen) - datetime.fromisoformat(ended)).total_seconds()
        for seen, ended in found
    ]
    long = sum(seconds > 3 for seconds in kept)
    return (
        f"{len(kept)} tasks kept their slots after their end for {statistics.median(kept):.1f} s (median), "
        f"{long} of them for more than 3 s"
    )


class Memory:
    """Resident memory of processes and of all their child processes, sampled over time.

    :param roots: the ids of the processes, by name. They are looked up again for each sample.
    """

    def __init__(self, roots: Callable[[], Mapping[str, int]]) -> None:
        self._roots = roots
        self._began: float | None = None
        self.samples: dict[tuple[str, int], list[tuple[float, int]]] = defaultdict(list)
        """Seconds since the first sample and bytes, by the component's name and the process's id."""

    def sample(self) -> None:
        """Measure all processes once."""
        if self._began is None:
            self._began = time.monotonic()
        now = time.monotonic() - self._began
        for name, pid in self._roots().items():
            with suppress(psutil.NoSuchProcess):
                root = psutil.Process(pid)
                for process in (root, *root.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess):
                        self.samples[name, process.pid].append((now, process.memory_info().rss))

    def text(self, begin: float, end: float) -> str:
        """Return the memory of the processes that have lived through the second half of a time.

        :param begin: seconds since the first sample; ``end`` too.
        """
        middle, third = (begin + end) / 2, begin + (end - begin) * 3 / 4
        heads = f"{'3rd quarter':>13}{'4th quarter':>13}{'change':>9}{'an hour':>9}"
        lines = [f"{'memory in MB':24}{'processes':>10}{heads}"]
        by_name = defaultdict(list)
        for (name, _), samples in self.samples.items():
            late = [(at, size) for at, size in samples if middle <= at <= end]
            has_both = late and late[0][0] < third <= late[-1][0]
            if has_both and late[0][0] < middle + 30 and late[-1][0] > end - 30:
                by_name[name].append(late)
        for name, processes in by_name.items():
            quarters = [
                sum(statistics.mean([size for at, size in late if is_in(at)]) for late in processes)
                / MEGABYTE
                for is_in in (lambda at: at < third, lambda at: at >= third)
            ]
            slope = sum(_slope(late) for late in processes) * 3600 / MEGABYTE
            lines.append(
                f"{name:24}{len(processes):10d}{quarters[0]:13.1f}{quarters[1]:13.1f}"
                f"{quarters[1] / quarters[0] - 1:+9.1%}{slope:+9.1f}"
            )
        return "\n".join(lines)


def _slope(samples: Sequence[tuple[float, int]]) -> float:
    if len(samples) < 2:
        return 0.0
    return statistics.linear_regression([at for at, _ in samples], [size for _, size in samples]).slope
