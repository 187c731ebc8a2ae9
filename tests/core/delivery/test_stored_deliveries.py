"""What a ledger's head counts, compared with the messages in the ledger when it is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.delivery.delivery_record import About, PostOutcome, about_of
from airflow_insightly_hooks.core.delivery.ledger import ACKNOWLEDGED, FAILED, GONE, IN_DOUBT, Ledger
from airflow_insightly_hooks.core.delivery.ledger_store import LedgerStore
from airflow_insightly_hooks.core.delivery.resend_requests import LedgerRequest
from airflow_insightly_hooks.core.delivery.stored_deliveries import (
    DELIVERED,
    DRY_RUN,
    LEFT,
    UNSENT,
    StoredLedger,
    time_or_none,
)
from airflow_insightly_hooks.core.errors import InvalidState
from tests.conftest import StateStore

START = datetime(2026, 1, 31, 8, tzinfo=timezone.utc)


def message(number: int) -> str:
    return f"msg_{number:024x}"


class Task:
    """A task whose tries move acknowledged messages out of the ledger, as a workflow in one task does."""

    def __init__(self) -> None:
        self.store = StateStore()
        self.generation, self.tries, self.posts = 0, 0, 0
        self.requests: list[LedgerRequest] = []
        self.last_success: datetime | None = None
        self.is_moving = False
        self.begin()

    def begin(self) -> None:
        self.tries += 1
        self.ledgers = LedgerStore(self.store, f"{self.tries}-a")
        self.ledger: Ledger = self.ledgers.open(self.generation, 99, self.requests)

    def do(self, step: str, number: int) -> None:
        one = message(number)
        match step:
            case "expect":
                self.ledger.expect(one, about_of("Contacts", number, "added", "2026-01-31T08:00:00Z"))
            case "acknowledged" | "failed" | "gone" if not self.ledger.is_settled(one):
                self.do("expect", number)
                self.posts += 1
                at = START + timedelta(seconds=self.posts)
                self.ledger.posting(one)
                self.ledger.answered(
                    one, step, PostOutcome(at, 0.1, 200 if step == ACKNOWLEDGED else 410, None)
                )
                if step == ACKNOWLEDGED:
                    self.last_success = at
            case "move":  # the store may write before these are forgotten
                moved = self.ledger.move_acknowledged()
                self.write()
                self.ledger.forget(moved)
            case "killed while it moves":
                self.ledger.move_acknowledged()
                self.write()
                self.begin()
            case "retry":
                self.write()
                self.begin()
            case "clear":
                self.write()
                self.generation += 1
                self.begin()
            case "resend":
                self.write()
                self.generation += 1
                asked = {one: about_of("Contacts", number, "added", "2026-01-31T08:00:00Z")}
                self.requests.append(LedgerRequest(f"r{len(self.requests)}", clears=True, messages=asked))
                self.begin()

    def write(self) -> None:
        self.ledgers.write(self.ledger)
        ledger = StoredLedger.find(self.store.get)
        if ledger is None:
            return
        states = Counter(one.state == DELIVERED for one in ledger.messages(self.store.get))
        assert (ledger.delivered, ledger.undelivered) == (states[True], states[False])
        assert time_or_none(ledger.acknowledged_at) == self.last_success


STEPS = (
    *("expect", ACKNOWLEDGED, FAILED, GONE, "write"),
    *("move", "killed while it moves", "retry", "clear", "resend"),
)


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 5)), max_size=30))
def test_a_head_counts_what_its_ledger_has(steps: list[tuple[str, int]]) -> None:
    """The head always counts each message once, even if it was moved, sent again, or a try was killed."""
    task = Task()
    for step, number in steps:
        task.write() if step == "write" else task.do(step, number)
    task.write()


@pytest.mark.parametrize(
    ("head", "delivered", "undelivered"),
    [
        ({"counts": {}}, 0, 0),
        ({"counts": {"acknowledged": 2, "failed": 1, "gone": 1, "in doubt": 1}}, 2, 3),
        ({"counts": {"acknowledged": 2, "failed": 1}, "about": {"left_to": "flow__retry"}}, 2, 0),
        ({"counts": {"failed": 3}, "about": {"dry_run": True}}, 0, 0),
        ({"counts": {"acknowledged": 1}, "archive": 1, "archived": 8}, 9, 0),
        ({"counts": {"failed": 1}, "archive": 1}, None, 1),
        ({"blocks": 1}, None, None),
        ({"blocks": 1, "about": {"left_to": "flow__retry"}}, None, None),
        ({"counts": {"acknowledged": "2"}}, None, None),
        ({"counts": 5}, None, None),
    ],
)
def test_what_heads_of_all_versions_count(
    head: dict[str, Any], delivered: int | None, undelivered: int | None
) -> None:
    """A number that an earlier version has not counted is unknown.

    Messages left to another DAG count there.
    """
    ledger = StoredLedger("1-a", head)
    assert (ledger.delivered, ledger.undelivered) == (delivered, undelivered)
    assert ledger.acknowledged_at is None
    assert isinstance(ledger.counts, Mapping)


STORED: dict[str, Any] = {
    "delivery": {"version": 2, "epoch": 1, "token": "t", "of": ["earlier"]},
    "delivery/earlier/head": {"blocks": 2, "done": 1, "earlier": [["first", 1]]},
    "delivery/first/done/0": {"a": "A1 Contacts 7 added 2026-01-31T08:00:00Z"},
    "delivery/earlier/done/0": {"b": "A2"},
    "delivery/earlier/0": {"f": "F1", "n": "F0", "b": "A3"},
    "delivery/earlier/1": {"d": "D0", "g": "G1"},
}


@pytest.mark.parametrize(
    ("about", "waits"),
    [({}, None), ({"left_to": "flow__retry", "dry_run": True}, LEFT), ({"dry_run": True}, DRY_RUN)],
)
def test_messages_of_a_stored_ledger(about: dict[str, Any], waits: str | None) -> None:
    """Each once, as it was stored last; one that wasn't POSTed, or waits elsewhere, is told as such."""
    values = {**STORED, "delivery/earlier/head": {**STORED["delivery/earlier/head"], "about": about}}
    ledger = StoredLedger.find(values.get)
    assert ledger is not None
    found = {one.message_id: one for one in ledger.messages(values.get)}
    assert {name: (one.state, one.attempts) for name, one in found.items()} == {
        "a": (DELIVERED, 1),
        "b": (DELIVERED, 3),
        "f": (waits or FAILED, 1),
        "n": (waits or UNSENT, 0),
        "d": (waits or IN_DOUBT, 0),
        "g": (waits or GONE, 1),
    }
    assert found["a"].about == About("Contacts", 7, "added", "2026-01-31T08:00:00Z")


def test_the_newest_ledger_that_has_a_head_is_found() -> None:
    """The ledger of the try that has the claim, once it has written one; before that, an earlier one's."""
    ledger = StoredLedger.find(STORED.get)
    assert ledger is not None
    assert ledger.token == "earlier"
    newer = {**STORED, "delivery/t/head": {"blocks": 0}}
    ledger = StoredLedger.find(newer.get)
    assert ledger is not None
    assert ledger.token == "t"
    assert StoredLedger.find({**newer, "delivery/t/head": "x"}.get) is None
    assert StoredLedger.find({}.get) is None


def test_an_entry_that_cannot_be_read() -> None:
    """It is told which message it is of; a claim that is none is told, too."""
    values = {**STORED, "delivery/earlier/1": {"m": "?"}}
    ledger = StoredLedger.find(values.get)
    assert ledger is not None
    with pytest.raises(InvalidState) as caught:
        list(ledger.messages(values.get))
    assert (caught.value.key, caught.value.reason) == ("m", "an entry of the ledger can't be read")
    with pytest.raises(InvalidState) as caught:
        StoredLedger.find({"delivery": "x"}.get)
    assert (caught.value.key, caught.value.reason) == ("delivery", "it is not an object")


@pytest.mark.parametrize("at", [None, 5, "", "soon"])
def test_a_last_success_that_cannot_be_read(at: Any) -> None:
    """It is treated as missing."""
    assert time_or_none(StoredLedger("1-a", {"acknowledged_at": at}).acknowledged_at) is None
