"""A TCP relay in front of a message broker, so that a test can take the broker away and bring it back."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

__all__ = ["BrokerRelay", "broker_relay"]

PIECE = 65_536


class BrokerRelay:
    """Forwards connections from a free port of 127.0.0.1 to another one.

    :ivar port: the port that clients connect to. It stays the same while the relay is cut.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.port = 0
        self.restore()

    def cut(self) -> None:
        """Break all connections, and refuse new ones, until ``restore``."""
        with self._lock:
            listener, self._listener = self._listener, None
            connections, self._connections = self._connections, set()
        if listener is not None:
            # If the socket were only closed, the thread would stay in accept(), and the port would stay open.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for connection in connections:
            _end(connection)

    def restore(self) -> None:
        """Take connections again, on the same port."""
        listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
        self.port = listener.getsockname()[1]
        with self._lock:
            self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                try:
                    broker = socket.create_connection(("127.0.0.1", self._target_port), timeout=5)
                except OSError:
                    client.close()
                    continue
                broker.settimeout(None)
                with self._lock:
                    is_cut = self._listener is not listener
                    if not is_cut:
                        self._connections |= {client, broker}
                if is_cut:
                    _end(client)
                    _end(broker)
                    return
                for source, sink in ((client, broker), (broker, client)):
                    threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE):
                sink.sendall(piece)
        # A broker's client never closes only one direction. So the end of one side is the end of both.
        for connection in (source, sink):
            _end(connection)
            with self._lock:
                self._connections.discard(connection)


@contextlib.contextmanager
def broker_relay(target_port: int) -> Iterator[BrokerRelay]:
    """Run a relay to a port of 127.0.0.1 until the end of the block."""
    relay = BrokerRelay(target_port)
    try:
        yield relay
    finally:
        relay.cut()


def _end(connection: socket.socket) -> None:
    # If the socket were only closed, the reading thread would not wake up.
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
