"""A process has one limiter for each account."""

from __future__ import annotations

import threading

import pytest

from airflow_insightly_hooks.hooks.api import limiter as module
from airflow_insightly_hooks.hooks.api.limiter import Limiter, limiter_for

URL = "https://api.na1.insightly.com/v3.1"


def test_one_for_each_account() -> None:
    """An account is its address and key. All hooks and threads get the same limiter."""
    found: list[Limiter] = []
    threads = [threading.Thread(target=lambda: found.append(limiter_for(URL, "key"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    assert len(set(map(id, found))) == 1
    others = [limiter_for(URL, "other"), limiter_for(URL.replace("na1", "eu1"), "key")]
    assert len({*map(id, others), id(found[0])}) == 3


def test_few_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a process uses many accounts, it forgets the one that was unused longest."""
    monkeypatch.setattr(module._limiters, "most", 2)
    first, second = limiter_for(URL, "1"), limiter_for(URL, "2")
    assert limiter_for(URL, "1") is first
    limiter_for(URL, "3")
    assert limiter_for(URL, "1") is first
    assert limiter_for(URL, "2") is not second


def test_no_key_is_kept() -> None:
    """The limiter lives as long as the process, so it keeps a digest of the key, not the key."""
    limiter_for(URL, "the-key")
    assert "the-key" not in repr(module._limiters.items())


def test_a_share_is_exact_among_threads() -> None:
    """Threads that ask at the same time don't exceed the share, while our own requests count."""
    limiter = Limiter()
    limiter.configure(per_second=0, per_day=50)
    taken: list[object] = []
    threads = [
        threading.Thread(target=lambda: taken.extend(limiter.take() for _ in range(10))) for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(spent is None for spent in taken) == 50
