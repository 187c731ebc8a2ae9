"""Message ids, and the ledger: what is acknowledged stays so, whatever happens between two writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from airflow_insightly_hooks.core import delivery
from airflow_insightly_hooks.core.delivery import (
    ACKNOWLEDGED,
    FAILED,
    GONE,
    HEAD,
    IN_DOUBT,
    Ledger,
    LedgerEntry,
    block_keys,
    message_id,
)
from airflow_insightly_hooks.core.errors import InvalidState
from tests.strategies import changes

IDS = json.loads((Path(__file__).parent.parent / "vectors" / "message_ids.json").read_text())["cases"]
STATE_LIMIT = 60_000
"""Bytes of JSON that an entry of Airflow's state stores safely holds."""


# --- message ids -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", IDS, ids=lambda case: case["hashed"])
def test_known_message_ids(case):
    """Ids are what sha256sum makes of the parts; a new version must not change them."""
    parts = (case["workflow"], case["record_type"], case["record_id"], case["event"], case["changed_at"])
    assert message_id(*parts) == case["message_id"]


def test_parts_of_a_message_id_are_kept_apart():
    """What stands at the end of one part is not mistaken for the start of the next."""
    assert message_id("a", "bContacts", 1, "added", "t") != message_id("ab", "Contacts", 1, "added", "t")
    assert message_id("a", "Contacts", 11, "added", "t") != message_id("a", "Contacts1", 1, "added", "t")


@given(changes(), st.text(st.characters(codec="utf-8")))
def test_a_message_id_depends_on_the_change_alone(change, workflow):
    """The same change has the same id each time, the record's contents left out; another has another."""
    about = (change["record_type"], change["record_id"], change["event"], change["changed_at"])
    first = message_id(workflow, *about)
    assert first == message_id(workflow, *about)
    assert first.startswith("msg_")
    assert len(first) == 28
    assert "." not in first
    others = [
        message_id(f"{workflow}.", *about),
        message_id(workflow, about[0], about[1] + 1, *about[2:]),
        message_id(workflow, *about[:2], "deleted", about[3]),
        message_id(workflow, *about[:3], "2001-01-01T00:00:00Z"),
    ]
    assert len({first, *others}) == 5


# --- the ledger --------------------------------------------------------------------------------------------


def stored(ledger: Ledger) -> dict[str, Any]:
    """Return what a ledger asks to be stored, as JSON holds it."""
    return {key: json.loads(json.dumps(value)) for key, value in ledger.changed()}


def loaded(store: dict[str, Any], generation: int = 0) -> Ledger:
    """Return the ledger that a store holds."""
    head = store.get(HEAD)
    return Ledger.load(head, [store.get(key) for key in block_keys(head)], generation)


def test_a_message_that_is_unknown_is_outstanding():
    """What was never POSTed is to be POSTed."""
    ledger = Ledger()
    assert ledger["m"] == ("unsent", 0)
    assert ledger.outstanding(["m", "n"]) == ["m", "n"]


def test_a_posting_is_an_attempt_in_doubt():
    """From before its POST until its outcome is noted, a message is in doubt, hence outstanding."""
    ledger = Ledger()
    ledger.posting("m")
    assert ledger["m"] == LedgerEntry(IN_DOUBT, 1)
    assert ledger.outstanding(["m"]) == ["m"]


@pytest.mark.parametrize(("state", "outstanding"), [(ACKNOWLEDGED, []), (FAILED, ["m"]), (GONE, [])])
def test_outcomes(state, outstanding):
    """Acknowledged and gone messages are not POSTed again, failed ones are; the attempt counts."""
    ledger = Ledger()
    ledger.posting("m")
    ledger.answered("m", state)
    assert ledger["m"] == (state, 1)
    assert ledger.outstanding(["m"]) == outstanding


def test_what_was_not_posted_is_no_attempt():
    """Where nothing left this machine, the attempt is taken back, and earlier ones still count."""
    ledger = Ledger()
    ledger.posting("m")
    ledger.not_posted("m")
    assert ledger["m"] == (FAILED, 0)
    ledger.posting("m")
    ledger.answered("m", FAILED)
    ledger.posting("m")
    ledger.not_posted("m")
    assert ledger["m"] == (FAILED, 1)


def test_outstanding_keeps_the_order():
    """Messages come out in the order that they are asked in."""
    ledger = Ledger()
    for message in "cab":
        ledger.posting(message)
    ledger.answered("a", ACKNOWLEDGED)
    assert ledger.outstanding(["d", "c", "a", "b"]) == ["d", "c", "b"]


def test_how_a_ledger_is_stored():
    """A head and blocks of message ids with a letter and a number: a form that later versions must read."""
    ledger = Ledger(generation=2)
    for message, state in (("a", ACKNOWLEDGED), ("f", FAILED), ("g", GONE)):
        ledger.posting(message)
        ledger.answered(message, state)
    ledger.posting("f")
    ledger.answered("f", FAILED)
    ledger.posting("d")
    assert list(ledger.changed()) == [
        ("delivery/0", {"a": "A1", "f": "F2", "g": "G1", "d": "D1"}),
        ("delivery", {"version": 1, "generation": 2, "blocks": 1}),
    ]


def test_a_new_ledger_has_nothing_to_store():
    """Nothing is written for nothing, and nothing stored is an empty ledger."""
    assert stored(Ledger()) == {}
    assert block_keys(None) == []
    assert loaded({})["m"] == ("unsent", 0)


def test_only_what_changed_is_stored_again(monkeypatch):
    """A change touches the block of its message; the head, which comes last, only when there is one more."""
    monkeypatch.setattr(delivery, "BLOCK_SIZE", 2)
    ledger = Ledger()
    for message in "abcde":
        ledger.posting(message)
    assert list(stored(ledger)) == ["delivery/0", "delivery/1", "delivery/2", "delivery"]
    assert stored(ledger) == {}
    ledger.answered("c", ACKNOWLEDGED)
    assert list(stored(ledger)) == ["delivery/1"]
    ledger.posting("f")
    ledger.posting("g")
    assert list(stored(ledger)) == ["delivery/2", "delivery/3", "delivery"]


def test_a_loaded_ledger_has_nothing_to_store():
    """Within a round, loading changes nothing; the next note is stored with its block."""
    ledger = Ledger()
    ledger.posting("a")
    again = loaded(stored(ledger))
    assert stored(again) == {}
    again.posting("b")
    assert stored(again) == {"delivery/0": {"a": "D1", "b": "D1"}}


@pytest.mark.parametrize("fails_at", range(4))
def test_a_store_that_fails_half_way_gets_the_rest_next_time(monkeypatch, fails_at):
    """What was not taken, the head included, is yielded again; what was taken is not."""
    monkeypatch.setattr(delivery, "BLOCK_SIZE", 1)
    ledger = Ledger()
    for message in "abc":
        ledger.posting(message)
    keys = ["delivery/0", "delivery/1", "delivery/2", "delivery"]

    def write() -> None:
        for key, _ in ledger.changed():
            if key == keys[fails_at]:
                raise OSError("store is down")

    with pytest.raises(OSError, match="store is down"):
        write()
    assert list(stored(ledger)) == keys[fails_at:]
    assert stored(ledger) == {}


def test_a_cleared_task_starts_a_new_round():
    """In a later generation what had failed, was gone or in doubt is POSTed anew, attempts from nought."""
    ledger = Ledger()
    for message, state in (("a", ACKNOWLEDGED), ("f", FAILED), ("g", GONE)):
        ledger.posting(message)
        ledger.answered(message, state)
    ledger.posting("d")
    store = stored(ledger)
    assert loaded(store).outstanding("afgd") == ["f", "d"]
    cleared = loaded(store, generation=1)
    assert cleared.outstanding("afgd") == ["f", "g", "d"]
    assert [cleared[message] for message in "afgd"] == [
        (ACKNOWLEDGED, 1),
        (FAILED, 0),
        (FAILED, 0),
        (FAILED, 0),
    ]


def test_a_new_round_is_a_new_round_in_every_block(monkeypatch):
    """After a note and a crash, messages of the blocks that were not touched are of the new round, too."""
    monkeypatch.setattr(delivery, "BLOCK_SIZE", 2)
    ledger = Ledger()
    for message, state in (("a", FAILED), ("b", FAILED), ("c", FAILED), ("g", GONE)):
        ledger.posting(message)
        ledger.answered(message, state)
    store = stored(ledger)
    cleared = loaded(store, generation=1)
    cleared.posting("a")
    store.update(stored(cleared))
    retried = loaded(store, generation=1)
    assert retried.outstanding("abcg") == ["a", "b", "c", "g"]
    assert [retried[message].attempts for message in "abcg"] == [1, 0, 0, 0]


def test_what_a_new_round_writes_first(monkeypatch):
    """Before anything is noted, the head and the blocks that it changes are stored, the others are not."""
    monkeypatch.setattr(delivery, "BLOCK_SIZE", 1)
    ledger = Ledger()
    for message, state in (("a", ACKNOWLEDGED), ("g", GONE)):
        ledger.posting(message)
        ledger.answered(message, state)
    store = stored(ledger)
    cleared = loaded(store, generation=1)
    assert stored(cleared) == {
        "delivery/1": {"g": "F0"},
        "delivery": {"version": 1, "generation": 1, "blocks": 2},
    }
    assert stored(cleared) == {}


def test_entries_of_a_large_ledger_stay_small():
    """With 100,000 messages each entry to be stored stays below what a state store holds."""
    ledger = Ledger(generation=10**6)
    for record_id in range(100_000):
        message = message_id("workflow", "Contacts", record_id, "updated", "2020-05-01T09:00:00Z")
        ledger.posting(message)
    sizes = [len(json.dumps(value).encode()) for _, value in ledger.changed()]
    assert len(sizes) == 101
    assert max(sizes) < STATE_LIMIT


# --- what is refused ---------------------------------------------------------------------------------------

HEAD_OF_ONE = {"version": 1, "generation": 0, "blocks": 1}


@pytest.mark.parametrize(
    ("head", "blocks", "key", "reason"),
    [
        (
            {**HEAD_OF_ONE, "version": 2},
            [{}],
            HEAD,
            "it was written by another version of airflow-insightly-hooks",
        ),
        ({"generation": 0, "blocks": 1}, [{}], HEAD, "its version is missing"),
        ({"version": 1, "generation": 0}, [{}], HEAD, "its blocks is missing"),
        ({"version": 1, "blocks": 1}, [{}], HEAD, "its generation is missing"),
        ({**HEAD_OF_ONE, "blocks": "1"}, [{}], HEAD, "its blocks is missing"),
        ("head", [{}], HEAD, "its generation is missing"),
        (
            HEAD_OF_ONE,
            [None],
            "delivery/0",
            "a part of the ledger is missing: it can't be told what was delivered",
        ),
        (
            HEAD_OF_ONE,
            [["m"]],
            "delivery/0",
            "a part of the ledger is missing: it can't be told what was delivered",
        ),
        (HEAD_OF_ONE, [{"m": "X1"}], "delivery/0", "an entry of the ledger can't be read"),
        (HEAD_OF_ONE, [{"m": "A"}], "delivery/0", "an entry of the ledger can't be read"),
        (HEAD_OF_ONE, [{"m": "A-1"}], "delivery/0", "an entry of the ledger can't be read"),
        (HEAD_OF_ONE, [{"m": ""}], "delivery/0", "an entry of the ledger can't be read"),
        (HEAD_OF_ONE, [{"m": 1}], "delivery/0", "an entry of the ledger can't be read"),
    ],
)
def test_a_ledger_that_cannot_be_read_is_refused(head, blocks, key, reason):
    """InvalidState names the entry: guessing would POST again what was delivered, or lose what wasn't."""
    with pytest.raises(InvalidState) as caught:
        Ledger.load(head, blocks, generation=0)
    assert (caught.value.key, caught.value.reason) == (key, reason)


# --- the ledger as a state machine ------------------------------------------------------------------------

MESSAGES = st.sampled_from([f"msg_{i}" for i in range(9)])


class LedgerMachine(RuleBasedStateMachine):
    """A deliver task's life: POSTs, writes that may fail half-way, crashes, retries and clearing."""

    @initialize(generation=st.integers(0, 3))
    def begin(self, generation: int) -> None:
        self.store: dict[str, Any] = {}
        self.ledger = Ledger(generation)
        self.known: dict[str, tuple[str, int]] = {}  # what the ledger should know
        self.written: dict[str, tuple[str, int]] = {}  # the same, when it was last written in full
        self.posts: dict[str, int] = {}  # POSTs begun in this round
        self.said_gone: set[str] = set()  # what the receiver has said it won't take, in this round
        self.is_torn = False  # a write has failed, and none has been complete since

    @property
    def under_way(self) -> list[str]:
        return [message for message, (state, _) in self.known.items() if state == IN_DOUBT]

    @rule(message=MESSAGES)
    def post(self, message: str) -> None:
        if self.ledger.outstanding([message]):
            self.ledger.posting(message)
            self.posts[message] = self.posts.get(message, 0) + 1
            self.known[message] = (IN_DOUBT, self.known.get(message, ("", 0))[1] + 1)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), state=st.sampled_from([ACKNOWLEDGED, FAILED, GONE]))
    def answer(self, data: st.DataObject, state: str) -> None:
        message = data.draw(st.sampled_from(self.under_way))
        self.ledger.answered(message, state)
        self.known[message] = (state, self.known[message][1])
        if state == GONE:
            self.said_gone.add(message)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(self.under_way))
        self.ledger.not_posted(message)
        self.known[message] = (FAILED, self.known[message][1] - 1)

    @rule()
    def write(self) -> None:
        self.store.update(stored(self.ledger))
        self.written = dict(self.known)
        self.is_torn = False
        assert stored(self.ledger) == {}

    @rule(entries=st.integers(0, 3))
    def write_and_fail(self, entries: int) -> None:
        for i, (key, value) in enumerate(self.ledger.changed()):
            if i == entries:
                self.is_torn = True
                return
            self.store[key] = value
        self.written = dict(self.known)
        self.is_torn = False

    @rule()
    def crash_and_retry(self) -> None:
        self._load()

    @rule()
    def clear(self) -> None:
        self._load(rounds=1)

    def _load(self, rounds: int = 0) -> None:
        generation = self.ledger.generation + rounds
        self.ledger = loaded(self.store, generation)
        if rounds:
            self.posts, self.said_gone = {}, set()
            self.written = {
                message: entry if entry[0] == ACKNOWLEDGED else (FAILED, 0)
                for message, entry in self.written.items()
            }
        if not self.is_torn:
            assert {m: self.ledger[m] for m in self.written} == self.written
        self.known = {
            m: tuple(entry) for i in range(9) if (entry := self.ledger[m := f"msg_{i}"]).state != "unsent"
        }

    @invariant()
    def what_was_acknowledged_and_written_is_never_outstanding(self) -> None:
        acknowledged = [m for m, (state, _) in self.written.items() if state == ACKNOWLEDGED]
        assert self.ledger.outstanding(acknowledged) == []

    @invariant()
    def the_ledger_knows_what_was_noted(self) -> None:
        assert {m: tuple(self.ledger[m]) for m in self.known} == self.known

    @invariant()
    def only_what_is_acknowledged_or_gone_in_this_round_is_withheld(self) -> None:
        for message, (state, _) in self.known.items():
            withheld = not self.ledger.outstanding([message])
            assert withheld == (state in (ACKNOWLEDGED, GONE))
            assert state != GONE or message in self.said_gone

    @invariant()
    def attempts_are_those_of_this_round(self) -> None:
        for message, (state, attempts) in self.known.items():
            assert state == ACKNOWLEDGED or attempts <= self.posts.get(message, 0)


def test_the_ledger_keeps_its_promises_whatever_happens(monkeypatch):
    """Over POSTs, writes, failures, crashes and clearing: what is acknowledged and written is never POSTed
    again, what is loaded is what was stored, and a new round forgets what failed in the one before."""
    monkeypatch.setattr(delivery, "BLOCK_SIZE", 2)
    run_state_machine_as_test(LedgerMachine, settings=settings(max_examples=80, stateful_step_count=40))
