"""The sandbox on a port: in a thread, for tests and for the command."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from airflow_insightly_hooks.core import exact_json
from airflow_insightly_hooks.sandbox.app import create_app
from airflow_insightly_hooks.sandbox.http.middleware import API_KEY, API_PATH

__all__ = ["RunningSandbox", "running_sandbox"]

MAX_HEAD = 64 * 1024
"""How many bytes a request line and headers may have. It is the limit of h11, uvicorn's other parser."""
START_TIMEOUT = 10.0
"""How many seconds a server may take until it listens."""


class RunningSandbox:
    """A sandbox that listens on a port.

    :ivar url: its address, such as ``http://127.0.0.1:8765``.
    :ivar api_url: the base URL of its API, which is the host of an ``insightly`` connection.
    :ivar api_key: the key of its API, which is the password of an ``insightly`` connection.
    """

    api_key = API_KEY

    def __init__(
        self, host: str, port: int, clock: Callable[[], float], allowed_hosts: Iterable[str] = ()
    ) -> None:
        self._socket = _listening_socket(host, port)
        self._host, self._port = self._socket.getsockname()[:2]
        self.url = f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"
        self.api_url = f"{self.url}{API_PATH}"
        config = uvicorn.Config(
            create_app(clock, hosts=[host, *allowed_hosts]),
            http=_HeadLimitProtocol,
            log_config=None,
            access_log=False,
            loop="asyncio",
            ws="none",
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            date_header=False,  # the sandbox sends the time of its own clock
            timeout_keep_alive=60,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._run, name="insightly-sandbox", daemon=True)
        self._thread.start()
        if not self._server.listening.wait(START_TIMEOUT):
            self.stop()
            raise TimeoutError(f"the sandbox does not listen after {START_TIMEOUT:g} s; start it again")

    def stop(self) -> None:
        """Stop listening, and wait until all connections are closed. A second call does nothing."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def bin_url(self, name: str) -> str:
        """Return the URL of the request bin with this name."""
        return f"{self.url}/bin/{quote(name)}"

    def received(self, name: str) -> list[dict[str, Any]]:
        """Return the requests that the bin with this name has received, oldest first."""
        received: list[dict[str, Any]] = self._request("GET", f"/bin/{quote(name)}/requests")
        return received

    def answer_with(self, name: str, **answer: Any) -> None:
        """Set how the request bin with this name answers, for example ``status=503, times=2``."""
        self._request("PUT", f"/bin/{quote(name)}", answer)

    def configure(self, **settings: Any) -> dict[str, Any]:
        """Change settings such as ``clock_offset``, ``fault`` or ``webhook``. Return the sandbox's state."""
        state: dict[str, Any] = self._request("PUT", "/_sandbox", settings)
        return state

    def webhooks(self) -> list[dict[str, Any]]:
        """Return the numbers of the POSTs of each webhook in the setting ``webhook``.

        The numbers are ``acknowledged``, ``given_up``, ``attempts`` and ``pending``. Each item also has the
        webhook's ``uri`` and ``record_type``.
        """
        counts: list[dict[str, Any]] = self._request("GET", "/_sandbox")["webhooks"]
        return counts

    def reset(self) -> None:
        """Go back to the beginning: the seeded records, no bins, the default settings."""
        self._request("DELETE", "/_sandbox")

    def create(self, record_type: str, **fields: Any) -> dict[str, Any]:
        """Create a record, and return it. Any field can be set, also times and read-only fields."""
        record: dict[str, Any] = self._request("POST", f"/_sandbox/records/{record_type}", fields)
        return record

    def create_many(self, record_type: str, records: Iterable[Mapping[str, Any]]) -> list[int]:
        """Create many records like ``create``, in one request, and return their ids."""
        path = f"/_sandbox/records/{record_type}?answer=ids"
        ids: list[int] = self._request("POST", path, [dict(fields) for fields in records])
        return ids

    def history(self, since: int = 0) -> list[dict[str, Any]]:
        """Return the changes of records after the change with this number, oldest first."""
        changes: list[dict[str, Any]] = self._request("GET", f"/_sandbox/history?since={since}")
        return changes

    def update(self, record_type: str, record_id: int, **fields: Any) -> dict[str, Any]:
        """Change a record, and return it. Any field can be set, also times and read-only fields."""
        record: dict[str, Any] = self._request("PUT", f"/_sandbox/records/{record_type}/{record_id}", fields)
        return record

    def delete(self, record_type: str, record_id: int) -> None:
        """Delete a record, also of a type that the API can't delete."""
        self._request("DELETE", f"/_sandbox/records/{record_type}/{record_id}")

    def now(self) -> datetime:
        """Return the time by the sandbox's clock, in UTC."""
        state = self._request("GET", "/_sandbox")
        return datetime.fromisoformat(str(state["clock"]["now"]))

    def advance(self, **duration: float) -> None:
        """Put the sandbox's clock forward, such as ``advance(days=3)``, by the arguments of ``timedelta``."""
        state = self._request("GET", "/_sandbox")
        self.configure(clock_offset=state["clock"]["clock_offset"] + timedelta(**duration).total_seconds())

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))

    def _request(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=120)
        try:
            connection.request(method, path, None if body is None else exact_json.dumps(body))
            response = connection.getresponse()
            content = response.read()
            answer: Any = exact_json.loads(content, exact=False) if content else None
        finally:
            connection.close()
        if response.status >= 400:
            raise ValueError(f"{method} {path}: {answer['Message']}")
        return answer


@contextmanager
def running_sandbox(
    port: int = 0,
    *,
    host: str = "127.0.0.1",
    clock: Callable[[], float] = time.time,
    allowed_hosts: Iterable[str] = (),
) -> Iterator[RunningSandbox]:
    """Run a sandbox in a thread of this process, and stop it at the end.

    :param port: the port to listen on; 0 chooses a free one.
    :param host: the address to listen on.
    :param clock: the sandbox's time, in seconds since 1970.
    :param allowed_hosts: further names that requests may be addressed to, such as a container's.
    :raises OSError: if the port is in use.
    """
    sandbox = RunningSandbox(host, port, clock, allowed_hosts)
    try:
        yield sandbox
    finally:
        sandbox.stop()


class _HeadLimitProtocol(HttpToolsProtocol):
    """Closes the connection if a head is longer than ``MAX_HEAD``. httptools itself has no limit."""

    _is_in_head = False
    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Parse the received data."""
        super().data_received(data)
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD and not self.transport.is_closing():
                self.send_400_response("The request's head is too large.")

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        self._is_in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        """Stop counting. Data that was received with the head's end is in memory already."""
        self._is_in_head = False
        super().on_headers_complete()


class _Server(uvicorn.Server):
    """A server whose event ``listening`` is set once it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


def _listening_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, backlog=2048)
    # Connections inherit this option. asyncio doesn't set it for sockets without an explicit protocol. The
    # end of an answer would then wait 40 ms for the client to acknowledge the beginning.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
