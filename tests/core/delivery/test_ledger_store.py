"""The ledger in a state store: claims, older versions, and state that can't be read."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_insightly_hooks.core.delivery.delivery_record import PostOutcome
from airflow_insightly_hooks.core.delivery.ledger import ACKNOWLEDGED, FAILED, Ledger
from airflow_insightly_hooks.core.delivery.ledger_store import HEAD, LedgerStore, done_keys
from airflow_insightly_hooks.core.delivery.resend_requests import LedgerRequest
from airflow_insightly_hooks.core.delivery.stored_deliveries import StoredLedger
from airflow_insightly_hooks.core.errors import InvalidState, NewerState, SupersededError
from tests.conftest import StateStore
from tests.deliveries import outstanding_of

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
NEWER = str(NewerState(HEAD, 3, 2)).partition(": ")[2]


def opened(store: StateStore, token: str, generation: int = 0) -> tuple[LedgerStore, Ledger]:
    writer = LedgerStore(store, token)
    return writer, writer.open(generation, 3)


def post(ledger: Ledger, state: str, *messages: str) -> None:
    for message in messages:
        ledger.posting(message)
        ledger.answered(message, state)


def store_of(**values: Any) -> StateStore:
    store = StateStore()
    for key, value in values.items():
        store.set(key.replace("__", "/"), value)
    return store


def test_a_try_goes_on_where_the_last_one_ended():
    """A try reads what the try before has written, and then deletes the earlier keys."""
    store = StateStore()
    writer, ledger = opened(store, "one")
    post(ledger, ACKNOWLEDGED, "a")
    post(ledger, FAILED, "f")
    writer.write(ledger)
    writer, ledger = opened(store, "two")
    assert (ledger["a"], ledger["f"]) == ((ACKNOWLEDGED, 1), (FAILED, 1))
    assert "delivery/one/0" in store.values
    writer.write(ledger)
    assert sorted(store.values) == ["delivery", "delivery/two/0", "delivery/two/head"]
    opened(store, "three")
    assert store.get(HEAD) == {"version": 2, "epoch": 3, "token": "three", "of": ["two"]}


def test_a_try_that_has_written_nothing_leaves_it_to_those_before():
    """A crash between the claim and the first write loses nothing, even twice in a row."""
    store = StateStore()
    writer, ledger = opened(store, "one")
    post(ledger, ACKNOWLEDGED, "a")
    writer.write(ledger)
    opened(store, "two")
    opened(store, "three")
    assert store.get(HEAD)["of"] == ["two", "one"]
    writer, ledger = opened(store, "four")
    assert ledger["a"] == (ACKNOWLEDGED, 1)


def test_texts_that_the_head_does_not_know_of():
    """If a try is killed before it wrote the head, an error that it stored belongs to its message alone."""
    store = StateStore()
    writer, ledger = opened(store, "one")
    outcome = PostOutcome(NOW, 0.1, 422, "answer to a")
    ledger.expect("a", "Contacts 1 added 2026-01-01T00:00:00Z")
    ledger.expect("b", "Contacts 2 added 2026-01-01T00:00:00Z")
    ledger.posting("b")
    writer.write(ledger)
    ledger.posting("a")
    ledger.answered("a", FAILED, outcome)
    for key, value in ledger.changed():
        if key != "head":
            store.set(f"delivery/one/{key}", value)
    writer, ledger = opened(store, "two")
    ledger.answered("b", FAILED, outcome._replace(error="answer to b"))
    writer.write(ledger)
    found = StoredLedger.find(store.get)
    assert found is not None
    errors = {m.message_id: m.outcomes[-1].error for m in found.messages(store.get)}
    assert errors == {"a": "answer to a", "b": "answer to b"}


def test_the_later_try_wins():
    """The earlier try notices it with its next write. No later try reads that write."""
    store = StateStore()
    early, early_ledger = opened(store, "early")
    late, late_ledger = opened(store, "late")
    post(early_ledger, FAILED, "m")
    with pytest.raises(SupersededError):
        early.write(early_ledger)
    post(late_ledger, ACKNOWLEDGED, "m")
    late.write(late_ledger)
    with pytest.raises(SupersededError):
        early.write(early_ledger)
    assert opened(store, "third")[1]["m"] == (ACKNOWLEDGED, 1)


def test_an_earlier_claim_that_comes_later_is_put_right():
    """If an earlier try's claim is written after a later one, the later try overwrites it and continues."""
    store = StateStore()
    early, early_ledger = opened(store, "early")
    early_claim = store.get(HEAD)
    late, late_ledger = opened(store, "late")
    store.set(HEAD, early_claim)
    post(late_ledger, ACKNOWLEDGED, "m")
    late.write(late_ledger)
    assert store.get(HEAD)["token"] == "late"
    with pytest.raises(SupersededError):
        early.write(early_ledger)


@pytest.mark.parametrize(
    "found",
    [
        None,
        "x",
        {"version": 2, "epoch": "1"},
        {"version": 2, "epoch": 1, "token": "other"},  # claimed at the same time, and written later
        {"version": 9, "epoch": 1},
        {"version": 9},
    ],
)
def test_a_claim_that_is_gone_is_no_longer_ours(found):
    """If the claim was deleted, or is of an unknown kind, nothing more is written."""
    store = StateStore()
    writer, ledger = opened(store, "one")
    store.delete(HEAD)
    if found is not None:
        store.set(HEAD, found)
    with pytest.raises(SupersededError):
        writer.write(ledger)


def test_version_1_is_read():
    """A task continues from state that version 1 has written, in the same round, and then deletes it."""
    store = store_of(
        delivery={"version": 1, "generation": 2, "blocks": 2},
        delivery__0={"a": "A1", "f": "F2"},
        delivery__1={"g": "G1", "d": "D3"},
    )
    opened(store, "crashed", generation=2)
    assert store.get(HEAD) == {"version": 2, "epoch": 1, "token": "crashed", "of": [""]}
    writer, ledger = opened(store, "two", generation=2)
    assert [ledger[m] for m in "afgd"] == [(ACKNOWLEDGED, 1), (FAILED, 2), ("gone", 1), ("in doubt", 3)]
    assert outstanding_of(ledger, "afgd") == ["f"]
    writer.write(ledger)
    assert sorted(store.values) == ["delivery", "delivery/two/0", "delivery/two/head"]


def test_what_cannot_be_deleted_stays():
    """The earlier ledger isn't read any more, so it is no failure if it can't be deleted."""
    store = StateStore()
    writer, ledger = opened(store, "one")
    post(ledger, ACKNOWLEDGED, "a")
    writer.write(ledger)
    store.delete = None  # type: ignore[assignment, method-assign]
    writer, ledger = opened(store, "two")
    writer.write(ledger)
    assert "delivery/one/0" in store.values
    assert opened(store, "three")[1]["a"] == (ACKNOWLEDGED, 1)


def test_records_that_were_moved_out_stay_where_they_are():
    """Each later ledger names those of all tries before it, the oldest first; what one read is not copied."""
    store = StateStore()
    for token, message in (("one", MESSAGES[0]), ("two", MESSAGES[1]), ("three", MESSAGES[2])):
        writer, ledger = opened(store, token)
        if token != "two":
            post(ledger, ACKNOWLEDGED, message)
        moved = ledger.move_acknowledged()
        writer.write(ledger)
        ledger.forget(moved)
        writer.write(ledger)
    head = store.get("delivery/three/head")
    assert head == {
        "generation": 0,
        "blocks": 0,
        "counts": {},
        "done": 1,
        "earlier": [["one", 1]],
        "archive": 2,
        "archived_attempts": 2,
        "archived": 2,
    }
    assert done_keys("three", head) == ["delivery/one/done/0", "delivery/three/done/0"]
    assert store.get("delivery/one/done/0") == {MESSAGES[0]: "A1"}
    assert "delivery/one/head" not in store.values
    assert "delivery/one/archive/0" not in store.values
    ledger = opened(store, "four")[1]
    assert [ledger[message].state for message in MESSAGES] == [ACKNOWLEDGED, "unsent", ACKNOWLEDGED]


def test_after_a_failed_write_the_claim_is_checked_first():
    """Airflow refuses a try's writes once it has given the try up: that is told apart from a broken store."""
    store = StateStore()
    writer, ledger = opened(store, "one")
    post(ledger, FAILED, "a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StateStore, "set", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            writer.write(ledger)
        store.values.clear()
        with pytest.raises(SupersededError):
            writer.write(ledger)


def test_a_request_of_a_task_that_has_no_ledger():
    """It is begun with the first try, which sends nothing else."""
    request = LedgerRequest("r", clears=True, messages={"a": ""})
    ledger = LedgerStore(StateStore(), "one").open(4, 7, [request])
    assert (ledger.generation, ledger.max_attempts, ledger.resends) == (4, 7, {"r": 4})
    assert outstanding_of(ledger, "ab") == ["a"]


def test_a_request_of_a_task_that_has_a_ledger():
    """It is begun by the next try."""
    store = StateStore()
    writer, ledger = opened(store, "one")
    post(ledger, ACKNOWLEDGED, "a")
    writer.write(ledger)
    ledger = LedgerStore(store, "two").open(0, 3, [LedgerRequest("r", clears=False, messages={"a": ""})])
    assert outstanding_of(ledger, "a") == ["a"]


def test_a_claim_of_version_1_that_comes_later_is_put_right():
    """It has no epoch, so it is older than any claim."""
    store = StateStore()
    writer, ledger = opened(store, "one")
    claim = store.get(HEAD)
    store.set(HEAD, {"version": 1, "generation": 0, "blocks": 0})
    writer.write(ledger)
    assert store.get(HEAD) == claim


MESSAGES = [f"msg_{number:024x}" for number in range(3)]
V1 = {"version": 1, "generation": 0, "blocks": 1}
V2 = {"version": 2, "epoch": 1, "token": "t", "of": []}
HEAD_OF_ONE = {"generation": 0, "blocks": 1}
HEAD_OF_NONE = {"generation": 0, "blocks": 0}


def with_head(**more: Any) -> dict[str, Any]:
    return {"delivery": V2, "delivery__t__head": HEAD_OF_NONE | more}


@pytest.mark.parametrize(
    ("values", "key", "reason"),
    [
        ({"delivery": "x"}, "delivery", "it is not an object"),
        ({"delivery": {**V2, "version": 3}}, "delivery", NEWER),
        ({"delivery": {"epoch": 1}}, "delivery", "its version is missing"),
        ({"delivery": {**V2, "version": 0}}, "delivery", "its version is missing"),
        ({"delivery": {**V2, "token": 1}}, "delivery", "its token is missing"),
        ({"delivery": {**V2, "of": None}}, "delivery", "its token is missing"),
        ({"delivery": {**V2, "epoch": None}}, "delivery", "its epoch is missing"),
        ({"delivery": {**V1, "blocks": "1"}}, "delivery", "its blocks is missing"),
        ({"delivery": {**V1, "generation": None}}, "delivery", "its generation is missing"),
        (
            {"delivery": V1},
            "delivery/0",
            "a part of the ledger is missing, so it is not known what was delivered",
        ),
        ({"delivery": V2, "delivery__t__head": "x"}, "delivery/t/head", "it is not an object"),
        (
            {"delivery": V2, "delivery__t__head": {"blocks": 0}},
            "delivery/t/head",
            "its generation is missing",
        ),
        (
            {"delivery": V2, "delivery__t__head": HEAD_OF_ONE, "delivery__t__0": {"m": "?"}},
            "delivery/t/0",
            "an entry of the ledger can't be read",
        ),
        (with_head(blocks=None), "delivery/t/head", "its blocks is missing"),
        (with_head(done="1"), "delivery/t/head", "its done is missing"),
        *(
            (with_head(done=0, earlier=earlier), "delivery/t/head", "its earlier pieces are missing")
            for earlier in (None, ["one"], [["one"]], [["one", 1, 1]], [[1, 1]])
        ),
        (with_head(done=0, earlier=[["one", None]]), "delivery/t/head", "its earlier is missing"),
        (with_head(archive=1), "delivery/t/head", "its archived_attempts is missing"),
        (with_head(archive=None, archived_attempts=1), "delivery/t/head", "its archive is missing"),
        (
            with_head(archive=1, archived_attempts=1),
            "delivery/t/archive/0",
            "a part of the acknowledged ids is missing, so it is not known what was delivered",
        ),
        (
            with_head(archive=1, archived_attempts=1) | {"delivery__t__archive__0": "?"},
            "delivery/t/archive/0",
            "its ids can't be read",
        ),
        (
            with_head() | {"delivery__t__texts__0": "x"},
            "delivery/t/texts/0",
            "a part of the errors' texts is missing",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(values, key, reason):
    """InvalidState names the key. A guess could POST delivered messages again, or lose others."""
    with pytest.raises(InvalidState) as caught:
        opened(store_of(**values), "new")
    assert (caught.value.key, caught.value.reason) == (key, reason)
