"""The benchmarks measure what they say: the deliveries' network is one, and webhooks are webhooks."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
LAST = b"POST /hook HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_contestants() -> None:
    """The engine and the loops deliver all payloads to the benchmark's receiver, fast or slow."""
    from contestants import by_engine, by_session, make_payloads
    from receiver import receiving

    payloads = make_payloads(20)
    with receiving() as fast, receiving(0.01) as slow:
        runs = [by_engine(fast.url, payloads), by_engine(slow.url, payloads, concurrency=4)]
        runs += [by_session(fast.url, payloads), by_session(fast.url, payloads, threads=2)]
    assert [run.posts for run in runs] == [20] * 4
    assert all(run.rate > 0 and run.cpu_a_post > 0 for run in runs)
    assert runs[1].wall >= 20 * 0.01 / 4


def test_a_receiver_at_its_limit() -> None:
    """It works on so many requests at once, and tells how many came in its busiest 10 s."""
    from contestants import by_engine, make_payloads
    from receiver import receiving

    with receiving(0.05, at_once=2) as receiver:
        run = by_engine(receiver.url, make_payloads(20), concurrency=8)
        counts = receiver.take_counts()
    assert run.wall >= 20 * 0.05 / 2
    assert (counts.posts, counts.busiest) == (20, 20)
    assert 0.2 < counts.seconds <= run.wall


def test_tls() -> None:
    """The receiver counts connections, handshakes and POSTs of contestants that speak TLS, each time anew."""
    from contestants import by_engine, by_session, make_payloads
    from receiver import receiving

    payloads = make_payloads(20)
    with receiving(tls=True) as receiver:
        by_session(receiver.url, payloads, 2, ca=receiver.ca)
        of_sessions = receiver.take_counts()
        by_engine(receiver.url, payloads, ca=receiver.ca)
        of_engine = receiver.take_counts()
        nothing = receiver.take_counts()
    assert (of_sessions.connections, of_sessions.full, of_sessions.resumed) == (2, 2, 0)
    assert of_sessions.posts == 20
    assert of_sessions.cpu > 0
    assert of_engine.posts >= 20
    assert of_engine.full + of_engine.resumed == of_engine.connections > 0
    assert (nothing.connections, nothing.full, nothing.posts) == (0, 0, 0)


def test_resumed_handshake() -> None:
    """A handshake that resumes a session is counted as such; the receiver ends what it is asked to end."""
    from receiver import receiving

    with receiving(tls=True) as receiver:
        address = ("127.0.0.1", urlsplit(receiver.url).port)
        context = ssl.create_default_context(cafile=receiver.ca)
        session = None
        for _ in range(2):
            with (
                socket.create_connection(address, timeout=5) as plain,
                context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as secured,
            ):
                secured.sendall(LAST)
                answer = b"".join(iter(lambda: secured.recv(1024), b""))
                session = secured.session
                assert answer.startswith(b"HTTP/1.1 204 ")
                assert b"\r\nConnection: close\r\n" in answer
        counts = receiver.take_counts()
    assert (counts.connections, counts.full, counts.resumed, counts.posts) == (2, 1, 1, 2)


def test_round_trips() -> None:
    """Through the proxy, connecting, TLS and each POST take a round trip, as they do on a network."""
    from contestants import by_session, make_payloads
    from delaying_proxy import delayed
    from receiver import receiving

    with receiving(tls=True) as receiver, delayed(receiver.url, 0.2) as url:
        walls = [by_session(url, make_payloads(number), ca=receiver.ca).wall for number in (1, 5)]
    assert 2.95 <= walls[0] / 0.2 < 5  # a busy machine adds to it
    assert 6.95 <= walls[1] / 0.2 < 10


def test_half_closed_connection() -> None:
    """The proxy forwards the end of each direction by itself, behind all bytes and as late as they are."""
    from delaying_proxy import delayed

    received = []

    def serve(listener: socket.socket) -> None:
        with listener.accept()[0] as connection:
            received.append(b"".join(iter(lambda: connection.recv(1024), b"")))
            connection.sendall(b"answer")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        with delayed(f"http://127.0.0.1:{listener.getsockname()[1]}/", 0.1) as url:
            started = time.perf_counter()
            with socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=5) as sender:
                sender.sendall(b"one ")
                time.sleep(0.01)
                sender.sendall(b"two")
                sender.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda: sender.recv(1024), b""))
            taken = time.perf_counter() - started
        server.join(5)
    assert received == [b"one two"]
    assert answer == b"answer"
    assert 1.95 <= taken / 0.1 < 4  # the first bytes wait for the connection's own round trip


def test_table() -> None:
    """What the table measures has a target each."""
    from delivery import TARGETS
    from delivery_table import by_distance

    measured = by_distance(repetitions=1, scale=0.01)
    assert len(measured) == 5
    assert measured.keys() <= TARGETS.keys()


def test_incoming_body() -> None:
    """What the benchmark of the endpoint sends is a webhook, of a record that has changed at that moment."""
    from incoming import body

    from airflow_insightly_hooks.core.incoming.received_entity import read_entity

    moment = time.time()
    entity = read_entity(body(moment))
    assert entity.record_type == "Contacts"
    assert entity.changed_at is not None
    assert entity.changed_at.timestamp() == int(moment)
