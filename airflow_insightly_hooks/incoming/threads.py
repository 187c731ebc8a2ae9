"""A few threads for what blocks, such as a query, so that the API server's own threads stay free."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from airflow_insightly_hooks.incoming.answers import unavailable

__all__ = ["PATIENCE", "Threads"]

T = TypeVar("T")

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds that a request waits for an answer."""


class Threads:
    """Threads, and whoever waits for one of them.

    A call that takes too long keeps its thread until it ends, and nobody waits for it any more.

    :param count: how many calls run at once.
    :param who: whose answers they wait for, as a log line names it.
    :param patience: seconds that anybody waits.
    """

    def __init__(self, count: int, who: str = "Airflow's database", patience: float | None = None) -> None:
        self._who, self._patience = who, patience
        self._free = asyncio.Semaphore(count)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="insightly-incoming")

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Return what a function returns that is called in a thread.

        :raises Refusal: 503, if that takes too long.
        """
        patience = PATIENCE if self._patience is None else self._patience
        # Not wait_for: up to Python 3.11 it forgets that it was cancelled if the call ends at that moment.
        running = asyncio.ensure_future(self._run(function, *arguments))
        try:
            await asyncio.wait([running], timeout=patience)
        finally:
            if not running.done():
                running.cancel()
        if running.done():
            return running.result()
        log.warning("%s did not answer within %g s", self._who, patience)
        raise unavailable()

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        await self._free.acquire()
        loop = asyncio.get_running_loop()

        def free(_done: Future[T]) -> None:
            with suppress(RuntimeError):  # the server has ended
                loop.call_soon_threadsafe(self._free.release)

        called = self._threads.submit(function, *arguments)
        called.add_done_callback(free)
        return await asyncio.wrap_future(called)
