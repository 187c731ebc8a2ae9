"""The parts of a delivery besides the ledger: the queue, concurrency, progress and the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.delivery.cpu_limit import MEASURE_INTERVAL, CpuLimit
from airflow_insightly_hooks.core.delivery.ledger import ACKNOWLEDGED, FAILED, GONE, IN_DOUBT, Ledger
from airflow_insightly_hooks.core.delivery.receiver_limit import ReceiverLimit
from airflow_insightly_hooks.core.delivery.report import Failure, Tally, combined, joint_progress, make_report
from airflow_insightly_hooks.core.delivery.send_queue import SendQueue
from airflow_insightly_hooks.core.errors import InvalidTime

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def payload(message_id: str, record_id: int = 1, second: int = 0, **more: Any) -> Any:
    return {
        "message_id": message_id,
        "record_type": "Contacts",
        "record_id": record_id,
        "event": "updated",
        "changed_at": f"2026-01-01T00:00:{second:02}Z",
        "body": "{}",
        **more,
    }


def ledger_of(**states: tuple[str, int]) -> Ledger:
    ledger = Ledger(generation=2)
    for message, (state, attempts) in states.items():
        for _ in range(attempts):
            ledger.posting(message)
            ledger.answered(message, state)
    return ledger


def ids(payloads: list[Any]) -> list[str]:
    return [payload["message_id"] for payload in payloads]


# --- the queue -------------------------------------------------------------------------------------------


def test_without_an_order_all_may_go():
    """Payloads go in the order in which they are given. A payload doesn't wait for one that is settled."""
    given_ = [payload("b", second=2), payload("a", second=1), payload("x"), payload("g"), payload("u")]
    ledger = ledger_of(x=(ACKNOWLEDGED, 1), g=(GONE, 1), u=(FAILED, 3))
    queue = SendQueue(given_, ledger, ordered=False)
    assert len(queue) == 2
    first = queue.take(1)
    queue.delivered(first[0])
    assert ids(first + queue.take(9)) == ["b", "a"]
    assert queue.held_back() == set()


def test_in_order_a_record_has_one_under_way():
    """A record's next change is sent when the one before is delivered. Other records are sent meanwhile."""
    queue = SendQueue(
        [payload("c", 1, 3), payload("a", 1, 1), payload("z", 2, 9), payload("b", 1, 2)],
        Ledger(),
        ordered=True,
    )
    first = queue.take(9)
    assert ids(first) == ["a", "z"]
    assert len(queue) == 2
    assert queue.take(9) == []
    queue.delivered(first[1])
    queue.delivered(first[0])
    assert ids(queue.take(9)) == ["b"]
    assert queue.held_back() == {"c"}


@pytest.mark.parametrize("state", [(GONE, 1), (FAILED, 3), (IN_DOUBT, 3)])
def test_in_order_what_stays_undelivered_holds_back_the_rest(state):
    """If a change is not sent any more in this round, the later changes of its record are not sent either."""
    given_ = [payload("a", 1, 1), payload("b", 1, 2), payload("c", 1, 3), payload("z", 2, 1)]
    queue = SendQueue(given_, ledger_of(a=(ACKNOWLEDGED, 1), b=state), ordered=True)
    assert (ids(queue.take(9)), queue.held_back()) == (["z"], {"c"})


def test_in_order_times_must_be_times():
    """A time that can't be read is refused if the order depends on it. The error doesn't show its text."""
    given_ = [payload("a", changed_at="soon"), payload("b")]
    assert len(SendQueue(given_, Ledger(), ordered=False)) == 2
    with pytest.raises(InvalidTime, match="changed_at"):
        SendQueue(given_, Ledger(), ordered=True)


def test_in_order_means_the_instant():
    """Times are compared as instants, not as texts. Payloads with the same instant keep their order."""
    given_ = [
        payload("b", changed_at="2026-01-01T00:00:00.5Z"),
        payload("a", changed_at="2026-01-01T00:00:00Z"),
        payload("c", changed_at="2026-01-01T00:00:00.5Z"),
    ]
    queue = SendQueue(given_, Ledger(), ordered=True)
    sent = []
    while batch := queue.take(2):
        sent += ids(batch)
        queue.delivered(batch[0])
    assert sent == ["a", "b", "c"]


def test_what_was_not_sent_goes_back_to_the_front():
    """In the order in which it was taken."""
    queue = SendQueue([payload(m) for m in "abc"], Ledger(), ordered=False)
    queue.put_back(queue.take(2))
    assert ids(queue.take(9)) == ["a", "b", "c"]


def test_whether_a_change_is_awaited():
    """Only in order, and only while a later change of the same record waits."""
    given_ = [payload("a", 1, 1), payload("b", 1, 2), payload("z", 2, 1)]
    queue = SendQueue(given_, Ledger(), ordered=True)
    assert [queue.is_awaited(p) for p in queue.take(9)] == [True, False]
    queue = SendQueue(given_, Ledger(), ordered=False)
    assert [queue.is_awaited(p) for p in queue.take(9)] == [False, False, False]


# --- concurrency -----------------------------------------------------------------------------------------


def answers(
    receiver_limit: ReceiverLimit, now: float, count: int, elapsed: float = 0.01, **what: bool
) -> float:
    """Feed these answers, one after another; return the time after the last."""
    for _ in range(count):
        now += elapsed
        receiver_limit.answered(now, elapsed, **{"acknowledged": True, "overrun": False, **what})
    return now


def test_an_overrun_receiver_gets_half():
    """Each 429 halves the number of POSTs at once, down to one.

    Answers to POSTs from before don't halve it again.
    """
    receiver_limit = ReceiverLimit(8)
    now = answers(receiver_limit, 0.0, 1, acknowledged=False, overrun=True)
    assert receiver_limit.limit == 4
    receiver_limit.answered(now + 0.5, 1.0, acknowledged=False, overrun=True)
    assert receiver_limit.limit == 4
    answers(receiver_limit, now + 1, 5, acknowledged=False, overrun=True)
    assert receiver_limit.limit == 1


def test_it_comes_back_one_by_one():
    """Each ``most`` acknowledgements in a row add one, up to the limit.

    After a failure counting starts again.
    """
    receiver_limit = ReceiverLimit(4)
    now = answers(receiver_limit, 0.0, 1, acknowledged=False, overrun=True)
    now = answers(receiver_limit, now, 3)
    now = answers(receiver_limit, now, 1, acknowledged=False)
    now = answers(receiver_limit, now, 3)
    assert receiver_limit.limit == 2
    now = answers(receiver_limit, now, 1)
    assert receiver_limit.limit == 3
    answers(receiver_limit, now, 100)
    assert receiver_limit.limit == 4


def test_growing_latency_is_overrun():
    """If the mean latency is well above the best one, concurrency is halved.

    Small changes and slow receivers don't count.
    """
    receiver_limit = ReceiverLimit(8)
    now = answers(receiver_limit, 0.0, 80, elapsed=0.05)
    now = answers(receiver_limit, now, 80, elapsed=0.2)
    assert receiver_limit.limit == 8
    now = answers(receiver_limit, now, 8, elapsed=0.5)
    assert receiver_limit.limit == 4
    slow = ReceiverLimit(8)
    answers(slow, 0.0, 800, elapsed=10.0)
    assert slow.limit == 8


@given(
    st.integers(1, 64),
    st.lists(st.tuples(st.floats(0, 60), st.booleans(), st.booleans()), max_size=200),
)
def test_concurrency_stays_within_its_bounds(most, given_answers):
    """Whatever the answers are, at least one POST is allowed, and never more than the limit."""
    receiver_limit = ReceiverLimit(most)
    now = 0.0
    for elapsed, acknowledged, overrun in given_answers:
        now += elapsed
        receiver_limit.answered(now, elapsed, acknowledged=acknowledged, overrun=overrun)
        assert 1 <= receiver_limit.limit <= most


def use(cpu_limit: CpuLimit, share: Callable[[int], float], seconds: float = 5.0) -> int:
    """Let some time pass in which a number of threads use ``share`` of a processor; return the limit."""
    now = used = 0.0
    while now < seconds:
        cpu_limit.measure(now, used)
        now += MEASURE_INTERVAL / 3
        used += MEASURE_INTERVAL / 3 * share(cpu_limit.limit)
    return cpu_limit.limit


def test_a_used_up_processor_gets_fewer_threads():
    """If threads use up a processor, two are left. If they wait, all of them are."""
    assert use(CpuLimit(16), lambda _: 1.0) == 2
    assert use(CpuLimit(16), lambda _: 0.3) == 16
    assert use(CpuLimit(1), lambda _: 1.2) == 1


def test_threads_come_back_when_they_wait():
    """If a receiver gets slower again, the threads come back: at each look there are twice as many."""
    cpu_limit = CpuLimit(64)
    cpu_limit.measure(0.0, 0.0)
    for step in range(1, 21):
        cpu_limit.measure(step * MEASURE_INTERVAL, step * MEASURE_INTERVAL)
    assert cpu_limit.limit == 2
    for step in range(21, 29):
        cpu_limit.measure(step * MEASURE_INTERVAL, 20 * MEASURE_INTERVAL)
    assert cpu_limit.limit == 64


@pytest.mark.parametrize("each", [0.05, 0.1, 0.2, 0.4])
def test_as_many_threads_as_a_processor_has_use_for(each):
    """Whatever share of a processor a thread uses, together they use most of one processor, and no more."""
    limit = use(CpuLimit(64), lambda limit: min(1.3, limit * each))
    assert 0.5 <= limit * each <= 1.0


@given(st.integers(1, 64), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 8)), max_size=100))
def test_threads_stay_within_their_bounds(most, looks):
    """Whatever the load is, two threads may work, if there are so many, and never more than the limit."""
    cpu_limit, now, used = CpuLimit(most), 0.0, 0.0
    for passed, share in looks:
        now, used = now + passed, used + passed * share
        cpu_limit.measure(now, used)
        assert min(2, most) <= cpu_limit.limit <= most


# --- reports and progress -------------------------------------------------------------------------------


def report(payloads: list[Any], ledger: Ledger, failures: dict[str, Failure] | None = None) -> Any:
    return make_report(payloads, ledger, failures or {}, lambda m: f"not sent: for a reason of {m}", NOW, NOW)


def test_each_kind_of_undelivered_payload_says_why():
    """The reason is an error of this try, what the ledger knows of the payload, or why it wasn't sent."""
    ledger = ledger_of(a=(ACKNOWLEDGED, 1), f=(FAILED, 1), g=(GONE, 1), u=(FAILED, 3), d=(IN_DOUBT, 1))
    failures = {"f": Failure(503, "answered 503"), "r": Failure(400, "answered 400", "no")}
    made = report(
        [*[payload(m) for m in "afgudnr"], payload("b", undeliverable="no email")], ledger, failures
    )
    assert [(i["message_id"], i["status"], i["error"], i["attempts"]) for i in made["undelivered"]] == [
        ("f", 503, "answered 503", 1),
        ("g", None, "the receiver said in an earlier try that it will never accept it (410)", 1),
        ("u", None, "no attempt is left: 3 attempts made, 3 allowed", 3),
        ("d", None, "in doubt: it was POSTed, but the outcome is not recorded", 1),
        ("n", None, "not sent: for a reason of n", 0),
        ("r", 400, "answered 400; the response: no", 0),
        ("b", None, "no body can be built: no email", 0),
    ]
    assert {(i["record_type"], i["record_id"], i["event"]) for i in made["undelivered"]} == {
        ("Contacts", 1, "updated")
    }
    assert {k: v for k, v in made.items() if k != "undelivered"} == {
        "total": 8,
        "delivered": 1,
        "attempts": 7,
        "started_at": "2026-01-01T00:00:00Z",
        "ended_at": "2026-01-01T00:00:00Z",
    }


@pytest.mark.slow
@pytest.mark.parametrize("error", ["short", "ä" * 5000, "\x00" * 300])
def test_a_report_stays_small(error):
    """However many payloads are undelivered, a report stays below 48 KB, and counts them all."""
    payloads = [payload(f"{number:064}") for number in range(100_000)]
    made = report(payloads, Ledger(), {p["message_id"]: Failure(None, error) for p in payloads})
    assert len(json.dumps(made).encode()) < 48_000
    assert 0 < len(made["undelivered"]) <= 200
    assert (made["undelivered_count"], made["delivered"]) == (100_000, 0)


def test_what_a_request_holds_back_says_so():
    """A try that sends only what was asked for again leaves the rest."""
    ledger = ledger_of(a=(FAILED, 1), b=(FAILED, 1))
    ledger.is_restricted, ledger.requested = True, {"a"}
    made = report([payload("a"), payload("b")], ledger)
    assert [item["error"] for item in made["undelivered"]] == [
        "not sent: for a reason of a",
        "not sent: this try sends only the messages that were requested again",
    ]


def test_a_report_lists_two_hundred():
    """Two reports that share one's size list half as many each."""
    payloads = [payload(f"{number}") for number in range(300)]
    for count, listed in ((1, 200), (2, 100)):
        made = make_report(payloads, Ledger(), {}, lambda _: "e", NOW, NOW, report_count=count)
        assert (len(made["undelivered"]), made["undelivered_count"]) == (listed, 300)
    assert len(report(payloads, Ledger())["undelivered"]) == 200
    assert "undelivered_count" not in report(payloads[:200], Ledger())


def test_reports_add_up():
    """Several webhooks' reports make one, from the first beginning to the last end."""
    one = report([payload("a"), payload("b")], ledger_of(a=(ACKNOWLEDGED, 1), b=(FAILED, 2)))
    more = {**one, "started_at": "2025-12-31T00:00:00Z", "ended_at": "2026-01-02T00:00:00Z"}
    together = {
        "total": 4,
        "delivered": 2,
        "undelivered": one["undelivered"] * 2,
        "attempts": 6,
        "started_at": "2025-12-31T00:00:00Z",
        "ended_at": "2026-01-02T00:00:00Z",
    }
    assert combined([one, more]) == combined([more, one]) == together
    unlisted = {**one, "undelivered": [], "undelivered_count": 1}
    assert combined([more, unlisted]) == {
        **together,
        "undelivered": one["undelivered"],
        "undelivered_count": 2,
    }


def test_progress_of_several_receivers():
    """What all of them have done since the first began."""
    tallies = [Tally(5, now=50.0), Tally(5, now=55.0)]
    for tally in tallies:
        tally.delivered(payload("a"))
        tally.delivered(payload("a"))
    tallies[0].failed("answered 503")
    assert joint_progress(tallies, 60.0) == (
        "5 payloads sent to 2 receivers so far, 4 acknowledged, 1 failing, 0.5/s"
    )
    assert joint_progress(tallies[1:], 55.0) == "2 payloads sent so far, 2 acknowledged, 0 failing, 2000.0/s"


def test_the_first_acknowledged_payloads_are_named():
    """Twenty of them, by record and message; the others are counted."""
    tally = Tally(100, now=0.0)
    assert tally.list_delivered() == ""
    for number in range(20):
        tally.delivered(payload(f"m{number}", record_id=number))
    names = ", ".join(f"Contacts {number} (m{number})" for number in range(20))
    assert tally.list_delivered() == names
    tally.delivered(payload("x"))
    tally.delivered(payload("y"))
    assert tally.list_delivered() == f"{names} and 2 more"
    assert tally.acknowledged == 22


def test_progress():
    """It says how many are sent, acknowledged and failing, how fast, and how long the rest will take."""
    tally = Tally(1000, now=50.0)
    assert tally.progress(55.0).endswith("0 failing, 0.0/s, no answer yet")
    tally.acknowledged = 90
    for _ in range(10):
        tally.failed("answered 503")
    assert tally.progress(60.0) == (
        "100 of 1,000 payloads sent, 90 acknowledged, 10 failing, 10.0/s, about 90 s left"
    )
    assert tally.progress(50.5).endswith("10 failing, 200.0/s, about 4 s left")


def test_table_of_failures():
    """The table has each kind of failure with its count, the most frequent first, and at most twenty rows."""
    tally = Tally(100, now=0.0)
    assert tally.table() == ""
    for kind in ("answered 500", "no answer within 30 s", "answered 500"):
        tally.failed(kind)
    assert tally.table() == (
        "Not acknowledged, by kind:\n        2  answered 500\n        1  no answer within 30 s"
    )
    for number in range(50):
        tally.failed(f"kind {number}")
    assert tally.table().endswith("and 32 more kinds")
    assert tally.failures == 53
