"""What tests of Insightly's hook share: a clock that moves as it sleeps, and an eye on its key."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from airflow_insightly_hooks.hooks import client, limiter
from tests.conftest import Logged
from tests.insightly import ENCODED_KEY, KEY


@pytest.fixture
def no_key_logged(logged: Logged) -> Iterator[None]:
    """Whatever happens, no log line holds the key."""
    yield
    assert KEY not in logged.text
    assert ENCODED_KEY not in logged.text


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the seconds slept between requests to Insightly; none is, and jitter is all that it can be."""
    slept: list[float] = []
    clock = SimpleNamespace(
        sleep=lambda seconds: slept.append(round(seconds, 6)), monotonic=lambda: 1000 + sum(slept)
    )
    monkeypatch.setattr(client, "time", clock)
    monkeypatch.setattr(limiter, "time", clock)
    monkeypatch.setattr(client, "random", SimpleNamespace(uniform=lambda _, longest: longest))
    return slept
