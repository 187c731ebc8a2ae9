"""Fixtures for tests of the hooks: a clock that moves when it sleeps, a check of logs, and masking."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from airflow_insightly_hooks.hooks.api import client, limiter
from tests.conftest import Logged
from tests.insightly import ENCODED_KEY, KEY


@pytest.fixture
def no_key_logged(logged: Logged) -> Iterator[None]:
    """No log line contains the key."""
    yield
    assert KEY not in logged.text
    assert ENCODED_KEY not in logged.text


@pytest.fixture
def redact() -> Callable[[str], str]:
    """Return Airflow's masking, without secrets.

    It replaces secrets in no fixed order, and a secret of another test may be part of one of this test.
    """
    from airflow.sdk._shared import secrets_masker

    secrets_masker.reset_secrets_masker()
    return secrets_masker.redact


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the seconds slept between requests to Insightly.

    Nothing really sleeps, and jitter is at its maximum.
    """
    slept: list[float] = []
    clock = SimpleNamespace(
        sleep=lambda seconds: slept.append(round(seconds, 6)), monotonic=lambda: 1000 + sum(slept)
    )
    monkeypatch.setattr(client, "time", clock)
    monkeypatch.setattr(client.Client, "_wait", lambda _, seconds: clock.sleep(seconds))
    monkeypatch.setattr(limiter, "time", clock)
    monkeypatch.setattr(client, "random", SimpleNamespace(uniform=lambda _, longest: longest))
    return slept
