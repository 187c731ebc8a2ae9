"""A reverse proxy that serves an Airflow below a path, as nginx does by ``location /airflow/``."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

__all__ = ["reverse_proxy"]

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-connection"}
"""Headers that are for one connection, and not passed on."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _forward(self) -> None:
        if not self.path.startswith(f"{self.server.prefix}/"):
            self.send_error(404, "another application's")
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        upstream = http.client.HTTPConnection(urlsplit(self.server.upstream).netloc, timeout=60)
        try:
            # The browser's Host goes on, like nginx's "proxy_set_header Host $http_host".
            headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
            headers |= {"X-Forwarded-Proto": "http", "X-Forwarded-For": self.client_address[0]}
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        self.send_response(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP | {"content-length", "date", "server"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _forward  # noqa: N815 — http.server's

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, prefix: str, upstream: str) -> None:
        self.prefix, self.upstream = prefix, upstream
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, *_: object) -> None:
        """Say nothing: a browser that leaves a page ends its connections."""


@contextmanager
def reverse_proxy(port: int, prefix: str, upstream: str) -> Iterator[None]:
    """Serve on a port what is below a prefix; the path goes on as it is.

    :param prefix: such as ``/airflow``.
    :param upstream: the address that it is passed on to, without a path.
    """
    server = _Server(port, prefix, upstream)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
