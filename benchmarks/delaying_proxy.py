"""Simulates a network between a sender and a receiver on loopback: a process forwards bytes with a delay.

All bytes, and the end of the stream, reach the other side half a round trip later, in order. On loopback,
TCP's handshake with the proxy takes no time. On a network, it takes a round trip, and the sender can't send
before. So bytes that the sender sends in the first round trip count as sent at the end of it.

The proxy never slows down a sender. It keeps delayed bytes in memory, so it is for messages of some
kilobytes. A reset reaches the other side as the end of the stream.

Usage: python benchmarks/delaying_proxy.py port round-trip-in-seconds
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from processes import is_left, own_process, run

__all__ = ["delayed"]


@contextlib.contextmanager
def delayed(url: str, round_trip: float) -> Iterator[str]:
    """Yield an address of a receiver on 127.0.0.1. Requests to it have a round trip of so many seconds."""
    port = urlsplit(url).port
    with own_process("delaying_proxy.py", str(port), str(round_trip)) as (_, own_port):
        yield url.replace(f":{port}/", f":{own_port}/")


class End(asyncio.Protocol):
    """One end of a forwarded connection. Bytes from here leave at the other end after a delay.

    :param delay: the delay in seconds.
    :param opening: for how many seconds after the start of the connection bytes count as not received yet.
    :ivar other: the other end. It is set before any bytes are received.
    """

    other: End

    def __init__(self, delay: float, opening: float = 0.0) -> None:
        self.transport: Any = None
        self._delay = delay
        self._opening = opening
        self._loop = asyncio.get_running_loop()
        self._under_way = deque[tuple[float, bytes | None]]()
        """Due times, and bytes; b"" for the end of the stream, and None for the loss of the connection."""
        self._has_ended = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._not_before = self._loop.time() + self._opening

    def data_received(self, data: bytes) -> None:
        self._forward(data)

    def eof_received(self) -> bool:
        self._forward(b"")
        return True  # the other direction goes on

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 — asyncio's signature
        self._forward(None)

    def _forward(self, what: bytes | None) -> None:
        due = max(self._loop.time(), self._not_before) + self._delay
        self._under_way.append((due, what))
        if len(self._under_way) == 1:  # one timer at a time keeps the order
            self._loop.call_at(due, self._deliver)

    def _deliver(self) -> None:
        # Timers have milliseconds, and may fire a fraction of a millisecond too early.
        while self._under_way and self._under_way[0][0] <= self._loop.time() + 0.0005:
            self._put_out(self._under_way.popleft()[1])
        if self._under_way:
            self._loop.call_at(self._under_way[0][0], self._deliver)

    def _put_out(self, what: bytes | None) -> None:
        out = self.other.transport
        if out.is_closing():
            return
        if what:
            out.write(what)
        elif what is None:
            out.close()
        else:
            self._has_ended = True
            with contextlib.suppress(OSError):  # the other side was reset in the meantime
                out.write_eof()
            if self.other._has_ended:
                out.close()
                self.transport.close()


class SendersEnd(End):
    """The end for senders. It reads nothing before the receiver's end is connected."""

    def __init__(self, port: int, round_trip: float) -> None:
        super().__init__(round_trip / 2, opening=round_trip)
        self.other = End(round_trip / 2)
        self.other.other = self
        self._port = port

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.pause_reading()
        self._task = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            await self._loop.create_connection(lambda: self.other, "127.0.0.1", self._port)
        except OSError:
            self.transport.abort()
        else:
            self.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self.other.transport is not None:
            super().connection_lost(error)


async def serve(port: int, round_trip: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SendersEnd(port, round_trip), "127.0.0.1", backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await is_left()
    server.close()


if __name__ == "__main__":
    run(serve(int(sys.argv[1]), float(sys.argv[2])))
