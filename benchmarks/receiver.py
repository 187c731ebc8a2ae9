"""A receiver of webhooks that is as fast as Python allows. It runs in its own process, on loopback.

It answers each POST with 204, after an optional delay. Like nginx, it keeps a connection open for 75 s
without a request. If a request asks to close its connection, the answer has the same header, and the receiver
closes without waiting for the sender. It counts connections, TLS handshakes and POSTs. For each line on its
standard input, it prints the counts as JSON, and starts again from zero.

Usage: python benchmarks/receiver.py delay-in-seconds [requests-at-once [folder]]

``requests-at-once`` limits how many requests it processes at once. 0 sets no limit. With a folder, it uses
TLS. It makes a certificate authority there, whose certificate is the file ca.pem.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from busiest_span import BusiestSpan
from processes import is_left, own_process, run

__all__ = ["Counts", "RunningReceiver", "receiving"]

IDLE = 75.0
"""How many seconds a connection without a request is kept, as by default in nginx."""
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
LAST_ANSWER = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


@dataclass
class Counts:
    """The counts of a receiver since the last call.

    :ivar full: TLS handshakes with certificates.
    :ivar resumed: TLS handshakes that resume an earlier session.
    :ivar busiest: the POSTs in the busiest 10 s.
    :ivar seconds: the seconds from the first POST to the last one.
    :ivar cpu: the receiver's processor time in seconds.
    """

    connections: int = 0
    full: int = 0
    resumed: int = 0
    posts: int = 0
    busiest: int = 0
    seconds: float = 0.0
    cpu: float = 0.0


class RunningReceiver:
    """A receiver in its own process.

    :ivar url: the address for POSTs.
    :ivar ca: the file with the certificate of its authority, if it speaks TLS.
    """

    def __init__(self, process: subprocess.Popen[str], url: str, ca: str | None) -> None:
        self._process = process
        self.url = url
        self.ca = ca

    def take_counts(self) -> Counts:
        """Return the counts since the last call."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Counts(**json.loads(self._process.stdout.readline()))


@contextlib.contextmanager
def receiving(delay: float = 0.0, *, tls: bool = False, at_once: int = 0) -> Iterator[RunningReceiver]:
    """Run a receiver until the end of the block. It answers after ``delay`` seconds.

    :param at_once: how many requests it processes at once; 0 for no limit.
    """
    with contextlib.ExitStack() as cleanup:
        folder = [cleanup.enter_context(tempfile.TemporaryDirectory())] if tls else []
        process, url = cleanup.enter_context(own_process("receiver.py", str(delay), str(at_once), *folder))
        yield RunningReceiver(process, url, str(Path(folder[0]) / "ca.pem") if tls else None)


class Desk:
    """Processes requests. Each one takes a time, and some of them run at once.

    :param delay: how many seconds a request takes.
    :param at_once: how many requests are processed at once; 0 for no limit.
    """

    def __init__(self, delay: float, at_once: int) -> None:
        self.counts = Counts()
        self._delay, self._at_once = delay, at_once
        self._busy = 0
        self._waiting = deque[Callable[[], object]]()
        self._span = BusiestSpan()
        self._first = 0.0
        self._loop = asyncio.get_running_loop()

    def take(self, answer: Callable[[], object]) -> None:
        """Count a request, and call ``answer`` when it is done."""
        self._count()
        if not self._delay:
            answer()
        elif self._at_once and self._busy >= self._at_once:
            self._waiting.append(answer)
        else:
            self._begin(answer)

    def _begin(self, answer: Callable[[], object]) -> None:
        self._busy += 1
        self._loop.call_later(self._delay, self._end, answer)

    def _end(self, answer: Callable[[], object]) -> None:
        self._busy -= 1
        answer()
        if self._waiting:
            self._begin(self._waiting.popleft())

    def _count(self) -> None:
        now = self._loop.time()
        counts = self.counts
        if not counts.posts:
            self._first = now
            self._span = BusiestSpan()
        self._span.add(now)
        counts.posts, counts.busiest = self._span.count, self._span.most
        counts.seconds = now - self._first


class Connection(asyncio.Protocol):
    """One connection. It only parses where a request ends."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._counts = desk.counts
        self._received = b""
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: Any) -> None:
        self._counts.connections += 1
        self._transport = transport
        self._active_at = self._loop.time()
        self._timer = self._loop.call_later(IDLE, self._end_if_idle)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 — asyncio's signature
        self._timer.cancel()

    def _end_if_idle(self) -> None:
        left = self._active_at + IDLE - self._loop.time()
        if left <= 0:
            self._end()
        else:  # one timer a connection, not one a request
            self._timer = self._loop.call_later(left, self._end_if_idle)

    def data_received(self, data: bytes) -> None:
        self._active_at = self._loop.time()
        received = self._received + data if self._received else data
        while (end := received.find(b"\r\n\r\n")) >= 0:
            head = received[:end].lower()
            _, found, length = head.partition(b"\r\ncontent-length:")
            end += 4 + (int(length.partition(b"\r\n")[0]) if found else 0)
            if len(received) < end:
                break
            received = received[end:]
            is_last = b"\r\nconnection: close" in head
            self._desk.take(partial(self._answer, is_last))
        self._received = received

    def _answer(self, is_last: bool) -> None:
        if self._transport.is_closing():
            return
        self._send(LAST_ANSWER if is_last else ANSWER)
        if is_last:
            self._end()

    def _send(self, data: bytes) -> None:
        self._transport.write(data)

    def _end(self) -> None:
        self._transport.close()


class TlsConnection(Connection):
    """One connection with TLS.

    It does not use asyncio's TLS, which waits for the sender's end of TLS before it closes. nginx doesn't.
    """

    def __init__(self, desk: Desk, context: ssl.SSLContext) -> None:
        super().__init__(desk)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_established = False

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        try:
            if not self._is_established:
                self._tls.do_handshake()
                self._is_established = True
                self._counts.resumed += bool(self._tls.session_reused)
                self._counts.full += not self._tls.session_reused
                self._flush()  # the tickets by which sessions are resumed
            while not self._transport.is_closing() and (received := self._tls.read(65_536)):
                super().data_received(received)
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError:
            self._flush()  # the alert
            self._transport.close()
        else:
            self._end()

    def _send(self, data: bytes) -> None:
        self._tls.write(data)
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending and not self._transport.is_closing():
            self._transport.write(self._outgoing.read())

    def _end(self) -> None:
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()  # says that this side has ended
        self._flush()
        self._transport.close()


def server_context(folder: Path) -> ssl.SSLContext:
    """Return the TLS settings of the receiver. The certificate of its authority is put into the folder."""
    sys.path.append(str(Path(__file__).parent.parent / "tests"))
    from certificates import Authority

    return Authority(folder).server()


async def serve(delay: float, at_once: int, context: ssl.SSLContext | None) -> None:
    desk = Desk(delay, at_once)
    counts = desk.counts
    cpu = time.process_time()
    loop = asyncio.get_running_loop()

    def print_counts() -> None:
        nonlocal cpu
        now = time.process_time()
        counts.cpu, cpu = now - cpu, now
        print(json.dumps(asdict(counts)), flush=True)
        vars(counts).update(asdict(Counts()))

    def connection() -> Connection:
        return TlsConnection(desk, context) if context is not None else Connection(desk)

    server = await loop.create_server(connection, "127.0.0.1", backlog=1024)
    scheme = "http" if context is None else "https"
    print(f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook", flush=True)
    await is_left(print_counts)
    server.close()


def main(delay: str = "0", at_once: str = "0", *folder: str) -> None:
    run(serve(float(delay), int(at_once), server_context(Path(folder[0])) if folder else None))


if __name__ == "__main__":
    main(*sys.argv[1:])
