"""Faults 101 to 103, 29 and 30: one response too many on a connection that is used again.

A faulty receiver answers one POST twice. A sender that takes the second answer for the answer to the next
POST is one answer behind from then on. It takes a later 500 for the answer to another POST, or ignores it.
"""

from __future__ import annotations

import time

import pytest

from airflow_insightly_hooks.operators.delivery import ledger_writer
from airflow_insightly_hooks.operators.webhook import UndeliverableError
from tests.conftest import StateStore, run_context
from tests.deliveries import deliver, payload_of, payloads, recorded
from tests.faults.conftest import fault
from tests.faults.ways import PROMPT, Way, tried, tries
from tests.receiver import OK, Link, Moment, Receiver, answer_all

directly = pytest.mark.parametrize("way", ["http", "https"], indirect=True)
http_only = pytest.mark.parametrize("way", ["http"], indirect=True)
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


def ids(count: int) -> list[str]:
    return [f"msg_{number}" for number in range(count)]


def twice_where_doubted(receiver: Receiver, count: int) -> dict[str, int]:
    """Return how often each message is POSTed if only the messages of connection 0 are sent again."""
    return {message: 2 if message in receiver.on(0) else 1 for message in ids(count)}


def is_alone_later(receiver: Receiver) -> bool:
    """Return whether each connection after the first one carried one message at most."""
    return all(len(messages) <= 1 for messages in receiver.by_connection[1:])


def one_behind(link: Link, *, pause: float = 0.0, interim: bytes = b"") -> None:
    """Answer the first POST twice, the second time after the next POST was read. Refuse the next POST."""
    link.send(interim)
    link.answer(link.read())
    post = link.read()
    link.send(OK)
    time.sleep(pause)
    link.answer(post, 500)
    answer_all(link)


# --- seen before the next POST ---------------------------------------------------------------------------


@fault(101, "a duplicate response together with the true one")
@pytest.mark.parametrize("clean", [0, 2])
@pytest.mark.parametrize("parts", [1, 2], ids=["one write", "two writes"])
def test_duplicate_at_once(way: Way, clean: int, parts: int) -> None:
    """All messages of this connection are POSTed again. From then on each connection carries one message."""

    def twice(link: Link) -> None:
        for _ in range(clean):
            link.answer(link.read())
        post = link.read()
        with link.at_once():
            link.answer(post, then=OK if parts == 1 else b"")
            link.send(OK if parts == 2 else b"")
        answer_all(link)

    with way(twice) as receiver:
        done = tried(receiver, run_context(), payloads(6), concurrency=1)
    assert receiver.on(0) == ids(clean + 1)
    assert done.report["delivered"] == 6
    assert done.ledger == {message: "A2" if message in ids(clean + 1) else "A1" for message in ids(6)}
    assert is_alone_later(receiver)


@fault(101, "a duplicate response before the next POST")
@pytest.mark.parametrize("clean", [0, 1])
def test_duplicate_before_the_next_post(way: Way, clean: int) -> None:
    """It is noticed before the connection is used again. The next POST goes out on another connection."""

    def late(link: Link) -> None:
        for _ in range(clean + 1):
            link.answer(link.read())
        time.sleep(0.03)
        link.send(OK)
        answer_all(link)

    with way(late, requests_per_second=8) as receiver:
        done = tried(receiver, run_context(), payloads(4), concurrency=1)
    assert receiver.on(0) == ids(clean + 1)
    assert done.report["delivered"] == 4
    assert receiver.counts == twice_where_doubted(receiver, 4)
    assert is_alone_later(receiver)


@fault(29, "surplus bytes behind the body, on a connection that is used again")
@pytest.mark.parametrize("surplus", [b"\r\n", b"x", b"HTTP/1.1 2", b"{}"])
@pytest.mark.parametrize("pause", [0, 0.03], ids=["at once", "later"])
@http_only
def test_surplus_bytes_on_a_kept_connection(way: Way, surplus: bytes, pause: float) -> None:
    """One surplus byte is enough: the connection's messages are POSTed again on other connections."""

    def too_long(link: Link) -> None:
        link.answer(link.read(), then=b"" if pause else surplus)
        time.sleep(pause)
        link.send(surplus if pause else b"")
        answer_all(link)

    with way(too_long, requests_per_second=8 if pause else 0) as receiver:
        done = tried(receiver, run_context(), payloads(3), concurrency=1)
    assert receiver.on(0) == ["msg_0"]
    assert done.ledger == {"msg_0": "A2", "msg_1": "A1", "msg_2": "A1"}


@fault(101, "a receiver that answers everything twice")
@pytest.mark.parametrize("pause", [0, 0.02], ids=["at once", "later"])
@http_only
def test_everything_answered_twice(way: Way, pause: float) -> None:
    """All is delivered in one try: if a connection carries one POST, its first answer is the right one."""

    def always_twice(link: Link) -> None:
        while post := link.read():
            link.answer(post, then=b"" if pause else OK)
            time.sleep(pause)
            link.send(OK if pause else b"")
            if post.closes:
                return

    with way(default=always_twice) as receiver:
        done = tried(receiver, run_context(), payloads(12), concurrency=2)
    assert done.report["delivered"] == 12
    assert set(receiver.counts.values()) <= {1, 2}


# --- taken for the answer to the next POST ---------------------------------------------------------------


@fault(102, "a duplicate response that crosses the next POST")
def test_duplicate_crosses_the_next_post(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as the surplus answer shows, the connection's messages are POSTed again."""
    moment = Moment(monkeypatch, "msg_1")  # no surplus byte has come by then

    def crossing(link: Link) -> None:
        link.answer(link.read())
        with moment:
            link.send(OK)
            time.sleep(0.05)  # a proxy in between hands it on
        link.answer(link.read(), 500)
        answer_all(link)

    with way(crossing) as receiver:
        tries(receiver, run_context(), payloads(4), concurrency=1)
    assert receiver.on(0)[:2] == ["msg_0", "msg_1"]
    assert receiver.counts == twice_where_doubted(receiver, 4)
    assert is_alone_later(receiver)


def with_a_big_second() -> list[dict[str, object]]:
    """Return messages of which the second one has no room in a small window."""
    big = payload_of("msg_1", 1, '{"entity":"%s"}' % ("x" * 60_000))
    return [payloads(1)[0], big, *payloads(2, first=2)]


def answer_before_the_second_has_arrived(link: Link) -> None:
    link.answer(link.read())
    link.wait_for_bytes()  # the first ones: there is no room here for the others
    time.sleep(0.05)
    link.send(OK)
    time.sleep(0.1)


@fault(102, "a duplicate response while the next POST is still on its way")
def test_duplicate_before_the_post_has_arrived(way: Way) -> None:
    """The message that seems acknowledged is POSTed again, and so are the earlier messages."""

    def full(link: Link) -> None:
        answer_before_the_second_has_arrived(link)
        link.answer(link.read(), 500)
        answer_all(link)

    with way(full, window=4096) as receiver:
        done = tries(receiver, run_context(), with_a_big_second(), concurrency=1, is_exact=False)
    assert receiver.on(0)[0] == "msg_0"
    assert [done[-1].ledger[message] for message in ("msg_0", "msg_1")] == ["A2", "A2"]
    assert is_alone_later(receiver)


@fault(102, "a duplicate response while the next POST is still on its way, and the receiver never reads it")
@directly
def test_duplicate_and_the_post_is_never_read(way: Way) -> None:
    """An answer that comes before the receiver's TCP has the whole POST is not the answer to it."""

    def full(link: Link) -> None:
        answer_before_the_second_has_arrived(link)
        link.close()

    with way(full, window=4096) as receiver:
        done = tries(receiver, run_context(), with_a_big_second(), concurrency=1, is_exact=False)
    assert receiver.on(0) == ["msg_0"]
    assert [done[-1].ledger[message] for message in ("msg_0", "msg_1")] == ["A2", "A2"]


@fault(102, "a duplicate response in place of a 500")
@pytest.mark.parametrize("pause", [0, 0.05, 0.3])
def test_duplicate_in_place_of_a_failure(way: Way, pause: float) -> None:
    """The refused message never counts as acknowledged. It is POSTed again in the same try."""
    with way(lambda link: one_behind(link, pause=pause)) as receiver:
        done = tried(receiver, run_context(), payloads(2), concurrency=1)
    assert receiver.on(0) == ["msg_0", "msg_1"]
    assert done.report["delivered"] == 2
    assert done.ledger == {"msg_0": "A2", "msg_1": "A2"}
    assert is_alone_later(receiver)
    assert done.elapsed < PROMPT


@fault(102, "a duplicate response in place of a 500, and further messages behind it")
@pytest.mark.parametrize("pause", [0, 0.05])
def test_answers_shifted_by_one(way: Way, pause: float) -> None:
    """In the end each message has its own acknowledgement, however far the answers have shifted."""
    with way(lambda link: one_behind(link, pause=pause)) as receiver:
        tries(receiver, run_context(), payloads(6), concurrency=1)
    assert receiver.on(0)[:2] == ["msg_0", "msg_1"]
    assert receiver.counts == twice_where_doubted(receiver, 6)


@fault(102, "a duplicate response, and then the connection breaks")
@pytest.mark.parametrize("ends", ["finish", "close", "reset"])
def test_broken_before_it_shows(way: Way, ends: str) -> None:
    """If a message gets no answer, the message before it is in doubt as well. Both are sent again."""

    def broken(link: Link) -> None:
        link.answer(link.read())
        link.read()
        link.send(OK)
        link.read()
        getattr(link, ends)()

    with way(broken) as receiver:
        done = tries(receiver, run_context(), payloads(4), concurrency=1)
    assert receiver.on(0) == ids(3)
    assert [done[-1].ledger[message] for message in ids(4)[1:]] == ["A2", "A2", "A1"]


@fault(102, "a duplicate response in place of a 500 that stays one")
def test_duplicate_hides_a_lasting_failure(way: Way) -> None:
    """The report says that the message is undelivered, and why, until its attempts are used up."""

    def refuse(link: Link) -> None:
        while post := link.read():
            link.answer(post, 500 if post.message == "msg_1" else 200)
            if post.closes:
                return

    context = run_context()
    with way(one_behind, default=refuse) as receiver:
        first, last = (tried(receiver, context, payloads(2), concurrency=1) for _ in range(2))
        with pytest.raises(UndeliverableError):
            deliver(context, payloads(2), concurrency=1)
    assert (first.ledger, last.ledger) == ({"msg_0": "A2", "msg_1": "F2"}, {"msg_0": "A2", "msg_1": "F3"})
    for done in (first, last):
        assert done.undelivered["msg_1"]["status"] == 500
    assert receiver.counts == {"msg_0": 2, "msg_1": 3}


@fault(102, "a duplicate response at the last attempt")
@http_only
def test_no_attempt_left(way: Way) -> None:
    """A message in doubt that has no attempt left is reported as undelivered and in doubt."""

    def refuse(link: Link) -> None:
        link.answer(link.read(), 500, "Connection: close")

    def one_behind_at_last(link: Link) -> None:
        (one_behind if receiver.counts["msg_1"] == 2 else refuse)(link)

    context = run_context()
    with way(default=one_behind_at_last) as receiver:
        for _ in range(2):
            tried(receiver, context, payloads(2), concurrency=1)
        done = tried(receiver, context, payloads(2), concurrency=1)
        with pytest.raises(UndeliverableError):
            deliver(context, payloads(2), concurrency=1)
    assert done.ledger == {"msg_0": "D3", "msg_1": "D3"}
    assert all("in doubt" in item["error"] for item in done.undelivered.values())
    assert receiver.counts == {"msg_0": 3, "msg_1": 3}


@fault(30, "a second final answer after a 103, on a connection that is used again")
@http_only
def test_late_answer_on_a_kept_connection(way: Way) -> None:
    """A second final answer after an interim one acknowledges nothing, either."""
    with way(lambda link: one_behind(link, interim=EARLY_HINTS, pause=0.02)) as receiver:
        done = tried(receiver, run_context(), payloads(2), concurrency=1)
    assert done.ledger == {"msg_0": "A2", "msg_1": "A2"}


@fault(30, "interim answers to each message of a connection")
def test_interim_answers_on_a_kept_connection(way: Way) -> None:
    """Interim answers are skipped, and each message gets its own final answer."""

    def hinting(link: Link) -> None:
        while post := link.read():
            link.send(EARLY_HINTS)
            time.sleep(0.02)
            link.answer(post, 500 if post.message == "msg_1" and receiver.counts["msg_1"] == 1 else 200)
            if post.closes:
                return

    with way(default=hinting) as receiver:
        first, second = tries(receiver, run_context(), payloads(4), concurrency=1)
    assert [(item["message_id"], item["status"]) for item in first.report["undelivered"]] == [("msg_1", 500)]
    assert second.ledger == {"msg_0": "A1", "msg_1": "A2", "msg_2": "A1", "msg_3": "A1"}


@fault(102, "a duplicate response, and a later change of the same record")
@http_only
def test_duplicate_before_a_later_change(way: Way) -> None:
    """With ``ordered``, a later change of a record waits until the earlier one is truly acknowledged."""
    given = [*payloads(3), {**payloads(3)[2], "message_id": "msg_3", "changed_at": "2017-03-10T09:00:00Z"}]
    with way(one_behind, lambda link: one_behind(link, pause=0.1)) as receiver:
        tries(receiver, run_context(), given, concurrency=1, ordered=True)
    taken = next(n for n, post in enumerate(receiver.posts) if post.message == "msg_2" and post.is_taken)
    assert receiver.messages.index("msg_3") > taken


@fault(102, "killed before a duplicate response has shown")
def test_killed_before_it_shows(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages are not recorded as acknowledged while their connection is open. The next try POSTs them."""
    context, left = run_context(), StateStore()
    monkeypatch.setattr(ledger_writer, "LEDGER_INTERVAL", 0.0)

    def shifted(link: Link) -> None:
        link.answer(link.read())
        refused = link.read()
        link.send(OK)  # is taken for the answer to the message that will be refused
        further = link.read()
        time.sleep(0.1)  # the ledger is written meanwhile
        left.values = dict(context["task_state_store"].values)
        link.answer(refused, 500)
        link.answer(further)
        answer_all(link)

    with way(shifted) as receiver:
        tried(receiver, context, payloads(4), concurrency=1)
    assert receiver.on(0)[:3] == ids(3)
    assert {message: recorded(left)[message] for message in ids(3)} == dict.fromkeys(ids(3), "D1")
    with way() as receiver:
        report = deliver(run_context(task_state_store=left), payloads(4))
    assert (report["delivered"], receiver.counts) == (4, dict.fromkeys(ids(4), 1))


@fault(102, "a duplicate response hides a 500, and the connection breaks later on")
@pytest.mark.parametrize("ends", ["reset", "close", "finish", "silence", "reset while idle"])
def test_shifted_answers_and_a_break(way: Way, ends: str) -> None:
    """If a surplus answer can't show any more, only the first acknowledgement before a failure counts."""
    if way.kind == "tunnel" and ends == "reset while idle":
        pytest.skip("a proxy hands on a reset as an end")

    def shifted(link: Link) -> None:
        link.answer(link.read())
        refused = link.read()
        time.sleep(0.02)
        link.send(OK)
        further = link.read()
        time.sleep(0.02)
        link.answer(refused, 500)
        link.read()
        time.sleep(0.02)
        link.answer(further)
        if ends == "reset while idle":
            link.reset()
            return
        link.read()
        if ends == "silence":
            link.wait_for_end()
        else:
            getattr(link, ends)()

    given = payloads(4 if ends == "reset while idle" else 6)
    with way(shifted, timeout=1) as receiver:
        done = tried(receiver, run_context(), given, concurrency=1)
    assert len(receiver.on(0)) == (4 if ends == "reset while idle" else 5)
    assert (done.ledger["msg_0"], done.ledger["msg_1"]) == ("A1", "A2")


@fault(102, "a duplicate response hides an answer without the expected text, and the connection breaks")
@http_only
def test_shifted_answers_and_expect_body(way: Way) -> None:
    """An answer without the expected text is treated as a failure here, too."""
    good, bad = (f"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{text}".encode() for text in ("good", "sad!"))

    def shifted(link: Link) -> None:
        for answer in (good, good, bad, good):
            post = link.read()
            time.sleep(0.02)
            link.send(answer)
            if post is not None and post.message == "msg_0":
                post.is_taken = True
        link.read()
        link.reset()

    def well(link: Link) -> None:
        while post := link.read():
            post.is_taken = True
            link.send(good)

    with way(shifted, default=well, expect_body="good") as receiver:
        done = tried(receiver, run_context(), payloads(5), concurrency=1)
    assert (done.ledger["msg_0"], done.ledger["msg_1"]) == ("A1", "A2")


# --- after the last POST ---------------------------------------------------------------------------------


@fault(103, "a duplicate response after the last POST")
@pytest.mark.parametrize("after", [0, 0.3])
def test_duplicate_after_the_last_post(way: Way, after: float) -> None:
    """Acknowledgements count once the try has closed its connections and read them to the end."""

    def late(link: Link) -> None:
        for _ in range(3):
            link.answer(link.read())
        time.sleep(after)
        link.send(OK)

    with way(late) as receiver:
        done = tried(receiver, run_context(), payloads(3), concurrency=1)
    assert receiver.on(0) == ids(3)
    assert done.report["delivered"] == 3
    assert done.ledger == dict.fromkeys(ids(3), "A2")
    assert is_alone_later(receiver)
    assert done.elapsed < PROMPT


@fault(103, "a duplicate response after the connection was half-closed")
def test_duplicate_after_the_end(way: Way) -> None:
    """An answer that comes after the sender has closed its side is one too many as well."""

    def at_the_end(link: Link) -> None:
        last = False
        while not last and (post := link.read()):
            last = post.message == "msg_2"
            link.answer(post, heeds_close=False)
        link.wait_for_end()
        link.send(OK)

    with way(at_the_end) as receiver:
        done = tried(receiver, run_context(), payloads(3), concurrency=1)
    assert receiver.on(0) == ids(3)
    assert done.ledger == dict.fromkeys(ids(3), "A2")
    assert done.elapsed < PROMPT


# --- several connections ---------------------------------------------------------------------------------


@fault(101, "a duplicate response on one of several connections")
def test_duplicate_beside_clean_connections(way: Way) -> None:
    """Only this connection's messages are POSTed again. No connection to the receiver is used again."""
    shown: list[float] = []

    def slowly(link: Link) -> None:
        while post := link.read():
            time.sleep(0.01)
            link.answer(post)
            if post.closes:
                return

    def twice(link: Link) -> None:
        for _ in range(3):
            link.answer(link.read())
        shown.append(time.monotonic())
        link.answer(link.read(), then=OK)
        answer_all(link)

    with way(twice, default=slowly) as receiver:
        done = tried(receiver, run_context(), payloads(60), concurrency=3)
    assert done.report["delivered"] == 60
    assert len(receiver.on(0)) == 4
    assert receiver.counts == twice_where_doubted(receiver, 60)
    later = [post for post in receiver.posts if post.at > shown[0] + 0.2]
    assert later, "no message was left to send when the duplicate showed"
    assert all(receiver.on(post.connection)[0] == post.message for post in later)
