"""A receiver on a real socket that keeps its connections open. A function controls each connection.

The function gets a ``Link``, its end of the connection. It reads POSTs, answers them, sends too much, and
ends the connection as a test needs it. What has come is noted, with the connection that it came on.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from tests.servers import Request, accepting

__all__ = ["OK", "Link", "Moment", "Post", "Receiver", "Script", "answer_all", "receiving"]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
"""A whole answer that leaves the connection open; as a duplicate, one too many."""
LONGEST = 5.0
"""Seconds that one step of a script may wait for the other side."""


@dataclass
class Post:
    """A POST that was read.

    :ivar connection: the number of its connection, from 0.
    :ivar closes: whether it has the header ``Connection: close``.
    :ivar at: when it was read, by the monotonic clock.
    :ivar is_taken: whether it was answered with a 2xx that was meant for it.
    """

    message: str
    connection: int
    closes: bool
    body: bytes
    at: float
    is_taken: bool = False


@dataclass
class Receiver:
    """The POSTs and connections of a receiver.

    :ivar posts: the POSTs that were read, in order.
    :ivar most_open: the highest number of connections that were open at once, with no side ending them.
    """

    port: int
    address: str
    scheme: str
    posts: list[Post] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    most_open: int = 0

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.address}:{self.port}"

    @property
    def messages(self) -> list[str]:
        return [post.message for post in self.posts]

    @property
    def counts(self) -> Counter[str]:
        """Return how often each message was read."""
        return Counter(self.messages)

    @property
    def taken(self) -> set[str]:
        """Return the messages that were truly acknowledged."""
        return {post.message for post in self.posts if post.is_taken}

    def on(self, connection: int) -> list[str]:
        """Return the messages that were read on a connection, in order."""
        return [post.message for post in self.posts if post.connection == connection]

    @property
    def by_connection(self) -> list[list[str]]:
        """Return the messages of each connection; one that carried none has an empty list."""
        return [self.on(link.number) for link in self.links]

    @property
    def open_connections(self) -> int:
        return sum(link.is_open for link in self.links)


class Link:
    """The receiver's end of one connection.

    :ivar is_resumed: whether it resumes the TLS session of an earlier connection.
    """

    def __init__(self, receiver: Receiver, connection: socket.socket, stopped: threading.Event) -> None:
        self.number = len(receiver.links)
        self.is_resumed = False
        self._receiver, self._stopped = receiver, stopped
        self._socket = connection
        self._socket.settimeout(LONGEST)
        self._received = b""
        self._is_ending = False

    def begin_tls(self, context: ssl.SSLContext) -> None:
        self._socket = context.wrap_socket(self._socket, server_side=True)
        self.is_resumed = bool(self._socket.session_reused)

    @property
    def is_open(self) -> bool:
        """Whether neither side has ended the connection, or begun to."""
        if self._is_ending:
            return False
        poll = select.poll()
        try:
            poll.register(self._socket, select.POLLRDHUP)
        except ValueError:
            return False
        return not poll.poll(0)

    # --- reading -----------------------------------------------------------------------------------------

    def read(self) -> Post | None:
        """Read one more POST; return ``None`` if the connection ends, or breaks, before it is whole."""
        found = self._read_head()
        if found is None:
            return None
        request, rest = found
        length = int(request.headers.get("content-length", 0))
        while len(rest) < length:
            piece = self._piece()
            if not piece:
                return None
            rest += piece
        self._received = rest[length:]
        return self._note(request, rest[:length])

    def read_head(self) -> Post | None:
        """Read no more of a POST than its headers and what came with them."""
        found = self._read_head()
        return None if found is None else self._note(found[0], b"")

    def _read_head(self) -> tuple[Request, bytes] | None:
        received, self._received = self._received, b""
        while b"\r\n\r\n" not in received:
            piece = self._piece()
            if not piece:
                return None
            received += piece
        head, _, rest = received.partition(b"\r\n\r\n")
        return Request(head, b""), rest

    def _piece(self) -> bytes:
        with contextlib.suppress(OSError):
            return self._socket.recv(65536)
        return b""

    def _note(self, request: Request, body: bytes) -> Post:
        headers = request.headers
        closes = headers.get("connection", "").lower() == "close"
        post = Post(headers["webhook-id"], self.number, closes, body, time.monotonic())
        self._receiver.posts.append(post)
        return post

    def wait_for_bytes(self) -> None:
        """Wait until something can be read, and leave it where it is."""
        select.select([self._socket], [], [], LONGEST)

    def wait_for_end(self, seconds: float = LONGEST) -> bool:
        """Read and drop bytes until the other side ends the connection. Return whether it does in time."""
        end = time.monotonic() + seconds
        with contextlib.suppress(OSError):
            while not self._stopped.is_set() and (left := end - time.monotonic()) > 0:
                self._socket.settimeout(min(left, 0.05))
                with contextlib.suppress(TimeoutError, ssl.SSLWantReadError):
                    if not self._socket.recv(65536):
                        return True
            return False
        return True

    def hold(self) -> None:
        """Leave the connection as it is until the test ends."""
        self._stopped.wait(2 * LONGEST)

    # --- answering ---------------------------------------------------------------------------------------

    def answer(
        self,
        post: Post | None,
        status: int = 200,
        *headers: str,
        version: str = "1.1",
        heeds_close: bool = True,
        then: bytes = b"",
    ) -> None:
        """Answer a POST, if there is one.

        :param heeds_close: whether to end the connection, and say so, if the POST asks for it.
        :param then: bytes that go out with the answer, after it.
        """
        if post is None:
            return
        is_last = post.closes and heeds_close
        self._is_ending = self._is_ending or is_last
        post.is_taken = 200 <= status < 300
        lines = [f"HTTP/{version} {status} X", *headers, *(["Connection: close"] if is_last else [])]
        self.send("\r\n".join([*lines, "Content-Length: 0", "", ""]).encode() + then)

    def send(self, data: bytes) -> None:
        """Send bytes, even if the other side is gone."""
        with contextlib.suppress(OSError):
            self._socket.sendall(data)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Send everything in the block, and the end of the connection, in one segment."""
        self._cork(1)
        try:
            yield
        finally:
            self._cork(0)

    def _cork(self, is_on: int) -> None:
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, is_on)

    # --- ending ------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Send the end of what is sent (FIN; with TLS, its own before that). Reading goes on."""
        self._is_ending = True
        with contextlib.suppress(OSError, ValueError):
            if isinstance(self._socket, ssl.SSLSocket):
                self._socket.settimeout(0)
                with contextlib.suppress(OSError, ValueError):
                    self._socket.unwrap()
                self._socket.settimeout(LONGEST)
            socket.socket.shutdown(self._socket, socket.SHUT_WR)

    def close(self) -> None:
        """Close the connection. The system answers later bytes with a reset."""
        self._is_ending = True
        self._socket.close()

    def reset(self) -> None:
        """Break the connection (RST)."""
        self._is_ending = True
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def end(self) -> None:
        """End the connection as a well-behaved server does, unless it has ended."""
        if self._socket.fileno() != -1:
            self.finish()
            self.wait_for_end(1)
            self._socket.close()


Script = Callable[[Link], None]


def answer_all(link: Link) -> None:
    """Answer each POST with a 200, until one asks to close, or the connection ends."""
    while post := link.read():
        link.answer(post)
        if post.closes:
            return


@contextmanager
def receiving(
    *scripts: Script,
    default: Script = answer_all,
    tls: ssl.SSLContext | None = None,
    address: str = "127.0.0.1",
    port: int = 0,
    window: int | None = None,
) -> Iterator[Receiver]:
    """Run a receiver until the end of the block.

    :param scripts: functions for the first connection, the second one, and so on. A connection is ended well
        when its script is through.
    :param default: the function for all later connections.
    :param tls: speak TLS with these settings.
    :param port: at which port; 0 finds a free one.
    :param window: about how many unread bytes the system accepts.
    """
    listener = socket.create_server((address, port), backlog=128)
    if window is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    receiver = Receiver(listener.getsockname()[1], address, "http" if tls is None else "https")
    stopped = threading.Event()

    def accepted(connection: socket.socket) -> Callable[[], None]:
        link = Link(receiver, connection, stopped)
        receiver.links.append(link)
        receiver.most_open = max(receiver.most_open, receiver.open_connections)
        return partial(serve, link)

    def serve(link: Link) -> None:
        try:
            with contextlib.suppress(OSError):
                if tls is not None:
                    link.begin_tls(tls)
                (scripts[link.number] if link.number < len(scripts) else default)(link)
        finally:
            link.end()

    with accepting(listener, accepted, stopped):
        yield receiver


class Moment:
    """The moment just before a client hands the POST of a message to its socket, for the first time.

    The client is held there while a script is in the block: ``with moment: link.close()``.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, message: str) -> None:
        self._header = f"webhook-id: {message}\r\n".encode()
        self._reached, self._passed = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        for owner, name in ((socket.socket, "send"), (socket.socket, "sendall"), (ssl.SSLSocket, "send")):
            monkeypatch.setattr(owner, name, self._held(getattr(owner, name)))

    def _held(self, send: Callable[..., Any]) -> Callable[..., Any]:
        def held(connection: socket.socket, data: Any, *more: Any) -> Any:
            if self._header in bytes(data[:16384]).lower():
                with self._lock:
                    is_first = not self._reached.is_set()
                    self._reached.set()
                if is_first:
                    self._passed.wait(LONGEST)
            return send(connection, data, *more)

        return held

    def __enter__(self) -> None:
        assert self._reached.wait(LONGEST), "the message is not sent"

    def __exit__(self, *_: object) -> None:
        self._passed.set()
