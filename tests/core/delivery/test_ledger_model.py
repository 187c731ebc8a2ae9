"""The ledger as a state machine: tries that crash, overlap, are retried and cleared, against one store.

The store's calls are where tries interleave: a write may fail at any of them, or a later try may begin there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from airflow_insightly_hooks.core.delivery import ledger as delivery
from airflow_insightly_hooks.core.delivery.ledger import ACKNOWLEDGED, FAILED, GONE, Ledger
from airflow_insightly_hooks.core.delivery.ledger_store import HEAD, LedgerStore
from airflow_insightly_hooks.core.delivery.report import make_report
from airflow_insightly_hooks.core.delivery.resend_requests import (
    LedgerRequest,
    ResendRequest,
    add_request,
    read_requests,
)
from airflow_insightly_hooks.core.delivery.send_queue import SendQueue
from airflow_insightly_hooks.core.errors import SupersededError
from airflow_insightly_hooks.core.payload import Payload

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
PAYLOADS: list[Payload] = [
    {
        "message_id": f"m{number}",
        "record_type": "Contacts",
        "record_id": number // 2,
        "event": "updated",
        "changed_at": f"2026-01-01T00:00:0{number}Z",
        "body": "{}",
    }
    for number in range(7)
]
ALL = {payload["message_id"] for payload in PAYLOADS}


class Store:
    """A state store that runs an action at one of its next calls."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.calls_left = 0
        self.happens: Callable[[], None] | None = None

    def _call(self) -> None:
        self.calls_left -= 1
        if self.calls_left <= 0 and self.happens is not None:
            happens, self.happens = self.happens, None
            happens()

    def get(self, key: str, default: Any = None) -> Any:
        self._call()
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any) -> None:
        self._call()
        self.values[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        self._call()
        self.values.pop(key, None)


@dataclass(eq=False)
class Try:
    """A try of the task, as the operator makes it.

    :ivar ready: written as in doubt, to be POSTed.
    :ivar again: acknowledged earlier, and to be sent again by this try.
    """

    token: str
    writer: LedgerStore
    ledger: Ledger
    queue: SendQueue
    ready: list[Payload] = field(default_factory=list)
    under_way: list[Payload] = field(default_factory=list)
    again: set[str] = field(default_factory=set)


def round_of(ledger: Ledger) -> str:
    return f"{ledger.generation} {sorted(r for r, of in ledger.resends.items() if of == ledger.generation)}"


class DeliveryMachine(RuleBasedStateMachine):
    """A deliver task's life."""

    @initialize(ordered=st.booleans(), max_attempts=st.integers(1, 6))
    def begin(self, ordered: bool, max_attempts: int) -> None:
        self.store = Store()
        self.ordered = ordered
        self.generation = 2
        self.max_attempts = max_attempts
        self.begun = 0
        self.tries: list[Try] = []  # the tries that are alive
        self.received: Counter[tuple[str, str]] = Counter()  # POSTs, by round and message
        self.allowed: Counter[str] = Counter()  # the most that a try of the round was allowed
        self.acknowledged: set[str] = set()  # all that the receiver has ever acknowledged
        self.recorded: set[str] = set()  # acknowledged, and the write that records it has succeeded
        self.requests = 0
        self.start()

    def start(self) -> None:
        """Begin a try: read the ledger, and find out what is to be sent."""
        self.begun += 1
        writer = LedgerStore(self.store, f"t{self.begun}")
        ledger = writer.open(self.generation, self.max_attempts, self.asked())
        again = {m for m in self.recorded if ledger[m].state != ACKNOWLEDGED}
        assert again <= ledger.requested, "acknowledged, and to be sent again unasked"
        self.allowed[round_of(ledger)] = max(self.allowed[round_of(ledger)], self.max_attempts)
        queue = SendQueue(PAYLOADS, ledger, ordered=self.ordered)
        self.tries.append(Try(f"t{self.begun}", writer, ledger, queue, again=set(again)))

    def asked(self) -> list[LedgerRequest]:
        return [request.of_ledger("") for request in read_requests(self.store)]

    @property
    def holder(self) -> str:
        return json.loads(self.store.values[HEAD])["token"]

    # --- what may happen ---------------------------------------------------------------------------------

    @precondition(lambda self: len(self.tries) < 3)
    @rule()
    def retry(self) -> None:
        self.start()

    @precondition(lambda self: len(self.tries) < 3)
    @rule(messages=st.sets(st.sampled_from(sorted(ALL)), min_size=1), clears=st.booleans())
    def ask_again(self, messages: set[str], clears: bool) -> None:
        """A user asks for messages again, while no try is alive. Then a try begins."""
        self.tries.clear()
        self.requests += 1
        request = ResendRequest(
            f"r{self.requests}", "", "", clears, {"": dict.fromkeys(sorted(messages), "")}
        )
        assert add_request(self.store, request, begun=[])
        if clears:
            self.generation += 3
        self.start()

    @rule(max_attempts=st.integers(1, 6))
    def change_retries(self, max_attempts: int) -> None:
        """The DAG's author changes the retries. The new number counts from the next try on."""
        self.max_attempts = max_attempts

    @precondition(lambda self: len(self.tries) < 3)
    @rule()
    def clear(self) -> None:
        self.generation += 3
        self.start()

    @precondition(lambda self: self.tries)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        self.tries.remove(data.draw(st.sampled_from(self.tries)))

    @precondition(lambda self: self.tries)
    @rule(data=st.data(), count=st.integers(1, 5), calls=st.integers(1, 8), event=st.sampled_from("--fl"))
    def prepare(self, data: st.DataObject, count: int, calls: int, event: str) -> None:
        """Note and write a batch. If writing fails for good, the notes are undone and the try ends."""
        one = data.draw(st.sampled_from(self.tries))
        batch = one.queue.take(count)
        for payload in batch:
            one.ledger.posting(payload["message_id"])
        if self.write(one, calls, event):
            one.ready += batch

    @precondition(lambda self: self.tries)
    @rule(data=st.data(), calls=st.integers(1, 8), event=st.sampled_from("--fl"))
    def write_now(self, data: st.DataObject, calls: int, event: str) -> None:
        self.write(data.draw(st.sampled_from(self.tries)), calls, event)

    def write(self, one: Try, calls: int, event: str) -> bool:
        """Write, while the store fails (f) or a later try begins (l) at a call; return whether it worked."""
        self.store.calls_left = calls
        self.store.happens = {"f": self.fail, "l": self.begin_later}.get(event)
        known = {m for m in ALL if one.ledger[m].state == ACKNOWLEDGED}
        try:
            try:
                one.writer.write(one.ledger)
            except OSError:  # once more, as the operator does
                one.writer.write(one.ledger)
        except SupersededError:
            assert self.holder != one.token
            self.tries.remove(one)  # the outcomes of its POSTs are not recorded
            self.recorded -= one.again  # the later try may know of the request, and continues with it
            return False
        finally:
            self.store.happens = None
        self.recorded = self.recorded - one.again | known
        return True

    def fail(self) -> None:
        raise OSError("the store is down")

    def begin_later(self) -> None:
        self.start()

    @precondition(lambda self: any(one.ready for one in self.tries))
    @rule(data=st.data())
    def post(self, data: st.DataObject) -> None:
        self.post_first(data.draw(st.sampled_from([one for one in self.tries if one.ready])))

    def post_first(self, one: Try) -> None:
        payload = one.ready.pop(0)
        message = payload["message_id"]
        one.under_way.append(payload)
        self.received[round_of(one.ledger), message] += 1
        if self.holder == one.token:  # an earlier try notices with its next write
            assert message not in self.recorded - one.again, "acknowledged, recorded, and POSTed again"
        assert not one.ledger.is_restricted or message in one.ledger.requested, "nobody has asked for it"
        if self.ordered:
            records = [p["record_id"] for p in one.under_way]
            assert len(records) == len(set(records)), "two changes of one record at once"

    @precondition(lambda self: any(one.under_way for one in self.tries))
    @rule(data=st.data(), state=st.sampled_from([ACKNOWLEDGED, FAILED, GONE]))
    def answer(self, data: st.DataObject, state: str) -> None:
        one = data.draw(st.sampled_from([one for one in self.tries if one.under_way]))
        payload = one.under_way.pop(0)
        one.ledger.answered(payload["message_id"], state)
        if state == ACKNOWLEDGED:
            self.acknowledged.add(payload["message_id"])
            one.again.discard(payload["message_id"])
            one.queue.delivered(payload)

    @precondition(lambda self: self.tries)
    @rule(is_killed=st.booleans())
    def fail_all_and_retry(self, is_killed: bool) -> None:
        """The latest try POSTs all that is left. It gets no acknowledgement, or is killed before that."""
        one = self.tries[-1]
        self.prepare_and_post(one)
        for payload in () if is_killed else one.under_way:
            one.ledger.answered(payload["message_id"], FAILED)
        if one in self.tries:
            self.write(one, 1, "-")
        self.tries.clear()
        self.start()

    def prepare_and_post(self, one: Try) -> None:
        batch = one.queue.take(len(PAYLOADS))
        for payload in batch:
            one.ledger.posting(payload["message_id"])
        if self.write(one, 1, "-"):
            one.ready += batch
            while one.ready:
                self.post_first(one)

    @precondition(lambda self: any(one.ready for one in self.tries))
    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from([one for one in self.tries if one.ready]))
        one.ledger.not_posted(one.ready.pop()["message_id"])

    # --- what must hold ----------------------------------------------------------------------------------

    @invariant()
    def nothing_is_posted_more_often_than_it_may_be(self) -> None:
        assert all(posts <= self.allowed[of] for (of, _), posts in self.received.items())

    @invariant()
    def whatever_is_recorded_is_read_by_the_next_try(self) -> None:
        again = {m for one in self.tries if one.token == self.holder for m in one.again}
        values = dict(self.store.values)
        ledger = LedgerStore(self.store, "look").open(self.generation, self.max_attempts, self.asked())
        self.store.values = values
        if not self.tries:  # the try that had begun a request crashed before it wrote: the next one begins it
            again |= ledger.requested
        assert self.recorded - again <= {m for m in ALL if ledger[m].state == ACKNOWLEDGED} | self.reset()

    def reset(self) -> set[str]:
        """Return the messages that are to be sent again because a user has asked for it."""
        return {m for one in self.tries for m in one.again}

    @invariant()
    def each_is_acknowledged_or_reported(self) -> None:
        for one in self.tries:
            report = make_report(PAYLOADS, one.ledger, {}, lambda _: "not sent", NOW, NOW)
            reported = {item["message_id"] for item in report["undelivered"]}
            assert report["delivered"] + len(reported) == report["total"] == len(PAYLOADS)
            assert reported >= ALL - self.acknowledged
            assert all(item["error"] for item in report["undelivered"])


@pytest.mark.slow
def test_delivery_keeps_its_promises_whatever_happens(monkeypatch):
    """Over POSTs, failing writes, crashes, retries, clearing, requests to send again and tries that overlap:
    what is acknowledged and recorded is not POSTed again unasked, nothing is POSTed more often in a round
    than a try of it may, and what isn't acknowledged is reported."""
    monkeypatch.setattr(delivery, "BLOCK_BYTES", 400)
    run_state_machine_as_test(DeliveryMachine, settings=settings(stateful_step_count=40))
