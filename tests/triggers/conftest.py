"""The state of an asset as triggers get it, and what must hold after each test of a trigger."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_insightly_hooks.triggers import watcher as watch


class AssetState:
    """An asset's state as the triggerer's process reaches it."""

    def __init__(self, **values: Any) -> None:
        self.values = values
        self.writes: list[tuple[str, Any]] = []
        self.is_known = True

    async def aget(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        if not self.is_known:
            raise RuntimeError("ASSET_NOT_FOUND")
        self.values[key] = json.loads(json.dumps(value))
        self.writes.append((key, value))


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> AssetState:
    """The state of the records' asset; it is the same for every account and record type."""
    made = AssetState()
    monkeypatch.setattr(watch, "state_of", lambda *_of: made)
    return made


@pytest.fixture(autouse=True)
def _requests_enough(request: pytest.FixtureRequest) -> None:
    """Allow polls as often as tests want them, even if the day's requests would not last."""
    if "insightly" in request.fixturenames:
        request.getfixturevalue("insightly").configure(requests_per_day=10**9)


@pytest.fixture(autouse=True)
def _no_watcher_is_left() -> Iterator[None]:
    yield
    assert not any(of_these for _, of_these in watch._watchers.items()), (
        "a watcher that has ended still counts"
    )
