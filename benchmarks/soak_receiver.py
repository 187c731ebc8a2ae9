"""Receivers of webhooks that record their POSTs, in their own process, for benchmarks/soak.py.

Each receiver has a port. Each POST is a line in the file: its time, the receiver, the status of the answer,
its webhook-id, the id of the record, and the number of the change in the body. A line on the standard input,
such as ``billing 503``, changes the answers of a receiver: ``ok``; ``503``; ``down``, which closes its port.
In addition, some POSTs in a thousand are answered with 503 at random.

Usage: python benchmarks/soak_receiver.py file random-503-in-a-thousand delay-in-seconds name...
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from processes import own_process, run

__all__ = ["NO_NUMBER", "Post", "RunningReceivers", "posts_in", "receivers"]

ID = re.compile(rb"\r\nwebhook-id: *([^\r]+)", re.IGNORECASE)
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
RECORD = re.compile(rb'"[A-Z]+_ID":\s*(\d+)')
NUMBER = re.compile(rb"soak-(\d+)")
NO_NUMBER = -1


class Post(NamedTuple):
    """One POST.

    :ivar at: its time, in seconds since 1970.
    :ivar number: the number of the change in the body; ``NO_NUMBER`` if there is none.
    """

    at: float
    receiver: str
    status: int
    message_id: str
    record_id: int
    number: int


def posts_in(file: Path) -> Iterator[Post]:
    """Yield the POSTs that receivers have recorded so far."""
    with file.open() as lines:
        for line in lines:
            if line.endswith("\n"):
                at, receiver, status, message_id, record_id, number = line.split()
                yield Post(float(at), receiver, int(status), message_id, int(record_id), int(number))


class RunningReceivers:
    """Receivers in their own process.

    :ivar urls: their addresses, by name.
    :ivar pid: the id of the process.
    """

    def __init__(self, process: subprocess.Popen[str], urls: dict[str, str]) -> None:
        self._process = process
        self.urls = urls
        self.pid = process.pid

    def answer(self, name: str, how: str) -> None:
        """Change the answers of a receiver from now on: ``ok``, ``503`` or ``down``."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name} {how}\n")
        self._process.stdin.flush()


@contextlib.contextmanager
def receivers(file: Path, *names: str, in_a_thousand: float, delay: float) -> Iterator[RunningReceivers]:
    """Run receivers with these names until the end of the block. They append to ``file``."""
    arguments = (str(file), str(in_a_thousand), str(delay), *names)
    with own_process("soak_receiver.py", *arguments) as (process, line):
        yield RunningReceivers(process, json.loads(line))


class Receiver:
    """One receiver.

    :param file: the file for its POSTs.
    :param chance: the probability of a 503, from 0 to 1.
    :param delay: how many seconds an answer takes.
    """

    def __init__(self, name: str, file: TextIO, chance: float, delay: float) -> None:
        self.name, self.delay = name, delay
        self._file, self._chance = file, chance
        self._how = "ok"
        self._port = 0
        self._server: asyncio.Server | None = None
        self.connections: set[asyncio.Transport] = set()

    async def listen(self) -> str:
        """Open the port, and return the address. The port is the same each time."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{self._port}/{self.name}"

    async def answer(self, how: str) -> None:
        """Change the answers from now on."""
        self._how = how
        if how == "down" and self._server is not None:
            self._server.close()
            self._server = None
            for transport in list(self.connections):
                transport.abort()
        elif how != "down" and self._server is None:
            await self.listen()

    def received(self, head: bytes, body: bytes) -> int:
        """Record a POST before it is answered, and return the status."""
        status = 503 if self._how != "ok" or random.random() < self._chance else 204
        message_id, record, number = ID.search(head), RECORD.search(body), NUMBER.search(body)
        self._file.write(
            f"{time.time():.3f} {self.name} {status} {message_id[1].decode() if message_id else '-'} "
            f"{int(record[1]) if record else 0} {int(number[1]) if number else NO_NUMBER}\n"
        )
        return status


class Connection(asyncio.Protocol):
    """One connection, which is kept open until the sender ends it."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._receiver.connections.add(transport)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 — asyncio's signature
        self._receiver.connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._received[:end]
        length = LENGTH.search(head)
        whole = end + 4 + (int(length[1]) if length else 0)
        if len(self._received) < whole:
            return
        body, self._received = self._received[end + 4 : whole], self._received[whole:]
        is_last = b"\r\nconnection: close" in head.lower()
        asyncio.get_running_loop().call_later(self._receiver.delay, self._answer, head, body, is_last)

    def _answer(self, head: bytes, body: bytes, is_last: bool) -> None:
        if self._transport.is_closing():
            return
        status = self._receiver.received(head, body)
        reason = {204: "No Content", 503: "Service Unavailable"}[status]
        lines = [f"HTTP/1.1 {status} {reason}"]
        if status != 204:
            lines.append("Content-Length: 0")
        if is_last:
            lines.append("Connection: close")
        self._transport.write("\r\n".join([*lines, "", ""]).encode())
        if is_last:
            self._transport.close()


async def serve(file: TextIO, chance: float, delay: float, names: list[str]) -> None:
    """Serve until the standard input ends."""
    by_name = {name: Receiver(name, file, chance, delay) for name in names}
    urls = {name: await receiver.listen() for name, receiver in by_name.items()}
    print(json.dumps(urls), flush=True)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        name, how = line.decode().split()
        await by_name[name].answer(how)


def main(file: str, in_a_thousand: str, delay: str, *names: str) -> None:
    with Path(file).open("a", buffering=1) as opened:
        run(serve(opened, float(in_a_thousand) / 1000, float(delay), list(names)))


if __name__ == "__main__":
    main(*sys.argv[1:])
