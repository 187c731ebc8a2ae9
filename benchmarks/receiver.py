"""A receiver of webhooks that is as fast as Python allows: a process of its own, on loopback.

It keeps connections open and answers each POST with 200 and no body, after a delay if one is asked for.

Usage: python benchmarks/receiver.py [delay in seconds]
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Receiver(asyncio.Protocol):
    """One connection: parses no more of a request than where it ends."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        while (end := received.find(b"\r\n\r\n")) >= 0:
            head = received[:end].lower()
            _, found, length = head.partition(b"\r\ncontent-length:")
            end += 4 + (int(length.partition(b"\r\n")[0]) if found else 0)
            if len(received) < end:
                break
            received = received[end:]
            is_last = b"\r\nconnection: close" in head
            if self._delay:
                asyncio.get_running_loop().call_later(self._delay, self._answer, is_last)
            else:
                self._answer(is_last)
        self._received = received

    def _answer(self, is_last: bool) -> None:
        self._transport.write(ANSWER)
        if is_last:
            self._transport.close()


@contextlib.contextmanager
def receiving(delay: float = 0.0) -> Iterator[str]:
    """Run a receiver in a process of its own until the end of the block; yield its address."""
    command = [sys.executable, str(Path(__file__)), str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def serve(delay: float) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: Receiver(delay), "127.0.0.1", backlog=1024
    )
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook", flush=True)
    await server.serve_forever()


def main() -> None:
    with contextlib.suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(serve(float(sys.argv[1]) if len(sys.argv) > 1 else 0.0))


if __name__ == "__main__":
    main()
