"""The parts of the end-to-end tests' stacks work."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import celery_stack
import psutil
import pytest
from broker_relay import BrokerRelay, broker_relay
from postgresql import NoServerError

from airflow_insightly_hooks.demo.airflow_stack import Processes, free_port, wait_for


@pytest.fixture
def relay() -> Iterator[BrokerRelay]:
    """A relay to a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_echo_all, args=(server,), daemon=True).start()
        with broker_relay(server.getsockname()[1]) as started:
            yield started
        server.shutdown(socket.SHUT_RDWR)


def _echo_all(server: socket.socket) -> None:
    def echo(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while piece := connection.recv(100):
                connection.sendall(piece)

    with contextlib.suppress(OSError):
        while True:
            threading.Thread(target=echo, args=(server.accept()[0],), daemon=True).start()


def connect(relay: BrokerRelay) -> socket.socket:
    return socket.create_connection(("127.0.0.1", relay.port), timeout=5)


def answer(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    return connection.recv(100)


def test_a_relay_forwards_in_both_directions(relay: BrokerRelay) -> None:
    """Bytes that are sent come back, on several connections."""
    with connect(relay) as first, connect(relay) as second:
        assert (answer(first, b"one"), answer(second, b"two")) == (b"one", b"two")


def test_a_cut_relay_breaks_and_refuses(relay: BrokerRelay) -> None:
    """A cut ends open connections and refuses new ones. Afterwards the same port works again."""
    with connect(relay) as connection:
        assert answer(connection, b"before") == b"before"
        port = relay.port
        relay.cut()
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(100) == b""
    with pytest.raises(ConnectionRefusedError):
        connect(relay)
    relay.restore()
    assert relay.port == port
    with connect(relay) as connection:
        assert answer(connection, b"after") == b"after"


def test_a_session_is_killed_with_all_that_it_has_started(tmp_path: Path) -> None:
    """Children in process groups of their own die, too, as Airflow's tasks are; other processes don't."""
    child = "import os, time; os.setpgid(0, 0); print(os.getpid(), flush=True); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    processes = Processes(tmp_path)
    for name in ("killed", "spared"):
        processes.start(name, [sys.executable, "-c", parent], {}, cwd=tmp_path)
    try:
        pids = {
            name: int(wait_for(name, (tmp_path / f"{name}.log").read_text, 20))
            for name in ("killed", "spared")
        }
        started = time.monotonic()
        processes.kill_session("killed")
        assert time.monotonic() - started < 5
        assert not is_alive(pids["killed"])
        assert is_alive(pids["spared"])
        assert "killed" not in processes
    finally:
        processes.stop()
    assert not is_alive(pids["spared"])


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@contextlib.contextmanager
def no_postgresql() -> Iterator[str]:
    raise NoServerError("no PostgreSQL answers")
    yield ""


def test_a_server_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PostgreSQL or Redis, the skipped tests with Celery workers say which one is missing."""
    port = free_port()
    monkeypatch.setattr(celery_stack, "REDIS_PORT", port)
    monkeypatch.setattr(celery_stack, "temporary_database", contextlib.nullcontext)
    assert celery_stack.reason_to_skip() == f"no Redis answers on 127.0.0.1:{port}"
    monkeypatch.setattr(celery_stack, "temporary_database", no_postgresql)
    assert celery_stack.reason_to_skip() == "no PostgreSQL answers"
