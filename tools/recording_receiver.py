"""A receiver on a real socket. It answers late, refuses some messages at first, and records each POST."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Post", "RecordingReceiver", "recording_receiver"]

DELAY = (0.001, 0.050)
"""The shortest and the longest time until a POST is answered, in seconds."""
FAILING = 0.05
"""The share of messages whose first POST is answered with 503."""


@dataclass
class Post:
    """A POST that was completely read.

    :ivar at: when its last byte was read, on the monotonic clock, in seconds.
    :ivar status: the status of the answer, even if the sender could not read it any more.
    """

    at: float
    message_id: str
    body: bytes
    sender: str
    status: int


class RecordingReceiver:
    """The POSTs since ``begin``. With the same seed, the same messages get the same answers."""

    def __init__(self) -> None:
        self.url = ""
        self.posts: list[Post] = []
        self._seed = 0
        self._seen: dict[str, int] = {}

    def begin(self, seed: int) -> None:
        """Forget the received POSTs. With another seed, other messages fail and are delayed from now on."""
        self._seed, self._seen, self.posts = seed, {}, []

    def _answer(self, message_id: str) -> tuple[int, float]:
        """Return the status and the delay in seconds for the next POST of a message."""
        number = self._seen[message_id] = self._seen.get(message_id, 0) + 1
        fails = number == 1 and random.Random(f"{self._seed} {message_id}").random() < FAILING
        delay = random.Random(f"{self._seed} {message_id} {number}").uniform(*DELAY)
        return 503 if fails else 200, delay

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until its peer ends it."""
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[1:]
                headers = {
                    name.lower(): value.strip() for name, _, value in (n.partition(":") for n in lines)
                }
                body = await reader.readexactly(int(headers["content-length"]))
                message_id = headers["webhook-id"]
                status, delay = self._answer(message_id)
                self.posts.append(
                    Post(time.monotonic(), message_id, body, headers.get("x-sender", ""), status)
                )
                await asyncio.sleep(delay)
                writer.write(f"HTTP/1.1 {status} -\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the sender has ended its connection, or was killed
        finally:
            writer.close()


@contextmanager
def recording_receiver() -> Iterator[RecordingReceiver]:
    """Run a receiver on a free port of 127.0.0.1 in its own thread, until the end of the block."""
    receiver = RecordingReceiver()
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(receiver.serve, "127.0.0.1", 0, backlog=512))
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever, name="receiver", daemon=True)
    thread.start()
    try:
        yield receiver
    finally:

        async def end() -> None:
            server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
