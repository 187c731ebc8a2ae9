"""Faults 104 to 106, 54 and 55: connections that are used again, and that the other side may end."""

from __future__ import annotations

import json
import ssl
import threading
import time
from typing import Any

import pytest

from tests.conftest import Connect, run_context
from tests.deliveries import deliver, payload_of, payloads
from tests.faults.conftest import fault
from tests.faults.ways import PROMPT, Way, tried, tries
from tests.network import NameService
from tests.receiver import OK, Link, Moment, Script, receiving

directly = pytest.mark.parametrize("way", ["http", "https"], indirect=True)
"""The connection's other end is the receiver, not a proxy."""
encrypted = pytest.mark.parametrize("way", ["https", "tunnel"], indirect=True)
BIG = json.dumps({"entity": {"BACKGROUND": "x" * 8_000_000}})
"""More than the buffers between two sockets of one machine hold."""


def once(count: int) -> dict[str, str]:
    """Return the ledger after one acknowledged POST of each message."""
    return {f"msg_{number}": "A1" for number in range(count)}


# --- connections that are kept ---------------------------------------------------------------------------


@fault(104, "many messages for a receiver that keeps connections open")
def test_connections_are_reused(way: Way) -> None:
    """Connections are used again, at most ``concurrency`` are open, and the try closes all at its end."""

    def slowly(link: Link) -> None:
        while post := link.read():
            time.sleep(0.005)
            link.answer(post)
            if post.closes:
                return

    with way(default=slowly) as receiver:
        done = tried(receiver, run_context(), payloads(80), concurrency=4)
        assert receiver.open_connections == 0
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("webhook")]
    assert done.ledger == once(80)
    assert len(receiver.links) <= 40
    assert receiver.most_open <= 4


@fault(104, "a TLS session of an earlier connection")
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@encrypted
def test_tls_session_is_resumed(way: Way, newest: ssl.TLSVersion) -> None:
    """A new connection resumes the TLS session of an earlier one."""

    def two(link: Link) -> None:
        link.answer(link.read())
        link.answer(link.read(), 200, "Connection: close")

    with way(default=two, newest=newest) as receiver:
        done = tried(receiver, run_context(), payloads(6), concurrency=1)
    assert done.ledger == once(6)
    assert [len(messages) for messages in receiver.by_connection] == [2, 2, 2]
    assert [link.is_resumed for link in receiver.links] == [False, True, True]


@fault(104, "a receiver that refuses to resume a TLS session")
@directly
def test_tls_session_is_refused(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is made again without a session, and so are all later ones of the try."""
    wrap, asked = ssl.SSLContext.wrap_socket, []

    def refusing(context: ssl.SSLContext, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        if not named.get("server_side"):
            asked.append(named.get("session") is not None)
            if asked[-1]:
                refusal = ssl.SSLError(1, "an alert")
                refusal.reason = "SSLV3_ALERT_HANDSHAKE_FAILURE"
                raise refusal
        return wrap(context, *arguments, **named)

    def two(link: Link) -> None:
        link.answer(link.read())
        link.answer(link.read(), 200, "Connection: close")

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", refusing)
    with way(default=two) as receiver:
        done = tried(receiver, run_context(), payloads(6), concurrency=1)
    assert done.ledger == once(6)
    assert asked == ([False, True, False, False] if way.kind == "https" else [])


@fault(104, "a receiver's name resolves to another address from now on")
def test_name_is_looked_up_again(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is looked up for each new connection, but not when a connection is used again."""
    names = NameService(monkeypatch, {"receiver.test": [["127.0.0.1"], ["127.0.0.2"]]})

    def two(link: Link) -> None:
        link.answer(link.read())
        link.answer(link.read(), 200, "Connection: close")

    with receiving(two) as old, receiving(address="127.0.0.2", port=old.port) as new:
        connect("webhook_default", host=f"http://receiver.test:{old.port}/")
        report = deliver(run_context(), payloads(4), concurrency=1)
    assert (report["delivered"], report["attempts"]) == (4, 4)
    assert (old.messages, new.messages) == (["msg_0", "msg_1"], ["msg_2", "msg_3"])
    assert len(names.asked) == len(old.links) + len(new.links) == 2


# --- ended while idle ------------------------------------------------------------------------------------


@fault(54, "the peer ends an idle connection before it is used again")
@pytest.mark.parametrize("ends", ["finish", "close"])
def test_ended_before_the_next_post(way: Way, ends: str) -> None:
    """The next message goes out once, on a new connection, as one attempt."""

    def one(link: Link) -> None:
        post = link.read()
        with link.at_once():
            link.answer(post)
            getattr(link, ends)()

    # A proxy passes on the answer first and the end of the connection some time later.
    with way(default=one, requests_per_second=8 if way.kind == "tunnel" else 0) as receiver:
        done = tried(receiver, run_context(), payloads(4), concurrency=1)
    assert done.ledger == once(4)
    assert receiver.by_connection == [[f"msg_{number}"] for number in range(4)]


@fault(104, "the peer ends an idle connection just as the next POST goes out")
@pytest.mark.parametrize("ends", ["close", "reset"])
@directly
def test_ended_while_the_next_post_goes_out(way: Way, monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    """If nothing can have been read, the POST goes out on a new connection at once, as one attempt."""
    moment = Moment(monkeypatch, "msg_1")

    def ending(link: Link) -> None:
        link.answer(link.read())
        with moment:
            getattr(link, ends)()

    with way(ending) as receiver:
        done = tried(receiver, run_context(), payloads(3), concurrency=1)
    assert receiver.by_connection == [["msg_0"], ["msg_1", "msg_2"]]
    assert done.ledger == once(3)


@fault(55, "the new connection breaks as well")
@pytest.mark.parametrize("reads", [True, False], ids=["after reading", "unread"])
@directly
def test_no_second_new_connection(way: Way, monkeypatch: pytest.MonkeyPatch, reads: bool) -> None:
    """A POST gets one new connection. If that breaks as well, the attempt has failed."""
    moment = Moment(monkeypatch, "msg_1")

    def closing(link: Link) -> None:
        link.answer(link.read())
        with moment:
            link.close()

    def breaking(link: Link) -> None:
        if reads:
            link.read()
        else:
            link.wait_for_bytes()
        link.close()

    context = run_context()
    with way(closing, breaking) as receiver:
        first = tried(receiver, context, payloads(2), concurrency=1, is_exact=reads)
        assert len(receiver.links) == 2
        assert first.ledger == {"msg_0": "A1", "msg_1": "F1"}
        second = tried(receiver, context, payloads(2), concurrency=1, is_exact=reads)
    assert second.ledger == {"msg_0": "A1", "msg_1": "A2"}
    assert receiver.counts == {"msg_0": 1, "msg_1": 2 if reads else 1}


@fault(104, "the peer ends its side just as the next POST goes out, and still reads")
def test_half_closed_while_the_next_post_goes_out(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """The POST may have been read, so it is a failed attempt. The next try sends it under the same id."""
    moment = Moment(monkeypatch, "msg_1")

    def ending(link: Link) -> None:
        link.answer(link.read())
        with moment:
            link.finish()
            time.sleep(0.05)  # a proxy in between hands it on
        link.read()

    context = run_context()
    with way(ending) as receiver:
        first = tried(receiver, context, payloads(2), concurrency=1)
        second = tried(receiver, context, payloads(2), concurrency=1)
    assert receiver.on(0) == ["msg_0", "msg_1"]
    assert (first.report["delivered"], first.ledger["msg_1"]) == (1, "F1")
    assert (second.report["delivered"], second.ledger["msg_1"]) == (2, "A2")


def is_tried_again(way: Way, silent: Script, *, is_exact: bool = True) -> list[str]:
    """Assert that one message without an answer is a failed attempt, and is sent again by the next try.

    :returns: the messages that the first connection carried.
    """
    context = run_context()
    with way(silent) as receiver:
        first = tried(receiver, context, payloads(3), concurrency=1, is_exact=is_exact)
        second = tried(receiver, context, payloads(3), concurrency=1, is_exact=is_exact)
    assert list(first.undelivered) == ["msg_1"]
    assert (first.undelivered["msg_1"]["status"], first.ledger["msg_1"]) == (None, "F1")
    assert (second.report["delivered"], second.ledger["msg_1"], second.ledger["msg_2"]) == (3, "A2", "A1")
    assert len({post.body for post in receiver.posts if post.message == "msg_1"}) == 1
    return receiver.on(0)


@fault(104, "the peer reads the next POST and ends the connection without an answer")
@pytest.mark.parametrize("ends", ["finish", "close", "reset"])
def test_ended_without_an_answer(way: Way, ends: str) -> None:
    """The message is in doubt. It is a failed attempt, and the next try sends the same bytes and id."""

    def silent(link: Link) -> None:
        link.answer(link.read())
        link.read()
        getattr(link, ends)()

    assert is_tried_again(way, silent) == ["msg_0", "msg_1"]


@fault(104, "the peer ends the connection when it has the next POST, unread")
@pytest.mark.parametrize("ends", ["close", "reset"])
def test_ended_with_the_post_unread(way: Way, ends: str) -> None:
    """The POST may have been read, since the receiver's TCP has it. The next try sends it again."""

    def silent(link: Link) -> None:
        link.answer(link.read())
        link.wait_for_bytes()
        time.sleep(0.1)  # TCP acknowledges what it has after 0.04 s at the latest
        getattr(link, ends)()

    assert is_tried_again(way, silent, is_exact=False) == ["msg_0"]


@fault(104, "a load balancer ends each connection after three requests")
@pytest.mark.parametrize("ends", ["finish", "close", "reset"])
def test_ended_after_some_requests(way: Way, ends: str) -> None:
    """Each message is delivered once, since no POST was under way when a connection ended."""

    def three(link: Link) -> None:
        for _ in range(3):
            link.answer(link.read())
        getattr(link, ends)()

    with way(default=three, requests_per_second=10) as receiver:
        done = tried(receiver, run_context(), payloads(8), concurrency=1)
    assert done.ledger == once(8)
    assert [len(messages) for messages in receiver.by_connection] == [3, 3, 2]


@fault(104, "a load balancer ends each of several connections after five requests")
@pytest.mark.parametrize("ends", ["finish", "close"])
@directly
def test_ended_after_some_requests_of_many(way: Way, ends: str) -> None:
    """If a connection ends together with its last answer, each message is delivered once, at any speed."""

    def five(link: Link) -> None:
        for _ in range(4):
            link.answer(link.read())
        post = link.read()
        with link.at_once():
            link.answer(post)
            getattr(link, ends)()

    with way(default=five) as receiver:
        done = tried(receiver, run_context(), payloads(60), concurrency=4)
    assert done.ledger == once(60)
    assert max(map(len, receiver.by_connection)) == 5


@fault(104, "a receiver that ends each connection soon after its first answer, without saying so")
@pytest.mark.parametrize("reads", [False, True], ids=["unread", "after reading"])
def test_ends_without_a_word(way: Way, reads: bool) -> None:
    """Once a reused connection gave no answer, connections carry one message each until the try ends."""

    def one(link: Link) -> None:
        link.answer(link.read(), heeds_close=False)
        if reads:
            link.read()
        else:
            time.sleep(0.02)
        link.close()

    context = run_context()
    with way(default=one) as receiver:
        first = tried(receiver, context, payloads(40), concurrency=2, is_exact=reads)
        second = tried(receiver, context, payloads(40), concurrency=2, is_exact=reads)
    assert 1 <= len(first.undelivered) <= 2
    assert second.report["delivered"] == 40


@fault(104, "answers that are too long to be read to the end, now and then")
def test_long_answers_now_and_then(way: Way) -> None:
    """A message on a reused connection is POSTed again. Then connections carry one message each."""

    def now_and_then(link: Link) -> None:
        while post := link.read():
            if int(post.message[4:]) % 3 < 2:
                link.answer(post)
            else:
                post.is_taken = True
                link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n" + b"x" * 400_000)
            if post.closes:
                return

    with way(default=now_and_then) as receiver:
        done = tried(receiver, run_context(), payloads(30), concurrency=1)
    assert done.ledger == {**once(30), "msg_2": "A2"}


@fault(105, "fewer messages than connections")
def test_few_messages_each_close_their_connection(way: Way) -> None:
    """Each POST has the header ``Connection: close``, and its answer counts at once."""
    for _ in range(10):
        with way() as receiver:
            done = tried(receiver, run_context(), payloads(2), concurrency=8)
        assert done.ledger == once(2)
        assert [post.closes for post in receiver.posts] == [True, True]


@fault(105, "the first of several changes of a record fails, with ``ordered``")
def test_held_back_changes_keep_no_connection(way: Way) -> None:
    """If all remaining messages have to wait, the try closes its connections and ends at once."""
    way.take_to_connect(0.1)  # after this time the connection would be kept for seconds

    def refusing_one(link: Link) -> None:
        while post := link.read():
            link.answer(post, 500 if post.message == "msg_1" else 200)
            if post.closes:
                return

    given = [*payloads(3), payload_of("msg_3", 1, '{"entity":{}}')]
    with way(default=refusing_one) as receiver:
        done = tried(receiver, run_context(), given, concurrency=1, ordered=True)
    assert done.undelivered.keys() == {"msg_1", "msg_3"}
    assert done.elapsed < PROMPT / 2


# --- a receiver's wishes ---------------------------------------------------------------------------------


@fault(105, "`Connection: close`")
@pytest.mark.parametrize("value", ["close", "Close", "x-debug, close"])
def test_connection_close(way: Way, value: str) -> None:
    """A connection whose receiver says ``Connection: close`` carries no further POST."""

    def closing(link: Link) -> None:
        link.answer(link.read(), 200, f"Connection: {value}", heeds_close=False)

    with way(default=closing) as receiver:
        done = tried(receiver, run_context(), payloads(4), concurrency=1)
    assert done.ledger == once(4)
    assert receiver.by_connection == [[f"msg_{number}"] for number in range(4)]


@fault(105, "HTTP/1.0")
@pytest.mark.parametrize("headers", [[], ["Connection: keep-alive"]], ids=["bare", "keep-alive"])
def test_http_1_0(way: Way, headers: list[str]) -> None:
    """A connection to a receiver that answers in HTTP/1.0 carries one POST."""

    def old(link: Link) -> None:
        link.answer(link.read(), 200, *headers, version="1.0", heeds_close=False)
        link.wait_for_end(0.5)

    with way(default=old) as receiver:
        done = tried(receiver, run_context(), payloads(3), concurrency=1)
    assert done.ledger == once(3)
    assert receiver.by_connection == [["msg_0"], ["msg_1"], ["msg_2"]]
    assert done.elapsed < PROMPT


@fault(105, "`Keep-Alive: timeout=1, max=3`: the number of requests")
@pytest.mark.parametrize("counts_down", [False, True])
def test_keep_alive_max(way: Way, counts_down: bool) -> None:
    """A connection carries no more POSTs than its receiver allows."""

    def three(link: Link) -> None:
        for number in range(3):
            left = 3 - number - 1 if counts_down else 3
            link.answer(link.read(), 200, f"Keep-Alive: timeout=1, max={left}")
        link.wait_for_end()

    with way(default=three) as receiver:
        done = tried(receiver, run_context(), payloads(7), concurrency=1)
    assert done.ledger == once(7)
    assert 1 < max(map(len, receiver.by_connection)) <= 3


@fault(105, "`Keep-Alive: timeout=1, max=3`: the idle time")
@pytest.mark.parametrize(("seconds", "connections"), [(1, 3), (4, 1)])
@directly
def test_keep_alive_timeout(way: Way, seconds: int, connections: int) -> None:
    """A connection that was idle for the time that its receiver names carries no further POST."""
    way.take_to_connect(0.15)  # after this time the connection would be kept for longer

    def keeping(link: Link) -> None:
        while post := link.read():
            link.answer(post, 200, f"Keep-Alive: timeout={seconds}, max=100")
            if post.closes:
                return

    with way(default=keeping, requests_per_second=0.8) as receiver:
        done = tried(receiver, run_context(), payloads(3), concurrency=1)
    assert done.ledger == once(3)
    assert len(receiver.links) == connections


@fault(105, "a receiver that ignores `Connection: close` and the end of the connection")
@directly
def test_receiver_that_never_closes(way: Way) -> None:
    """The try ends within a few seconds all the same, and its acknowledgements count."""

    def stubborn(link: Link) -> None:
        while post := link.read():
            link.answer(post, heeds_close=False)
        link.hold()

    with way(default=stubborn) as receiver:
        done = tried(receiver, run_context(), payloads(6), concurrency=2)
        assert receiver.open_connections == 0
    assert done.ledger == once(6)
    assert done.elapsed < PROMPT


# --- an answer before the request was sent ---------------------------------------------------------------


def early(link: Link, reply: bytes, *, goes_on: bool) -> None:
    """Answer one POST, and answer the next one before it is complete. Then close, or read the rest."""
    link.answer(link.read())
    link.read_head()
    link.send(reply)
    time.sleep(0.2)
    if goes_on:
        link.wait_for_end(0.5)
    else:
        link.close()


@fault(106, "a 413 before the message was completely sent, on a connection that is used again")
@pytest.mark.parametrize("goes_on", [False, True], ids=["close", "reads on"])
@directly
def test_early_refusal_on_a_kept_connection(way: Way, goes_on: bool) -> None:
    """The message has failed, and its connection is not used again."""
    context, given = run_context(), [payloads(1)[0], payload_of("msg_1", 1, BIG)]
    with way(lambda link: early(link, OK.replace(b"200", b"413"), goes_on=goes_on)) as receiver:
        first = tried(receiver, context, given, concurrency=1)
        second = tried(receiver, context, given, concurrency=1)
    assert receiver.on(0) == ["msg_0", "msg_1"]
    assert (first.ledger["msg_1"], first.undelivered["msg_1"]["status"]) == ("F1", 413)
    assert (second.report["delivered"], second.ledger["msg_1"]) == (2, "A2")


@fault(106, "a 200 before the message was completely sent, on a connection that is used again")
@pytest.mark.parametrize("goes_on", [False, True], ids=["close", "reads on"])
@directly
def test_early_acknowledgement_on_a_kept_connection(way: Way, goes_on: bool) -> None:
    """It may be a duplicate of the previous answer, so it acknowledges nothing. The message is sent again."""
    given = [payloads(1)[0], payload_of("msg_1", 1, BIG)]
    with way(lambda link: early(link, OK, goes_on=goes_on)) as receiver:
        done = tries(receiver, run_context(), given, concurrency=1)
    assert receiver.on(0) == ["msg_0", "msg_1"]
    assert done[-1].ledger["msg_1"] == "A2"
    assert receiver.posts[-1].body == BIG.encode()
