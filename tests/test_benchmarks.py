"""The benchmarks measure what they say: their network has round trips, and their webhooks are real."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
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
    """It works on a limited number of requests at once, and counts the requests of its busiest 10 s."""
    from contestants import by_engine, make_payloads
    from receiver import receiving

    with receiving(0.05, at_once=2) as receiver:
        run = by_engine(receiver.url, make_payloads(20), concurrency=8)
        counts = receiver.take_counts()
    assert run.wall >= 20 * 0.05 / 2
    assert (counts.posts, counts.busiest) == (20, 20)
    assert 0.2 < counts.seconds <= run.wall


def test_busiest_span() -> None:
    """The busiest span is the 10 s with the most requests. A request leaves the span 10 s after it came."""
    from busiest_span import BusiestSpan

    span = BusiestSpan()
    for second in (0.0, 1.0, 9.9, 10.0, 11.5, 40.0):
        span.add(second)
    assert (span.count, span.most) == (6, 3)


def test_tls() -> None:
    """The receiver counts connections, handshakes and POSTs of contestants with TLS, from 0 each time."""
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
    """Handshakes that resume a session are counted separately. The receiver ends connections on request."""
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
    """The proxy forwards the end of each direction separately, after all bytes and with their delay."""
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


@pytest.mark.slow
def test_table() -> None:
    """Each measurement of the table has a target."""
    from delivery import TARGETS
    from delivery_table import by_distance

    measured = by_distance(repetitions=1, scale=0.01)
    assert len(measured) == 5
    assert measured.keys() <= TARGETS.keys()


def test_incoming_body() -> None:
    """The benchmark of the endpoint sends webhooks about a record that has just changed."""
    from incoming import body

    from airflow_insightly_hooks.core.incoming.received_entity import read_entity

    moment = time.time()
    entity = read_entity(body(moment))
    assert entity.record_type == "Contacts"
    assert entity.changed_at is not None
    assert entity.changed_at.timestamp() == int(moment)


def _soaked(rule, journal, posts, readings=(), after=0.0):
    """Return the result of the soak's check for some changes and POSTs of contacts."""
    from soak_checks import Expected, check
    from soak_receiver import Post

    expected = Expected("desk", "contacts", "Contacts", rule, after)
    received = [
        Post(at, "desk", status, message_id, record, number)
        for at, status, message_id, record, number in posts
    ]
    (result,) = check(journal, received, [expected], {"contacts": list(readings)})
    return result


def _changed(number, record, what, at, rating=0):
    from soak_crm import Change

    updated = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))
    return Change(number, "Contacts", record, what, updated, at, rating)


def test_soak_finds_what_is_lost() -> None:
    """A change that was read and did not arrive is missing. A change that could no longer be read is not."""
    from soak_checks import Reading

    journal = [
        _changed(1, 7, "created", 100.5),
        _changed(2, 7, "updated", 120.5),
        _changed(3, 7, "updated", 130),
    ]
    posts = [(135.0, 204, "msg_c", 7, 3)]
    read_between, read_once = [Reading(105, 106), Reading(125, 126)], [Reading(140, 141)]
    assert _soaked("each", journal, posts, read_between).missing == 2
    assert _soaked("each", journal, posts, read_once).missing == 0
    assert _soaked("each", journal, posts, read_once).superseded == 2
    assert _soaked("each", journal, [], read_once).missing == 1
    assert _soaked("each", [*journal, _changed(4, 7, "deleted", 139)], [], read_once).missing == 0
    assert _soaked("each", journal, [(135.0, 503, "msg_c", 7, 3)], read_once).missing == 1


def test_soak_finds_what_nobody_changed() -> None:
    """A POST of another record's change, a change under two ids, and a POST of no change are problems."""
    journal = [_changed(1, 7, "updated", 100), _changed(2, 8, "updated", 100)]
    good = [(110.0, 204, "msg_a", 7, 1), (110.0, 204, "msg_b", 8, 2)]
    assert not _soaked("each", journal, good).problems
    assert _soaked("each", journal, [*good, good[0]]).again == 1
    for bad in ((111.0, 204, "msg_a", 8, 1), (111.0, 204, "msg_c", 7, 1), (111.0, 204, "msg_a", 7, -1)):
        assert len(_soaked("each", journal, [*good, bad]).problems) == 1


def test_soak_of_criteria() -> None:
    """A record that triggers once does so at the first readable state that meets the criteria."""
    from soak_checks import Reading

    journal = [
        _changed(1, 7, "created", 100, 2),
        _changed(2, 7, "updated", 120, 5),
        _changed(3, 7, "updated", 140, 4),
    ]
    readings = [Reading(110, 111), Reading(130, 131), Reading(150, 151)]
    first, second = (135.0, 204, "msg_a", 7, 2), (155.0, 204, "msg_b", 7, 3)
    assert not _soaked("once", journal, [first], readings).problems
    assert _soaked("once", journal, [first], readings).triggered_before == 1
    assert _soaked("once", journal, [second], readings).missing == 1
    assert _soaked("once", journal, [first, second], readings).problems == ["triggered twice: record 7"]
    assert len(_soaked("once", journal, [first, (136.0, 204, "msg_a", 7, 1)], readings).problems) == 1


def test_soak_of_time_triggers() -> None:
    """A record arrives at its time, in its state at that time, unless it was deleted before."""
    created, edited = _changed(1, 7, "created", 100), _changed(2, 7, "updated", 130)
    sent = (165.0, 204, "msg_a", 7, 2)
    assert not _soaked("later", [created, edited], [sent], after=60).problems
    assert len(_soaked("later", [created, edited], [(150.0, *sent[1:])], after=60).problems) == 1
    assert _soaked("later", [created, edited], [], after=60).missing == 1
    assert _soaked("later", [created, _changed(2, 7, "deleted", 130)], [], after=60).not_due == 1


def test_soak_receivers(tmp_path: Path) -> None:
    """A receiver records each POST, answers as configured, and restarts on its port."""
    import requests
    from soak_receiver import NO_NUMBER, posts_in, receivers

    def post(url: str, body: str) -> int | None:
        try:
            return requests.post(url, body, headers={"webhook-id": "msg_a"}, timeout=5).status_code
        except requests.ConnectionError:
            return None

    def post_until(url: str, wanted: int | None) -> None:
        end = time.monotonic() + 10
        while post(url, "{}") != wanted:
            assert time.monotonic() < end

    with receivers(tmp_path / "posts", "desk", "other", in_a_thousand=0, delay=0) as running:
        url = running.urls["desk"]
        assert post(url, '{"entity": {"CONTACT_ID": 7, "TITLE": "soak-12"}}') == 204
        running.answer("desk", "503")
        post_until(url, 503)
        assert post(running.urls["other"], "{}") == 204
        running.answer("desk", "down")
        post_until(url, None)
        running.answer("desk", "ok")
        post_until(url, 204)
    posts = list(posts_in(tmp_path / "posts"))
    assert posts[0][1:] == ("desk", 204, "msg_a", 7, 12)
    assert (posts[-1].status, posts[-1].number) == (204, NO_NUMBER)
    assert {post.status for post in posts} == {204, 503}


def test_soak_day() -> None:
    """A day has two peaks and a quiet night. A fast day has as many changes as a slow one."""
    from soak_crm import AT_NIGHT, Day

    slow, fast = Day(24, 10, 5), Day(24, 100, 5)
    assert slow.rate(slow.at(10)) == pytest.approx(10 * 5, rel=0.02)
    assert slow.rate(slow.at(2)) / AT_NIGHT < slow.rate(slow.at(10)) / 50
    assert slow.seconds == slow.at(24) == pytest.approx(3600 / 10 * (12 + 12 / AT_NIGHT))
    for hour in (0, 3, 7, 12.5, 19, 23):
        assert slow.hour(slow.at(hour)) == pytest.approx(hour)
    assert slow.expected() == pytest.approx(fast.expected(), rel=0.02)


def test_soak_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process's memory during a soak is reported under the component that has started it."""
    import soak_measures

    elapsed = 0.0
    monkeypatch.setattr(soak_measures, "time", SimpleNamespace(monotonic=lambda: elapsed))
    code = "kept = [print(flush=True) or input() or bytearray(4_000_000) for _ in range(9)]"
    command = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        memory = soak_measures.Memory(lambda: {"grows": process.pid})
        for second in range(8):
            process.stdout.readline()  # it has taken what it was told to
            elapsed = second
            memory.sample()
            process.stdin.write("\n")
            process.stdin.flush()
        _, line = memory.text(0, 8).splitlines()
        assert len(memory.text(0, 10).splitlines()) == 1  # it wasn't looked at in the last quarter
        process.kill()
    name, processes, third, fourth = line.split()[:4]
    assert (name, processes) == ("grows", "1")
    assert float(fourth) - float(third) == pytest.approx(8, abs=1)
