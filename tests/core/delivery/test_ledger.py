"""Message ids, and the ledger: an acknowledged message stays so, whatever happens between two writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.delivery import ledger as delivery
from airflow_insightly_hooks.core.delivery.acknowledged_ids import AcknowledgedIds
from airflow_insightly_hooks.core.delivery.delivery_record import PostOutcome, about_of
from airflow_insightly_hooks.core.delivery.ledger import (
    ACKNOWLEDGED,
    FAILED,
    GONE,
    IN_DOUBT,
    Ledger,
    LedgerEntry,
)
from airflow_insightly_hooks.core.delivery.message_id import message_id, message_id_of
from airflow_insightly_hooks.core.delivery.resend_requests import LedgerRequest
from airflow_insightly_hooks.core.errors import InvalidState
from tests.deliveries import outstanding_of
from tests.strategies import changes

IDS = json.loads((Path(__file__).parent.parent.parent / "vectors" / "message_ids.json").read_text())["cases"]
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
STATE_LIMIT = 60_000
"""How many bytes of JSON an entry of Airflow's state stores can always hold."""


# --- message ids -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", IDS, ids=lambda case: case["hashed"])
def test_known_message_ids(case):
    """An id is what sha256sum gives for the parts. A new version must not change the ids."""
    parts = (case["workflow"], case["record_type"], case["record_id"], case["event"], case["changed_at"])
    assert message_id(*parts) == case["message_id"]


def test_parts_of_a_message_id_are_kept_apart():
    """Moving text from the end of one part to the start of the next changes the id."""
    assert message_id("a", "bContacts", 1, "added", "t") != message_id("ab", "Contacts", 1, "added", "t")
    assert message_id("a", "Contacts", 11, "added", "t") != message_id("a", "Contacts1", 1, "added", "t")


@given(changes(), st.text(st.characters(codec="utf-8")))
def test_a_message_id_depends_on_the_change_alone(change, workflow):
    """The same change always has the same id, whatever the record's contents are.

    Another change has another id.
    """
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
    assert message_id_of(change, workflow) == first


# --- the ledger --------------------------------------------------------------------------------------------


def stored(ledger: Ledger) -> dict[str, Any]:
    """Return what a ledger asks to store, after a way through JSON."""
    return {key: json.loads(json.dumps(value)) for key, value in ledger.changed()}


def loaded(
    store: dict[str, Any], generation: int = 0, max_attempts: int = 3, requests: Sequence[LedgerRequest] = ()
) -> Ledger:
    """Return a ledger that was read from what was stored."""
    head = store["head"]
    blocks = [store.get(str(block)) for block in range(head["blocks"])]
    return Ledger.load(head, blocks, generation, max_attempts, requests=requests)


def test_a_message_that_is_unknown_is_outstanding():
    """A message that was never POSTed is to be POSTed."""
    ledger = Ledger()
    assert ledger["m"] == ("unsent", 0)
    assert outstanding_of(ledger, ["m", "n"]) == ["m", "n"]


def test_a_posting_is_an_attempt_in_doubt():
    """From before its POST until its outcome is recorded, a message is in doubt. It is to be sent again."""
    ledger = Ledger()
    ledger.posting("m")
    assert ledger["m"] == LedgerEntry(IN_DOUBT, 1)
    assert outstanding_of(ledger, ["m"]) == ["m"]


@pytest.mark.parametrize(("state", "outstanding"), [(ACKNOWLEDGED, []), (FAILED, ["m"]), (GONE, [])])
def test_outcomes(state, outstanding):
    """Acknowledged and gone messages are not POSTed again; failed ones are.

    Each POST counts as an attempt.
    """
    ledger = Ledger()
    ledger.posting("m")
    ledger.answered("m", state)
    assert ledger["m"] == (state, 1)
    assert outstanding_of(ledger, ["m"]) == outstanding


@given(st.lists(st.sampled_from([FAILED, IN_DOUBT]), min_size=1, max_size=8), st.booleans())
def test_attempts_are_used_up(states, is_stored):
    """In a round, a message gets as many POSTs as are allowed, whatever their outcomes.

    A retry continues the count.
    """
    ledger = Ledger(max_attempts=len(states))
    for number, state in enumerate(states, 1):
        assert outstanding_of(ledger, ["m"]) == ["m"]
        ledger.posting("m")
        if state == FAILED:
            ledger.answered("m", FAILED)
        assert ledger["m"] == (state, number)
        if is_stored:
            ledger = loaded(stored(ledger), max_attempts=len(states))
    assert outstanding_of(ledger, ["m"]) == []
    cleared = loaded(stored(ledger), 1, len(states))
    assert (cleared["m"], outstanding_of(cleared, ["m"])) == ((FAILED, 0), ["m"])


def test_three_attempts_by_default():
    """A ledger without an argument allows as many attempts as the operators do by default."""
    assert Ledger().max_attempts == 3


@given(st.integers(1, 8), st.integers(1, 8), st.sampled_from([FAILED, IN_DOUBT]))
def test_another_number_of_attempts(made, allowed, state):
    """The number is not stored: if it was changed between two tries, the new one counts."""
    store = {
        "0": {"m": f"{'F' if state == FAILED else 'D'}{made}", "a": "A1"},
        "head": {
            "generation": 0,
            "blocks": 1,
            "counts": {"acknowledged": 1, state: 1},
        },
    }
    ledger = loaded(store, max_attempts=allowed)
    assert ledger["m"] == (state, made)
    assert outstanding_of(ledger, ["m", "a", "n"]) == ["m", "n"][made >= allowed :]
    assert stored(ledger) == store


@given(st.integers(0, 8), st.integers(1, 8))
def test_attempts_of_another_tasks_ledger(made, allowed):
    """If a message moves to another task's ledger, its earlier attempts count there."""
    ledger = Ledger(max_attempts=allowed)
    ledger.go_on_from("m", f"F{made}" if made else "")
    posts = 0
    while not ledger.is_settled("m"):
        ledger.posting("m")
        ledger.answered("m", FAILED)
        posts += 1
    assert posts == max(allowed - made, 0)


def test_an_interrupted_posting_is_taken_back(monkeypatch):
    """A task's time-out may interrupt the noting of a POST.

    Then the note is undone, and no trace of it is left.
    """

    def interrupted(*_: Any) -> None:
        raise TimeoutError

    ledger = Ledger()
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_note", interrupted)
        with pytest.raises(TimeoutError):
            ledger.posting("m")
    ledger.not_posted("m")
    assert ledger["m"] == ("unsent", 0)
    assert list(ledger.changed()) == []


def test_what_was_not_posted_is_no_attempt():
    """If nothing left this machine, the message has its earlier state again, even if that was "in doubt"."""
    ledger = Ledger()
    ledger.posting("m")
    ledger.not_posted("m")
    assert ledger["m"] == ("unsent", 0)
    assert stored(ledger) == {"0": {}, "head": {"generation": 0, "blocks": 1, "counts": {}}}
    ledger.posting("m")
    ledger.answered("m", FAILED)
    ledger.posting("m")
    ledger.not_posted("m")
    assert ledger["m"] == (FAILED, 1)
    ledger.posting("m")
    again = loaded({**stored(ledger), "head": {"generation": 0, "blocks": 1}})
    again.posting("m")
    again.not_posted("m")
    assert again["m"] == (IN_DOUBT, 2)


def test_an_outcome_without_a_post_is_kept():
    """Why nothing was sent stands in the message's record, which is stored again, and no state changes."""
    ledger = Ledger()
    ledger.expect("m", "Contacts 7 added x")
    stored(ledger)
    ledger.not_posted("m", PostOutcome(NOW, 0, None, "stopped", is_sent=False))
    assert ledger.details_of("m") == "Contacts 7 added x ~@1767225600+0!0"
    assert stored(ledger)["0"] == {"m": "F0 Contacts 7 added x ~@1767225600+0!0"}
    ledger.posting("m")
    ledger.answered("m", ACKNOWLEDGED, PostOutcome(NOW, 1, 200, None))
    ledger.not_posted("m")
    assert ledger["m"] == (ACKNOWLEDGED, 1)
    ledger.keep_outcome("n", PostOutcome(NOW, 1, 200, None))
    assert ledger.details_of("n") == ""


def test_an_entry_for_another_tasks_ledger():
    """It is the entry's text; a message that was not POSTed in this round has none, and begins anew there."""
    ledger = Ledger()
    for message, state in (("a", ACKNOWLEDGED), ("f", FAILED)):
        ledger.posting(message)
        ledger.answered(message, state)
    ledger.expect("n", "")
    assert [ledger.text_of(message) for message in "afnu"] == ["A1", "F1", "", ""]
    with pytest.raises(InvalidState) as caught:
        ledger.go_on_from("u", "?")
    assert caught.value.key == "u"


def test_what_is_not_acknowledged():
    """Each message that has an entry is told with its record; those that are acknowledged are left out."""
    ledger = Ledger()
    for message, state in (("a", ACKNOWLEDGED), ("f", FAILED)):
        ledger.expect(message, f"about {message}")
        ledger.posting(message)
        ledger.answered(message, state)
    ledger.posting("d")
    entries = [("a", (ACKNOWLEDGED, 1), "about a"), ("f", (FAILED, 1), "about f"), ("d", (IN_DOUBT, 1), "")]
    assert list(ledger.entries()) == entries
    assert list(ledger.unacknowledged()) == [("f", "about f"), ("d", "")]


def test_outstanding_keeps_the_order():
    """Messages come out in the order in which they were asked for."""
    ledger = Ledger()
    for message in "cab":
        ledger.posting(message)
    ledger.answered("a", ACKNOWLEDGED)
    assert outstanding_of(ledger, ["d", "c", "a", "b"]) == ["d", "c", "b"]


def test_how_a_ledger_is_stored():
    """It is a head, and blocks with a letter and a number for each message id.

    Later versions must read this form.
    """
    ledger = Ledger(generation=2)
    for message, state in (("a", ACKNOWLEDGED), ("f", FAILED), ("g", GONE)):
        ledger.posting(message)
        ledger.answered(message, state)
    ledger.posting("f")
    ledger.answered("f", FAILED)
    ledger.posting("d")
    assert list(ledger.changed()) == [
        ("0", {"a": "A1", "f": "F2", "g": "G1", "d": "D1"}),
        (
            "head",
            {
                "generation": 2,
                "blocks": 1,
                "counts": {"acknowledged": 1, "failed": 1, "gone": 1, "in doubt": 1},
            },
        ),
    ]


def test_a_new_ledger_has_nothing_to_store():
    """An empty ledger writes nothing. One that was stored without messages is stored again."""
    ledger = Ledger()
    assert stored(ledger) == {}
    ledger.expect("m", "")
    ledger.forget(["m"])
    assert stored(ledger) == {}
    head = {"generation": 0, "blocks": 0}
    assert stored(loaded({"head": head})) == {"head": {**head, "counts": {}}}


def test_only_what_changed_is_stored_again(monkeypatch):
    """A change rewrites the block of its message, and then the head, which counts states."""
    monkeypatch.setattr(delivery, "BLOCK_BYTES", 400)
    ledger = Ledger()
    for message in "abcde":
        ledger.posting(message)
    assert list(stored(ledger)) == ["0", "1", "2", "head"]
    assert stored(ledger) == {}
    ledger.answered("c", ACKNOWLEDGED)
    assert list(stored(ledger)) == ["1", "head"]
    ledger.posting("f")
    ledger.posting("g")
    assert list(stored(ledger)) == ["2", "3", "head"]


def test_a_loaded_ledger_is_to_be_stored_whole():
    """Each try has its own keys, so it stores everything once. After that it stores only what it changes."""
    ledger = Ledger()
    ledger.posting("a")
    again = loaded(stored(ledger))
    head = {"generation": 0, "blocks": 1, "counts": {"in doubt": 1}}
    assert stored(again) == {"0": {"a": "D1"}, "head": head}
    again.posting("b")
    assert stored(again) == {"0": {"a": "D1", "b": "D1"}, "head": head | {"counts": {"in doubt": 2}}}


def test_what_is_still_to_be_sent_is_stored_together(monkeypatch):
    """If a few of many messages have failed, sending them again changes only a few blocks."""
    monkeypatch.setattr(delivery, "BLOCK_BYTES", 400)
    ledger = Ledger()
    for message in "abcdef":
        ledger.posting(message)
        ledger.answered(message, FAILED if message in "be" else ACKNOWLEDGED)
    again = loaded(stored(ledger))
    stored(again)
    for message in "be":
        again.posting(message)
    assert list(stored(again)) == ["2", "head"]
    assert again["b"] == again["e"] == (IN_DOUBT, 2)


@pytest.mark.parametrize("fails_at", range(4))
def test_a_store_that_fails_half_way_gets_the_rest_next_time(monkeypatch, fails_at):
    """Entries that the store did not take, the head included, are yielded again; the others are not."""
    monkeypatch.setattr(delivery, "BLOCK_BYTES", 200)
    ledger = Ledger()
    for message in "abc":
        ledger.posting(message)
    keys = ["0", "1", "2", "head"]

    def write() -> None:
        for key, _ in ledger.changed():
            if key == keys[fails_at]:
                raise OSError("store is down")

    with pytest.raises(OSError, match="store is down"):
        write()
    assert list(stored(ledger)) == keys[fails_at:]
    assert stored(ledger) == {}


def test_a_cleared_task_starts_a_new_round():
    """After a clear, messages that failed, are gone or in doubt are POSTed again, with attempts from zero."""
    ledger = Ledger()
    for message, state in (("a", ACKNOWLEDGED), ("f", FAILED), ("g", GONE)):
        ledger.posting(message)
        ledger.answered(message, state)
    ledger.posting("d")
    store = stored(ledger)
    assert outstanding_of(loaded(store), "afgd") == ["f", "d"]
    cleared = loaded(store, generation=1)
    assert outstanding_of(cleared, "afgd") == ["f", "g", "d"]
    assert [cleared[message] for message in "afgd"] == [
        (ACKNOWLEDGED, 1),
        (FAILED, 0),
        (FAILED, 0),
        (FAILED, 0),
    ]


def asked(request: str, messages: str, *, clears: bool = False) -> LedgerRequest:
    return LedgerRequest(request, clears, dict.fromkeys(messages, ""))


def test_a_request_is_begun_once():
    """It begins a new round for its messages, even acknowledged ones. No later retry or clear repeats it."""
    ledger = Ledger()
    for message, state in (("a", ACKNOWLEDGED), ("b", ACKNOWLEDGED), ("g", GONE)):
        ledger.posting(message)
        ledger.answered(message, state)
    first, second = asked("first", "ag"), asked("second", "ab?")
    again = loaded(stored(ledger), requests=[first])
    assert [again[m] for m in "abg"] == [(FAILED, 0), (ACKNOWLEDGED, 1), (FAILED, 0)]
    again.posting("a")
    again.answered("a", ACKNOWLEDGED)
    again = loaded(stored(again), requests=[first])
    assert outstanding_of(again, "abg") == ["g"]
    again = loaded(stored(again), requests=[first, second])
    assert outstanding_of(again, "abg?") == ["a", "b", "g", "?"]
    for message in "ab?":
        again.posting(message)
        again.answered(message, ACKNOWLEDGED)
    cleared = loaded(stored(again), generation=1, requests=[first, second])
    assert outstanding_of(cleared, "abg?") == ["g"]


@pytest.mark.parametrize("is_retried", [False, True])
def test_a_round_for_a_request(is_retried):
    """If the task was cleared for a request, all other messages stay as they are until the next clear."""
    ledger = Ledger()
    for message, state in (("a", ACKNOWLEDGED), ("f", FAILED), ("g", GONE)):
        ledger.posting(message)
        ledger.answered(message, state)
    request = asked("first", "ag", clears=True)
    again = loaded(stored(ledger), generation=1, requests=[request])
    if is_retried:
        again = loaded(stored(again), generation=1, requests=[request])
    assert outstanding_of(again, "afg?") == ["a", "g"]
    assert (again["f"], again.is_held("f"), again.is_held("a")) == ((FAILED, 1), True, False)
    joined = loaded(stored(again), generation=1, requests=[request, asked("second", "f")])
    assert outstanding_of(joined, "afg?") == ["a", "f", "g"]
    cleared = loaded(stored(joined), generation=2, requests=[request])
    assert outstanding_of(cleared, "afg?") == ["a", "f", "g", "?"]


def test_a_request_that_comes_after_a_clear_holds_nothing_back():
    """If a user cleared the task first, it sends the missing messages and the requested ones."""
    ledger = Ledger()
    for message, state in (("a", ACKNOWLEDGED), ("f", FAILED)):
        ledger.posting(message)
        ledger.answered(message, state)
    again = loaded(stored(ledger), generation=1, requests=[asked("first", "a")])
    assert outstanding_of(again, "af") == ["a", "f"]
    assert again["f"] == (FAILED, 0)


def test_a_request_tells_the_change_of_a_message_that_has_no_record():
    """What the ledger knows of a message itself holds on."""
    ledger = Ledger()
    ledger.expect("a", "known")
    ledger.begin_resends(
        [LedgerRequest("r", clears=False, messages={"a": "asked", "b": "asked"})], is_new_round=True
    )
    assert [ledger.details_of(message) for message in "ab"] == ["known", "asked"]
    assert stored(ledger)["0"] == {"a": "F0 known", "b": "F0 asked"}


def test_when_a_message_was_acknowledged_last():
    """It is kept from try to try; what isn't a text is left out."""
    ledger = Ledger()
    ledger.posting("m")
    ledger.answered("m", ACKNOWLEDGED, PostOutcome(NOW, 1, 200, None))
    store = stored(ledger)
    assert store["head"]["acknowledged_at"] == "2026-01-01T00:00:00Z"
    assert stored(loaded(store))["head"] == store["head"]
    store["head"]["acknowledged_at"] = 5
    assert "acknowledged_at" not in stored(loaded(store))["head"]


def test_what_was_moved_out_counts_once():
    """Also while it has an entry: until it is forgotten, after a crash, and when it is asked for again."""

    def archived(ledger: Ledger) -> tuple[int, dict[str, int]]:
        head = stored(ledger)["head"]
        return head["archived"], head["counts"]

    messages = [f"msg_{number:024x}" for number in range(4)]
    ledger = Ledger()
    for first, second in (messages[:2], messages[2:]):
        for message in (first, second):
            ledger.expect(message, f"about {message}")
            ledger.posting(message)
            ledger.answered(message, ACKNOWLEDGED)
        moved = ledger.move_acknowledged()
    assert moved == messages
    store = stored(ledger)
    assert (store["head"]["archived"], store["head"]["counts"]) == (0, {"acknowledged": 4})
    assert store["head"]["done"] == 2
    assert store["done/1"] == {message: f"A1 about {message}" for message in messages}
    acknowledged = AcknowledgedIds.load([store["archive/0"], store["archive/1"]])
    blocks = [store["0"]]
    again = Ledger.load(store["head"], blocks, 0, 3, acknowledged)
    assert archived(again) == (0, {"acknowledged": 4})
    again.forget(messages[1:])
    assert archived(again) == (3, {"acknowledged": 1})
    assert again.details_of(messages[1]) == ""
    asked_for = LedgerRequest("r", clears=False, messages=dict.fromkeys([*messages[:3], "m"], ""))
    again.begin_resends([asked_for], is_new_round=False)
    assert archived(again) == (1, {"failed": 4})
    more = LedgerRequest("s", clears=False, messages=dict.fromkeys(messages, ""))
    again.begin_resends([asked_for, more], is_new_round=False)
    assert archived(again) == (0, {"failed": 5})


def test_what_is_known_of_the_task_is_stored_whenever_it_changes():
    """It is stored even after the ledger was written: that messages are left to another DAG is known last."""
    ledger = Ledger()
    ledger.about["conn_id"] = "billing"
    ledger.expect("m", "Contacts 1 added 2026-01-01T00:00:00Z")
    stored(ledger)
    ledger.about["left_to"] = "flow__retry"
    assert stored(ledger)["head"]["about"] == {"conn_id": "billing", "left_to": "flow__retry"}


def test_requests_that_are_gone_are_forgotten():
    """The task remembers a request as long as the request exists."""
    ledger = loaded(stored(loaded({"head": {"generation": 0, "blocks": 0}}, requests=[asked("first", "a")])))
    assert ledger.resends == {}


@pytest.mark.slow
def test_entries_of_a_large_ledger_stay_small():
    """With 20,000 messages, the longest ids and many outcomes, each entry fits into a state."""
    ledger = Ledger(generation=10**6, max_attempts=9)
    for number in range(20_000):
        ledger.expect(
            f"{number:064}", about_of("A_custom_object__c", 10**12, "updated", "2026-01-01T00:00:00Z")
        )
        for attempt in range(4):
            ledger.posting(f"{number:064}")
            outcome = PostOutcome(datetime.now(timezone.utc), 120.0, 503, f"error {attempt}")
            ledger.answered(f"{number:064}", FAILED, outcome)
    sizes = [len(json.dumps(value).encode()) for _, value in ledger.changed()]
    assert len(sizes) == 85
    assert max(sizes) < STATE_LIMIT


# --- what is refused ---------------------------------------------------------------------------------------

MISSING = "a part of the ledger is missing, so it is not known what was delivered"
UNREADABLE = "an entry of the ledger can't be read"


@pytest.mark.parametrize(
    ("blocks", "key", "reason"),
    [
        ([None], "0", MISSING),
        ([{}, ["m"]], "1", MISSING),
        ([{"m": "X1"}], "0", UNREADABLE),
        ([{"m": "A"}], "0", UNREADABLE),
        ([{"m": "A-1"}], "0", UNREADABLE),
        ([{"m": ""}], "0", UNREADABLE),
        ([{"m": 1}], "0", UNREADABLE),
    ],
)
def test_a_ledger_that_cannot_be_read_is_refused(blocks, key, reason):
    """InvalidState names the block. A guess could POST delivered messages again, or lose others."""
    with pytest.raises(InvalidState) as caught:
        Ledger.load({"generation": 0, "blocks": len(blocks)}, blocks, generation=0, max_attempts=3)
    assert (caught.value.key, caught.value.reason) == (key, reason)
