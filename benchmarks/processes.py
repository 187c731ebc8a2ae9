"""Runs the servers of the benchmarks, each in its own process."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

__all__ = ["is_left", "own_process", "run"]


@contextlib.contextmanager
def own_process(script: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a script of this folder until the end of the block. Yield its process and its first line.

    :raises RuntimeError: if it ends before it has printed a line.
    """
    command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            if not line:
                raise RuntimeError(f"{script} doesn't start")
            yield process, line
        finally:
            process.terminate()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a server's main coroutine, with uvloop if it is installed."""
    with contextlib.suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(main)


async def is_left(on_line: Callable[[], object] = lambda: None) -> None:
    """Wait until the parent process has ended. Call ``on_line`` for each line that it writes."""
    ended = asyncio.Event()

    def read() -> None:
        if sys.stdin.readline():
            on_line()
        else:
            ended.set()

    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), read)
    await ended.wait()
