"""The cost of remembering which records have triggered, and which webhooks wait for their time.

Bytes are the sizes of the JSON values in the state store. Reads and writes (with deletions) are calls of the
store. In Airflow, each call takes about 10 ms more. Milliseconds are the time of this process.

Usage: python benchmarks/memory.py [ids] [entries]
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from random import Random
from typing import Any

from airflow_insightly_hooks.core.state.id_set import IdSet
from airflow_insightly_hooks.core.state.pending_webhooks import PendingWebhook, PendingWebhooks

KEY = "key"
BATCH = 1_000
NOON = datetime(2024, 6, 1, 12, tzinfo=timezone.utc)
LIMIT = 60_000


class CountingStore:
    """A state store in memory, of JSON texts, that counts its calls."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.reads = self.writes = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.reads += 1
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any) -> None:
        self.writes += 1
        self.values[key] = json.dumps(value)
        assert len(self.values[key]) < LIMIT

    def delete(self, key: str) -> None:
        self.writes += 1
        self.values.pop(key, None)

    def cost(self, act: Callable[..., object], *arguments: Any) -> str:
        """Return the cost of an action with this store, as three columns."""
        self.reads = self.writes = 0
        started = time.perf_counter()
        act(self, *arguments)
        spent = (time.perf_counter() - started) * 1_000
        return f"{self.reads:7}{self.writes:7}{spent:9,.0f}"

    def sizes(self) -> str:
        """Return four columns: the keys, all bytes, the bytes of the head, and of the largest value."""
        sizes = [len(text) for text in self.values.values()]
        return f"{len(sizes):6}{sum(sizes):12,}{len(self.values[KEY]):8,}{max(sizes):9,}"


def add(store: CountingStore, ids: Iterable[int]) -> None:
    IdSet(store, KEY).add(ids)


def know_and_add(store: CountingStore, ids: Iterable[int]) -> None:
    """Do the same as a run: look up which records of a batch have triggered, then add all of them."""
    batch = list(ids)
    records = IdSet(store, KEY)
    records.known(batch)
    records.add(batch)


def grow(store: CountingStore, count: int) -> None:
    for first in range(1, count + 1, BATCH):
        know_and_add(store, range(first, first + BATCH))


def triggered(count: int) -> None:
    random = Random(1)
    half = BATCH // 2
    kinds = {
        "dense": (1, range(1, count + 1)),
        "half": (2, random.sample(range(1, 2 * count), count)),
        "one in 300": (300, random.sample(range(1, 300 * count), count)),
        "random 63 bits": (10, [random.randrange(1, 2**62) * 2 for _ in range(count)]),
    }
    print(f"IdSet: {count:,} ids; then batches of {BATCH:,}, of which half are in already")
    print(f"{'ids':15}  keys       bytes    head  largest  reads writes       ms")
    for kind, (step, ids) in kinds.items():
        store = CountingStore()
        built = store.cost(add, ids)
        print(f"{kind:15}{store.sizes()}{built}  at once")
        last = max(ids)
        new = (min(last + step * i, 2**63 - 1) for i in range(1, half + 1))
        recent = store.cost(know_and_add, [*sorted(ids)[-half:], *new])
        print(f"{'':50}{recent}  a batch of recent ids")
        new = (random.randrange(1, last) for _ in range(half))
        spread = store.cost(know_and_add, [*random.sample(ids, half), *new])
        print(f"{'':50}{spread}  a batch of ids from everywhere")
    store = CountingStore()
    grown = store.cost(grow, count // 5)
    print(f"{'dense, a fifth':15}{store.sizes()}{grown}  in {count // 5 // BATCH} batches")


def enter(store: CountingStore, entries: Iterable[PendingWebhook]) -> None:
    PendingWebhooks(store, KEY).add(entries)


def take(store: CountingStore, count: int) -> None:
    pending = PendingWebhooks(store, KEY)
    due = pending.due(NOON + timedelta(days=30))[:count]
    assert len(pending.remove(entry.record_id for entry in due)) == count


def webhook(record_id: int, seconds: int = 0) -> PendingWebhook:
    return PendingWebhook(record_id, NOON + timedelta(seconds=seconds), "added", "2024-06-01T12:00:00Z")


def pending(count: int) -> None:
    random = Random(2)
    entries = [webhook(i, random.randrange(10**6)) for i in range(1_000_000, 1_000_000 + count)]
    print(f"\nPendingBook: {count:,} entries")
    print(f"{'entered':15}  keys       bytes    head  largest  reads writes       ms")
    for order in ("in any order", "as due"):
        if order == "as due":
            entries.sort(key=lambda entry: entry.due)
        store = CountingStore()
        built = store.cost(enter, entries)
        print(f"{order:15}{store.sizes()}{built}  at once")
        print(f"{'':50}{store.cost(enter, [webhook(7)])}  one more")
        print(f"{'':50}{store.cost(take, 100)}  the first 100 taken")


def main() -> None:
    arguments = [int(argument) for argument in sys.argv[1:]]
    triggered(arguments[0] if arguments else 1_000_000)
    pending(arguments[1] if len(arguments) > 1 else 10_000)


if __name__ == "__main__":
    main()
