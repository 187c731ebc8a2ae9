"""The threads of the endpoint for Insightly's webhooks, and their callers."""

from __future__ import annotations

import asyncio
import threading

import pytest

from airflow_insightly_hooks.incoming.answers import Refusal
from airflow_insightly_hooks.incoming.threads import Threads


@pytest.mark.parametrize("steps", range(5))
def test_who_is_cancelled_ends(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """A cancelled caller ends, even if its call ends at that moment. Otherwise a stopping server waits."""

    async def called(*_of: object) -> int:
        return 1

    async def wait_for_ever(threads: Threads) -> None:
        await threads.run(int)
        await asyncio.sleep(60)

    async def main() -> None:
        waiting = asyncio.create_task(wait_for_ever(threads))
        for _ in range(steps):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting], timeout=5)
        assert waiting.cancelled()

    threads = Threads(1)
    monkeypatch.setattr(threads, "_run", called)
    asyncio.run(main())


def test_a_call_that_takes_too_long() -> None:
    """It is refused in time, with 503, and keeps its thread until it ends."""
    release = threading.Event()

    async def main() -> None:
        threads = Threads(1, timeout=0.1)
        for _ in range(2):
            with pytest.raises(Refusal) as refused:
                await threads.run(release.wait, 30)
            assert refused.value.status == 503
        release.set()
        assert await threads.run(lambda: 7) == 7

    asyncio.run(main())


def test_what_a_call_raises() -> None:
    """The call's error is raised in its caller."""
    with pytest.raises(ZeroDivisionError):
        asyncio.run(Threads(1).run(lambda: 1 / 0))
