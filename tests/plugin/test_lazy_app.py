"""Applications that are made when they are first asked for something."""

from __future__ import annotations

import asyncio
import sys
import time
from types import ModuleType
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from airflow_insightly_hooks.plugin.lazy_app import LazyApp
from tests.incoming.asgi import ask


def test_first_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that come at once, before there is an application, share the one that is made."""
    made = []

    def make_app() -> ASGIApp:
        time.sleep(0.05)
        made.append(PlainTextResponse(f"number {len(made)}"))
        return made[-1]

    module: Any = ModuleType("made_late")
    module.make_app = make_app
    monkeypatch.setitem(sys.modules, "made_late", module)
    app = LazyApp("made_late")
    assert made == []

    async def ask_all() -> set[bytes]:
        return {answer.body for answer in await asyncio.gather(*(ask(app, "/") for _ in range(5)))}

    assert asyncio.run(ask_all()) == {b"number 0"}
    assert len(made) == 1
