"""A few threads for blocking calls, such as queries, so that the API server's own threads stay free."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from airflow_insightly_hooks.incoming.answers import unavailable

__all__ = ["TIMEOUT", "Threads"]

T = TypeVar("T")

log = logging.getLogger(__name__)

TIMEOUT = 10.0
"""Seconds that a request waits for an answer."""


class Threads:
    """Runs calls in a few threads, and limits the time that requests wait for them.

    If a call takes too long, the request stops waiting. The call keeps its thread until it ends.

    :param count: how many calls run at once.
    :param service: the name, in log lines, of the service that the calls ask.
    :param timeout: seconds that a request waits; ``None``: ``TIMEOUT``.
    """

    def __init__(self, count: int, service: str = "Airflow's database", timeout: float | None = None) -> None:
        self._service, self._timeout = service, timeout
        self._free = asyncio.Semaphore(count)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="insightly-incoming")

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function in a thread, and return its result.

        :raises Refusal: 503, if it takes too long.
        """
        timeout = TIMEOUT if self._timeout is None else self._timeout
        # Not wait_for: up to Python 3.11 it forgets that it was cancelled if the call ends at that moment.
        running = asyncio.ensure_future(self._run(function, *arguments))
        try:
            await asyncio.wait([running], timeout=timeout)
        finally:
            if not running.done():
                running.cancel()
        if running.done():
            return running.result()
        log.warning("%s did not answer within %g s: check it, and its load", self._service, timeout)
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
