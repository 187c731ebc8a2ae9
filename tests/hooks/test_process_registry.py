"""Objects that a process shares: one for each key."""

from __future__ import annotations

import threading
import time

from airflow_insightly_hooks.hooks.process_registry import ProcessRegistry, clear_process_registries


def test_made_when_first_asked_for() -> None:
    """The object of a key is made when it is first asked for."""
    made: list[str] = []
    registry = ProcessRegistry[str, object](lambda key: made.append(key) or object())
    assert made == []
    first = registry.get("a")
    assert registry.get("b") is not first
    assert registry.get("a") is first
    assert made == ["a", "b"]
    assert registry.items() == [("b", registry.get("b")), ("a", first)]


def test_one_for_all_threads() -> None:
    """If several threads ask for a key at the same time, its object is made once."""
    made: list[str] = []

    def make(key: str) -> object:
        time.sleep(0.01)
        made.append(key)
        return object()

    registry = ProcessRegistry(make)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(registry.get("a"))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["a"]
    assert len(found) == 10
    assert len(set(map(id, found))) == 1


def test_the_longest_unused_goes_first() -> None:
    """A registry with a limit forgets the object that was unused longest. One without a limit keeps all."""
    bounded, unbounded = ProcessRegistry(str, most=2), ProcessRegistry(str)
    for registry in (bounded, unbounded):
        for key in (1, 2, 1, 3):
            registry.get(key)
    assert bounded.items() == [(1, "1"), (3, "3")]
    assert len(unbounded.items()) == 3


def test_all_are_cleared_at_once() -> None:
    """One call empties all registries. Then each object is made anew."""
    registries = [ProcessRegistry[str, list[str]](lambda _key: []) for _ in range(2)]
    before = [registry.get("a") for registry in registries]
    clear_process_registries()
    assert [registry.items() for registry in registries] == [[], []]
    assert all(registry.get("a") is not old for registry, old in zip(registries, before, strict=True))
