"""Servers on a real socket that do exactly what a test's script says.

A script is a list of steps: bytes are sent, a number is seconds to wait, ``READ`` reads one more request,
``CLOSE`` ends the connection and ``RESET`` breaks it; a function is called with the socket. It is played for
each connection, after the request has been read, and the connection is closed at its end.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

__all__ = [
    "CLOSE",
    "READ",
    "RESET",
    "Request",
    "Script",
    "Server",
    "accepting",
    "answer",
    "read_request",
    "repeat",
    "serving",
]

CLOSE, READ, RESET = "close", "read", "reset"
Script = Sequence[object]


@dataclass
class Request:
    """A request as it came over the wire."""

    head: bytes
    body: bytes

    @property
    def request_line(self) -> str:
        return self.head.split(b"\r\n")[0].decode("latin-1")

    @property
    def header_lines(self) -> list[tuple[str, str]]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers by name; no test sends one twice."""
        headers = dict(self.header_lines)
        assert len(headers) == len(self.header_lines), "a header was sent twice"
        return headers


def answer(status: str = "200 OK", *headers: str, body: bytes = b"") -> bytes:
    """Return a whole answer with ``Content-Length`` and ``Connection: close``."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


def repeat(piece: bytes, every: float, times: int) -> list[object]:
    """Return the steps of a server that sends ``piece`` again and again."""
    return [step for _ in range(times) for step in (piece, every)]


@dataclass
class Server:
    """A server that listens on a port of 127.0.0.1.

    :ivar requests: the requests that were read, in order.
    :ivar connections: how many were accepted.
    """

    port: int
    host: str = "127.0.0.1"
    scheme: str = "http"
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


@contextmanager
def serving(
    script: Script | Callable[[int], Script],
    *,
    reads: bool = True,
    tls: ssl.SSLContext | None = None,
    address: str = "127.0.0.1",
    port: int = 0,
) -> Iterator[Server]:
    """Run a server until the end of the block.

    :param script: the steps for each connection, or a function that returns them for the n-th one, from 0.
    :param reads: whether to read the request first; otherwise only the script reads.
    :param tls: speak TLS with these settings.
    :param address: where to listen; ``::1`` for IPv6.
    :param port: at which port; 0 finds a free one.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family, backlog=128)
    host = f"[{address}]" if ":" in address else address
    server = Server(listener.getsockname()[1], host, scheme="https" if tls else "http")
    stopped = threading.Event()

    def accepted(connection: socket.socket) -> Callable[[], None]:
        steps = script(server.connections) if callable(script) else script
        server.connections += 1
        return partial(serve, connection, steps)

    def serve(connection: socket.socket, steps: Script) -> None:
        connection.settimeout(10)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            if tls is not None:
                connection = tls.wrap_socket(connection, server_side=True)
            with contextlib.closing(connection):
                _play(connection, [READ, *steps] if reads else steps, server, stopped)

    with accepting(listener, accepted, stopped):
        yield server


@contextmanager
def accepting(
    listener: socket.socket,
    accepted: Callable[[socket.socket], Callable[[], None]],
    stopped: threading.Event,
) -> Iterator[None]:
    """Take connections until the end of the block, and serve each in a thread of its own.

    :param accepted: takes a connection and returns a function that serves it; called for each in turn.
    :param stopped: set at the end of the block; the threads have five seconds then.
    """
    listener.settimeout(0.02)
    threads: list[threading.Thread] = []

    def accept() -> None:
        while not stopped.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            threads.append(threading.Thread(target=accepted(connection), daemon=True))
            threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield
    finally:
        stopped.set()
        acceptor.join()
        listener.close()
        for thread in threads:
            thread.join(5)


def _play(connection: socket.socket, steps: Script, server: Server, stopped: threading.Event) -> None:
    for step in steps:
        if step == CLOSE:
            return
        if step == READ:
            request = read_request(connection)
            if request is None:
                return
            server.requests.append(request)
            continue
        if step == RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        if isinstance(step, bytes):
            connection.sendall(step)
        elif isinstance(step, int | float):
            if stopped.wait(step):
                return
        elif callable(step):
            step(connection)
        else:
            raise TypeError(step)


def read_request(connection: socket.socket) -> Request | None:
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        if not piece:
            return None
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(Request(head, b"").headers.get("content-length", 0))
    while len(body) < length:
        piece = connection.recv(65536)
        if not piece:
            return None
        body += piece
    return Request(head, body)
