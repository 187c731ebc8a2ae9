"""Connections that serve several POSTs: when they are reused, and which of their answers count."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from airflow_insightly_hooks.hooks.post import kept_connections
from airflow_insightly_hooks.hooks.post.deadline import Deadline
from airflow_insightly_hooks.hooks.post.exchange import NotDelivered
from airflow_insightly_hooks.hooks.post.kept_connections import KeptConnections, ProvisionalAnswer
from airflow_insightly_hooks.hooks.post.receiver import ReceiverSettings
from airflow_insightly_hooks.hooks.post.response import Response
from tests.receiver import OK, Link, Moment, Receiver, Script, answer_all, receiving
from tests.servers import answer, serving

TIMEOUT = 2.0
LARGE = b"x" * 8_000_000
"""More bytes than the buffers between two sockets of one machine hold."""


class Client:
    """POSTs messages to a receiver. At the end of its block, its connections are ended."""

    def __init__(self, receiver: Receiver) -> None:
        settings = ReceiverSettings.from_uri(f"{receiver.url}/")
        self._endpoint, self._transport = settings.endpoint, settings.transport
        self.connections = KeptConnections(settings.transport, lambda answer: answer.status < 300)
        self.answers: list[ProvisionalAnswer | None] = []

    def post(self, *, is_last: bool = False, body: bytes = b"{}", timeout: float = TIMEOUT) -> Response:
        """POST the next message. ``answers`` then shows whether its answer counts."""
        number = len(self.answers)
        headers = [("Host", "receiver"), ("webhook-id", f"msg_{number}")]
        self.answers.append(None)
        response, self.answers[number] = self.connections.post(
            self._endpoint, headers, body, Deadline(timeout), is_last=is_last
        )
        return response

    def end(self) -> None:
        """End all connections."""
        while (kept := self.connections.take_to_end(everything=True)) is not None:
            self.connections.end(kept)
        assert not self.connections.have_open

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def counts(self) -> list[bool | None]:
        """Return for each message whether its answer counts; ``None`` if that isn't known yet."""
        return [True if answer is None else answer.counts for answer in self.answers]


@pytest.fixture(autouse=True)
def _long_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let connections live long, although they open at once on this machine."""
    monkeypatch.setattr(kept_connections, "SHORTEST_LIFE", 9.0)


def answering(count: int, then: Callable[[Link], None]) -> Script:
    """Return a script that answers the first POSTs, and then does something else."""

    def script(link: Link) -> None:
        for _ in range(count):
            link.answer(link.read())
        then(link)

    return script


# --- what counts -----------------------------------------------------------------------------------------


def test_one_post() -> None:
    """An answer on a connection for one POST counts at once. The receiver is asked to close it."""
    with receiving() as receiver, Client(receiver) as client:
        client.post(is_last=True)
    assert client.answers == [None]
    assert [post.closes for post in receiver.posts] == [True]


def test_answers_count_after_a_clean_end() -> None:
    """On a reused connection, no answer counts before the connection has ended. Then all do."""
    with receiving() as receiver, Client(receiver) as client:
        for _ in range(3):
            client.post()
        assert client.counts == [None, None, None]
        client.end()
    assert client.counts == [True, True, True]
    assert client.connections.is_reuse_allowed
    assert receiver.by_connection == [["msg_0", "msg_1", "msg_2"]]


def test_last_post_ends_a_connection() -> None:
    """The last POST asks the receiver to close the connection. When it has, all answers count."""
    with receiving() as receiver, Client(receiver) as client:
        client.post()
        client.post(is_last=True)
        client.end()
    assert client.counts == [True, True]
    assert [post.closes for post in receiver.posts] == [False, True]
    assert len(receiver.links) == 1


def test_post_does_not_wait_for_the_end() -> None:
    """A POST is finished when its answer is, however long its connection takes to end."""

    def slowly(link: Link) -> None:
        link.answer(link.read(), heeds_close=False)
        time.sleep(0.5)

    with receiving(answering(1, slowly)) as receiver, Client(receiver) as client:
        client.post()
        began = time.monotonic()
        client.post(is_last=True)
        assert time.monotonic() - began < 0.3
        assert client.counts == [None, None]
    assert client.counts == [True, True]


@pytest.mark.parametrize("clean", [1, 2])
def test_surplus_behind_an_answer(clean: int) -> None:
    """Bytes after an answer invalidate all answers of that connection, even the first one."""

    def too_long(link: Link) -> None:
        link.answer(link.read(), then=b"\n")

    with receiving(answering(clean, too_long)) as receiver, Client(receiver) as client:
        for _ in range(clean + 1):
            client.post()
        assert not client.connections.is_reuse_allowed
        client.end()
    assert client.counts == [False] * (clean + 1)
    assert not client.connections.is_reuse_allowed


def test_surplus_while_idle() -> None:
    """A byte before the next POST invalidates the earlier answers. The POST uses another connection."""

    def late(link: Link) -> None:
        link.send(b"\n")
        answer_all(link)

    with receiving(answering(2, late)) as receiver, Client(receiver) as client:
        client.post()
        client.post()
        time.sleep(0.1)
        client.post()
    assert client.counts == [False, False, True]
    assert receiver.by_connection == [["msg_0", "msg_1"], ["msg_2"]]
    assert [post.closes for post in receiver.posts] == [False, False, True]


def test_surplus_at_the_end() -> None:
    """A byte between the last answer and the receiver's end invalidates all answers."""

    def late(link: Link) -> None:
        time.sleep(0.02)
        link.send(OK)

    with receiving(answering(2, late)) as receiver, Client(receiver) as client:
        client.post()
        client.post()
        client.end()
    assert client.counts == [False, False]
    assert not client.connections.is_reuse_allowed


def test_end_is_waited_for() -> None:
    """A receiver has twice an answer's time to end a connection, before our side is half-closed."""

    def answered_late(link: Link) -> None:
        time.sleep(0.2)
        link.answer(link.read())
        if not link.wait_for_end(0.2):
            link.send(OK)

    with receiving(answering(1, answered_late)) as receiver, Client(receiver) as client:
        client.post()
        client.post()
    assert client.counts == [False, False]


def test_surplus_stops_others() -> None:
    """After a surplus byte on one connection, idle ones are ended, and each new one carries one POST."""
    has_come, may_go_on = threading.Event(), threading.Event()

    def busy(link: Link) -> None:
        post = link.read()
        has_come.set()
        may_go_on.wait(TIMEOUT)
        link.answer(post)
        answer_all(link)

    def too_long(link: Link) -> None:
        link.answer(link.read(), then=OK)
        link.wait_for_end()

    with receiving(busy, too_long) as receiver, Client(receiver) as client:
        other = threading.Thread(target=client.post)
        other.start()
        assert has_come.wait(TIMEOUT)
        client.post()
        may_go_on.set()
        other.join()
        client.post()
        while (kept := client.connections.take_to_end(everything=False)) is not None:
            client.connections.end(kept)
        assert not client.connections.have_open
    assert client.counts == [True, False, True]
    assert receiver.by_connection == [["msg_0"], ["msg_1"], ["msg_2"]]
    assert [post.closes for post in receiver.posts] == [False, False, True]


def test_receiver_that_never_ends() -> None:
    """After a while its acknowledgements count. Its connections are not reused."""
    with receiving(answering(2, Link.hold)) as receiver, Client(receiver) as client:
        client.post()
        client.post()
        began = time.monotonic()
        client.end()
        assert time.monotonic() - began < kept_connections.ENDS_WITHIN + 1
        assert client.counts == [True, True]
        client.post(is_last=False)
    assert not client.connections.is_reuse_allowed
    assert receiver.by_connection == [["msg_0", "msg_1"], ["msg_2"]]


# --- answers that came too early -------------------------------------------------------------------------


def test_answer_before_the_request_has_arrived() -> None:
    """A 2xx that comes before the receiver's TCP has the whole request is surplus."""
    big = b'"' + b"x" * 60_000 + b'"'

    def early(link: Link) -> None:
        link.wait_for_bytes()  # the buffers are too small for all answers
        time.sleep(0.1)
        link.send(OK)
        link.wait_for_end()  # and no further answer shows that

    with receiving(answering(1, early), window=4096) as receiver, Client(receiver) as client:
        client.post()
        assert not client.post(body=big).is_early, "it was seen while the request was being sent"
    assert client.counts == [False, False]
    assert not client.connections.is_reuse_allowed


@pytest.mark.parametrize("status", [200, 413])
def test_answer_before_the_request_is_sent(status: int) -> None:
    """A 2xx that comes before the request was sent is surplus. A refusal may come at any time."""

    def early(link: Link) -> None:
        link.answer(link.read_head(), status)
        link.wait_for_end(0.3)

    with receiving(answering(1, early)) as receiver, Client(receiver) as client:
        client.post()
        assert client.post(body=LARGE).is_early
        client.post()
    assert client.counts == [status != 200, status != 200, True]
    assert client.connections.is_reuse_allowed == (status != 200)
    assert receiver.by_connection == [["msg_0", "msg_1"], ["msg_2"]]


def test_first_answer_before_the_request_is_sent() -> None:
    """The first answer on a connection can't belong to another message. Its caller judges it."""

    def early(link: Link) -> None:
        link.answer(link.read_head())
        link.wait_for_end(0.3)

    with receiving(early) as receiver, Client(receiver) as client:
        assert client.post(body=LARGE).is_early
        client.post()
    assert client.answers[0] is None
    assert client.connections.is_reuse_allowed
    assert receiver.by_connection == [["msg_0"], ["msg_1"]]


# --- connections that break ------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["finish", "close", "reset"])
def test_ended_while_idle(ends: str) -> None:
    """An end after the last answer is clean. The next POST uses a new connection."""
    with receiving(answering(2, lambda link: getattr(link, ends)())) as receiver, Client(receiver) as client:
        client.post()
        client.post()
        time.sleep(0.1)
        assert client.post().status == 200
        client.end()
    assert client.counts == [True, True, True]
    assert receiver.by_connection == [["msg_0", "msg_1"], ["msg_2"]]


@pytest.mark.parametrize("ends", ["close", "reset"])
def test_closed_before_the_post_came(monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    """If the receiver can't have read anything of a POST, it is sent again. Earlier answers count."""
    moment = Moment(monkeypatch, "msg_2")

    def closing(link: Link) -> None:
        with moment:
            getattr(link, ends)()

    with receiving(answering(2, closing)) as receiver, Client(receiver) as client:
        for _ in range(3):
            assert client.post().status == 200
        client.end()
    assert client.counts == [True, True, True]
    assert receiver.by_connection == [["msg_0", "msg_1"], ["msg_2"]]


def test_half_closed_before_the_post_came(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that only stops sending may have read the POST, so it isn't sent again."""
    moment = Moment(monkeypatch, "msg_1")

    def ending(link: Link) -> None:
        with moment:
            link.finish()
        link.read()

    with receiving(answering(1, ending)) as receiver, Client(receiver) as client:
        client.post()
        with pytest.raises(NotDelivered) as failure:
            client.post()
    assert failure.value.sent
    assert receiver.by_connection == [["msg_0", "msg_1"]]


def test_new_connection_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A POST that is sent again gets one new connection.

    If that ends before an answer, the POST has failed.
    """
    moment = Moment(monkeypatch, "msg_1")

    def closing(link: Link) -> None:
        with moment:
            link.close()

    with receiving(answering(1, closing), Link.read) as receiver, Client(receiver) as client:
        client.post()
        with pytest.raises(NotDelivered):
            client.post()
    assert receiver.by_connection == [["msg_0"], ["msg_1"]]


@pytest.mark.parametrize("ends", ["finish", "close", "reset", "hold"])
@pytest.mark.parametrize("clean", [1, 4])
def test_broken_before_an_answer(clean: int, ends: str) -> None:
    """If a connection breaks before an answer, the answer before it doesn't count, unless it is the first."""

    def breaking(link: Link) -> None:
        link.read()
        getattr(link, ends)()

    with receiving(answering(clean, breaking)) as receiver, Client(receiver) as client:
        for _ in range(clean):
            client.post()
        with pytest.raises(NotDelivered) as failure:
            client.post(timeout=0.3)
    assert failure.value.sent
    assert client.counts[:-1] == [True] * max(clean - 1, 1) + [False] * (clean > 1)
    assert client.connections.is_reuse_allowed == (ends == "hold")
    assert not client.connections.have_open


def test_broken_within_an_answer() -> None:
    """If an answer's body breaks off, the answer doesn't count, unless it is the first."""

    def breaking(link: Link) -> None:
        link.read()
        link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}")

    with receiving(answering(2, breaking), breaking) as receiver, Client(receiver) as client:
        for _ in range(4):
            client.post()
    assert client.counts == [True, True, False, True]
    assert receiver.by_connection == [["msg_0", "msg_1", "msg_2"], ["msg_3"]]


# --- how long connections are used ------------------------------------------------------------------------


def test_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a connection's time is over, one more POST uses it."""
    monkeypatch.setattr(kept_connections, "SHORTEST_LIFE", 0.4)
    with receiving() as receiver, Client(receiver) as client:
        client.post()
        time.sleep(0.25)
        client.post()
        time.sleep(0.25)
        client.post()
        client.end()
    assert [post.closes for post in receiver.posts] == [False, False, True]
    assert len(receiver.links) == 1


@pytest.mark.parametrize(("longest", "is_last"), [(10.0, False), (0.05, True)])
def test_life_depends_on_connecting(monkeypatch: pytest.MonkeyPatch, longest: float, is_last: bool) -> None:
    """A connection that took long to open lives longer, but not for ever."""
    connect = socket.socket.connect

    def slowly(connection: socket.socket, address: Any) -> None:
        time.sleep(0.05)
        connect(connection, address)

    monkeypatch.setattr(socket.socket, "connect", slowly)
    monkeypatch.setattr(kept_connections, "SHORTEST_LIFE", 0.05)
    monkeypatch.setattr(kept_connections, "LONGEST_LIFE", longest)
    with receiving() as receiver, Client(receiver) as client:
        client.post()
        time.sleep(0.06)
        client.post()
    assert [post.closes for post in receiver.posts] == [is_last, is_last]


def test_each_post_has_its_own_deadline() -> None:
    """A connection can be used again after the time limit of an earlier POST."""
    with receiving() as receiver, Client(receiver) as client:
        client.post(timeout=0.2)
        time.sleep(0.25)
        client.post()
    assert receiver.by_connection == [["msg_0", "msg_1"]]


def test_idle_past_its_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """When an idle connection's time is over, it is ended, so that its answers count soon."""
    for bound in ("SHORTEST_LIFE", "LONGEST_LIFE"):  # connecting may take long
        monkeypatch.setattr(kept_connections, bound, 0.2)
    with receiving() as receiver, Client(receiver) as client:
        client.post()
        assert client.connections.take_to_end(everything=False) is None
        time.sleep(0.25)
        kept = client.connections.take_to_end(everything=False)
        assert kept is not None
        client.connections.end(kept)
    assert client.counts == [True]


@pytest.mark.parametrize(("header", "limit"), [("timeout=1", 0.8), ("timeout=60", 5.0), ("max=9", 5.0)])
def test_idle_limit(header: str, limit: float) -> None:
    """An idle connection is ended after five seconds, or earlier if its receiver will end it."""
    with (
        receiving(lambda link: link.answer(link.read(), 200, f"Keep-Alive: {header}")) as receiver,
        Client(receiver) as client,
    ):
        client.post()
        [kept] = client.connections._idle
        kept._idle_since -= limit - 0.1
        assert not kept.is_to_end
        kept._idle_since -= 0.2
        assert kept.is_to_end
        client.post()
        assert client.connections.take_to_end(everything=False) is kept
        client.connections.end(kept)
    assert receiver.by_connection == [["msg_0"], ["msg_1"]]


@pytest.mark.parametrize(
    "told", [["max=3"] * 3, ["timeout=5, max=3", "max=2", "max=1"], ["max=3", "timeout=5", ""]]
)
def test_keep_alive_max(told: list[str]) -> None:
    """A connection carries no more POSTs than its receiver announces.

    The last one says that it is the last.
    """

    def counting(link: Link) -> None:
        for value in told:
            link.answer(link.read(), 200, *([f"Keep-Alive: {value}"] if value else []))

    with receiving(counting) as receiver, Client(receiver) as client:
        for _ in range(3):
            client.post()
        client.end()
    by_connection = [[p.closes for p in receiver.posts if p.connection == n] for n in range(2)]
    assert by_connection[0] in ([False, True], [False, False, True])
    assert client.counts == [True] * 3


def test_keep_alive_of_one() -> None:
    """If a connection's receiver takes no further request, it carries no second POST."""

    def one(link: Link) -> None:
        link.answer(link.read(), 200, "Keep-Alive: max=1")
        link.wait_for_end()

    with receiving(default=one) as receiver, Client(receiver) as client:
        client.post()
        client.post()
    assert client.answers == [None, None]


def test_slow_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow receiver's connection isn't reused, and its one answer counts at once."""
    monkeypatch.setattr(kept_connections, "ANSWERS_WITHIN", 0.05)

    def slowly(link: Link) -> None:
        post = link.read()
        time.sleep(0.1)
        link.answer(post)
        answer_all(link)

    with receiving(default=slowly) as receiver, Client(receiver) as client:
        client.post()
        client.post()
    assert client.answers == [None, None]
    assert receiver.by_connection == [["msg_0"], ["msg_1"]]


@pytest.mark.parametrize("answer", [("Connection: close", "1.1"), ("X-Any: 1", "1.0")])
def test_receiver_that_allows_no_other(answer: tuple[str, str]) -> None:
    """A receiver that closes connections, or uses HTTP/1.0, gets each POST on a new one."""
    header, version = answer

    def one(link: Link) -> None:
        link.answer(link.read(), 200, header, version=version)
        link.wait_for_end()

    with receiving(default=one) as receiver, Client(receiver) as client:
        client.post()
        client.post()
    assert client.answers == [None, None]
    assert len(receiver.links) == 2


def test_system_that_tells_nothing_of_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system doesn't show what TCP has acknowledged, no connection is reused."""
    monkeypatch.delattr(socket, "TCP_INFO")
    with receiving() as receiver, Client(receiver) as client:
        client.post()
        client.post()
    assert client.answers == [None, None]
    assert len(receiver.links) == 2


def test_refused_header() -> None:
    """An invalid header is refused. Nothing was sent, and the connection is closed."""
    with receiving() as receiver, Client(receiver) as client:
        client.post()
        with suppress(ValueError):
            client.connections.post(client._endpoint, [("X", "a\nb")], b"", Deadline(TIMEOUT), is_last=False)
        assert not client.connections.have_open
    assert client.counts == [True]


def test_address_behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy isn't asked for a blocked address."""
    with serving([answer()]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        settings = ReceiverSettings.from_uri("http://169.254.169.254/")
        with pytest.raises(NotDelivered, match="are not allowed"):
            KeptConnections(settings.transport, lambda answer: answer.status < 300).post(
                settings.endpoint, [("Host", "receiver")], b"{}", Deadline(TIMEOUT), is_last=True
            )
    assert proxy.connections == 0
