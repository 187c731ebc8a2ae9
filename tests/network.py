"""Stand-ins for the network beyond this machine: names, a proxy's tunnel, a record of dialled addresses."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

__all__ = ["NameService", "dialled_addresses", "tunnel"]


class NameService:
    """Answers look-ups of its names, and passes others on to the system.

    :param names: the addresses of each name; a list of lists has one list for each look-up.
    :ivar asked: which of these names were looked up, in order.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, names: dict[str, Any]) -> None:
        self._look_up = socket.getaddrinfo
        self._names = names
        self.asked: list[str] = []
        monkeypatch.setattr(socket, "getaddrinfo", self._answer)

    def _answer(self, host: Any, *arguments: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in self._names:
            return self._look_up(host, *arguments, **more)
        answers = self._names[name]
        if isinstance(answers[0], list):
            answers = answers[min(self.asked.count(name), len(answers) - 1)]
        self.asked.append(name)
        return [found for address in answers for found in self._look_up(address, *arguments, **more)]


def dialled_addresses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the addresses that are dialled, in order. Only loopback addresses can be reached."""
    dialled: list[str] = []
    connect = socket.socket.connect

    def record(self: socket.socket, address: Any) -> None:
        dialled.append(address[0])
        if not address[0].removeprefix("::ffff:").startswith(("127.", "0.", "::1")):
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", record)
    return dialled


def tunnel(port: int) -> list[bytes | Callable[[socket.socket], None]]:
    """Return the steps of a proxy whose tunnel always leads to a port of 127.0.0.1.

    It passes on everything from both sides: bytes, the end, a reset.
    """

    def relay(client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as server, contextlib.suppress(OSError):
            other = {client: server, server: client}  # of those that may still say something
            while other:
                ready, _, _ = select.select(list(other), [], [], 5)
                if not ready:
                    return
                for one in ready:
                    try:
                        data = one.recv(65536)
                    except ConnectionResetError:
                        for end in (client, server):
                            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        return
                    if data:
                        other[one].sendall(data)
                    else:
                        other.pop(one).shutdown(socket.SHUT_WR)

    return [b"HTTP/1.1 200 Connected\r\n\r\n", relay]
