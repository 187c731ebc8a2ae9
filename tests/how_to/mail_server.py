"""A mail server that keeps the mails that it gets."""

from __future__ import annotations

import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

__all__ = ["MailServer", "mail_server"]


class MailServer(socketserver.ThreadingTCPServer):
    """Listens on a free port of this machine.

    :ivar mails: each mail as it came, headers and body.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.mails: list[str] = []

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])


class _Session(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self._say("220 here")
        for line in self.rfile:
            verb = line[:4].upper().strip()
            if verb == b"DATA":
                self._say("354 go on")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.mails.append(b"".join(lines).decode())
            self._say("221 bye" if verb == b"QUIT" else "250 here")
            if verb == b"QUIT":
                break

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@contextmanager
def mail_server() -> Iterator[MailServer]:
    """Run a mail server until the end of the block."""
    with MailServer() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
