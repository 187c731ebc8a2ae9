"""Pending webhooks: when each is due, and a store that loses none, wherever a task stops."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.errors import InvalidPayload, InvalidState, InvalidTime
from airflow_insightly_hooks.core.state import pending_webhooks as pending
from airflow_insightly_hooks.core.state.pending_webhooks import PendingWebhook, PendingWebhooks, due_time
from tests.conftest import StateStore
from tests.core.state.test_id_set import STATE_LIMIT, CrashingStore, each_crash
from tests.strategies import instants

KEY = "pending/workflow/webhook"
UTC = timezone.utc
NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
CHANGED_AT = "2024-06-01T12:00:00Z"


def entry(record_id: int, due: datetime = NOON, event: str = "added", at: str = CHANGED_AT) -> PendingWebhook:
    return PendingWebhook(record_id, due, event, at)


# --- entries -----------------------------------------------------------------------------------------------

entries = st.builds(
    PendingWebhook,
    st.integers(1, 25) | st.integers(1, 2**63 - 1),
    st.sampled_from([NOON, NOON + DAY, NOON + timedelta(microseconds=1)]) | instants,
    st.sampled_from(["added", "updated"]),
    st.sampled_from([CHANGED_AT, "2024-06-01T12:00:00.123456Z", "2024-06-01 12:00:00"]),
)


def test_an_entry_as_json():
    """An entry is an object with its time as text: a form that other tasks read, in XCom."""
    assert entry(7, NOON, "updated").as_dict() == {
        "record_id": 7,
        "due": "2024-06-01T12:00:00Z",
        "event": "updated",
        "changed_at": CHANGED_AT,
    }


@given(entries)
def test_an_entry_comes_back_from_json(entry):
    """A task reads exactly what another task has pushed. Additional keys do no harm."""
    assert PendingWebhook.of(json.loads(json.dumps(entry.as_dict() | {"more": 1}))) == entry


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "an object is needed, not NoneType"),
        ([7], "an object is needed, not list"),
        ({"record_id": 7, "due": CHANGED_AT}, "it lacks 'event', 'changed_at'"),
        ({**entry(7).as_dict(), "due": "noon"}, "due is not a time"),
        ({**entry(7).as_dict(), "due": 7}, "due is not a time"),
        ({**entry(7).as_dict(), "changed_at": "noon"}, "changed_at is not a time"),
        ({**entry(7).as_dict(), "event": "deleted"}, "its event must be one of"),
        ({**entry(7).as_dict(), "record_id": "7"}, "its record_id must be a positive whole number"),
        ({**entry(7).as_dict(), "record_id": True}, "its record_id must be a positive whole number"),
        ({**entry(7).as_dict(), "record_id": 2**63}, "its record_id must be a positive whole number"),
    ],
    ids=str,
)
def test_what_is_no_entry_is_refused(value, reason):
    """Another task may have pushed anything."""
    with pytest.raises(InvalidPayload) as caught:
        PendingWebhook.of(value)
    assert caught.value.where == "pending webhook"
    assert reason in caught.value.reason


# --- due times ---------------------------------------------------------------------------------------------

RECORD = {
    "CLOSE_DATE": "2024-07-01 00:00:00",
    "EMPTY": None,
    "TEXT": "soon",
    "NUMBER": 5,
    "NEVER": "9999-12-31 00:00:00",
    "LEAST": "0001-01-01 00:00:00",
    "CUSTOMFIELDS": [{"FIELD_NAME": "Renewal__c", "FIELD_VALUE": "2025-01-31"}],
}


@pytest.mark.parametrize(
    ("arguments", "due"),
    [
        ({"after": 3 * DAY}, "2024-06-04T12:00:00Z"),
        ({}, CHANGED_AT),
        ({"after": DAY, "field": "CLOSE_DATE"}, "2024-07-02"),
        ({"before": DAY, "field": "CLOSE_DATE"}, "2024-06-30"),
        ({"field": "CLOSE_DATE"}, "2024-07-01"),
        ({"before": timedelta(hours=2), "field": "Renewal__c"}, "2025-01-30T22:00:00Z"),
        ({"field": "NEVER"}, "9999-12-31"),
    ],
    ids=str,
)
def test_when_a_webhook_is_due(arguments, due):
    """It is due after the trigger, or after, before or at the time in a field of the record."""
    assert due_time(RECORD, CHANGED_AT, **arguments) == api_time(due)


@pytest.mark.parametrize(
    "arguments",
    [
        {"field": "EMPTY"},
        {"field": "MISSING"},
        {"field": "Missing__c", "after": DAY},
        {"field": "TEXT"},
        {"field": "NUMBER"},
        {"field": "NEVER", "after": DAY},
        {"field": "LEAST", "before": DAY},
    ],
    ids=str,
)
def test_a_field_without_a_time_makes_nothing_due(arguments):
    """Blank fields, values that are no time, and times outside of the years 1 to 9999 give no due time."""
    assert due_time(RECORD, CHANGED_AT, **arguments) is None


def test_a_change_without_a_time_is_refused():
    """Every change has its time."""
    with pytest.raises(InvalidTime) as caught:
        due_time(RECORD, "today", after=DAY)
    assert caught.value.where == "changed_at"


# --- the store of pending webhooks ----------------------------------------------------------------------


def pending_in(store: StateStore) -> PendingWebhooks:
    """Return the pending entries as another task finds them."""
    return PendingWebhooks(store, KEY)


def content(store: StateStore) -> dict[int, PendingWebhook]:
    """Return the pending entries, by record."""
    return {entry.record_id: entry for entry in pending_in(store)}


def in_order(entries) -> list[PendingWebhook]:
    return sorted(entries, key=lambda entry: (entry.due, entry.record_id))


histories = st.lists(
    st.tuples(st.just("add"), st.lists(entries, max_size=10), st.booleans())
    | st.tuples(st.sampled_from(["take", "cancel"]), st.lists(entries, max_size=10), st.booleans())
)


def applied(store: StateStore, history) -> dict[int, PendingWebhook]:
    """Do what the history says. Compare each answer with a plain dict, and return that dict."""
    model: dict[int, PendingWebhook] = {}
    subject = pending_in(store)
    for action, batch, anew in history:
        if anew:
            subject = pending_in(store)
        if action == "add":
            new = {}
            for item in batch:
                if item.record_id not in model:
                    new.setdefault(item.record_id, item)
            assert subject.add(iter(batch)) == list(new.values())
            model |= new
        else:
            leaving = {item.record_id for item in batch}
            if action == "take":
                leaving = {item.record_id for item in subject.all()[:5]}
            removed = subject.remove(record_id for record_id in leaving)
            assert removed == in_order(model.pop(record_id) for record_id in leaving & model.keys())
        assert len(subject) == len(model)
    assert subject.all() == list(subject) == in_order(model.values())
    assert subject.next_due() == min((item.due for item in model.values()), default=None)
    return model


@pytest.fixture(autouse=True, scope="module")
def _small_blocks():
    """Let a few entries fill several blocks. Real sizes have a test of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pending, "BLOCK_SIZE", 3)
        yield


@settings(deadline=None, max_examples=40)
@given(histories)
def test_it_keeps_one_entry_for_each_record(history):
    """Whatever is added, taken and cancelled, by one instance or several, it equals a plain dict."""
    store = StateStore()
    model = applied(store, history)
    assert content(store) == model
    blocks = store.get(KEY, {"blocks": []})["blocks"]
    assert set(store.values) - {KEY, f"{KEY}/kept"} == {f"{KEY}/{number}" for number in blocks or ()}
    assert all(store.get(f"{KEY}/{number}") for number in blocks or ()), "no block is empty"


@settings(deadline=None, max_examples=8)
@given(histories, st.lists(entries, min_size=1, max_size=10), st.lists(entries, max_size=8))
def test_a_crash_while_adding_loses_nothing(history, batch, later):
    """Pending entries stay unchanged. Of the batch, a part is stored; repeating the batch completes it."""
    store = CrashingStore()
    before = applied(store, history)
    whole = CrashingStore(store.values)
    pending_in(whole).add(batch)
    after = content(whole)
    for crashed in each_crash(store.values, lambda s: pending_in(s).add(batch)):
        found = content(crashed)
        assert before.items() <= found.items() <= after.items()
        again = CrashingStore(crashed.values)
        added = pending_in(again).add(batch)
        assert content(again) == after
        assert {e.record_id for e in added} == after.keys() - found.keys()
        check_growth(crashed, later)


@settings(deadline=None, max_examples=8)
@given(histories, st.data(), st.lists(entries, max_size=8))
def test_a_crash_while_removing_loses_nothing(history, data, later):
    """Entries that aren't being removed stay unchanged; repeating the removal completes it."""
    store = CrashingStore()
    before = applied(store, history)
    leaving = data.draw(st.sets(st.sampled_from(sorted(before)))) if before else {7}
    leaving |= set(
        list(before)[data.draw(st.integers(0, len(before))) :]
    )  # whole blocks, often the last ones
    after = {record_id: item for record_id, item in before.items() if record_id not in leaving}
    for crashed in each_crash(store.values, lambda s: pending_in(s).remove(leaving)):
        found = content(crashed)
        assert after.items() <= found.items() <= before.items()
        again = CrashingStore(crashed.values)
        removed = pending_in(again).remove(leaving)
        assert removed == in_order(found[record_id] for record_id in leaving & found.keys())
        assert content(again) == after
        check_growth(crashed, later)


def check_growth(crashed: CrashingStore, later: list[PendingWebhook]) -> None:
    """Assert that entries which a crash has left beyond the head don't return when more are added there."""
    expected = content(crashed)
    pending_in(crashed).add(later)
    for item in later:
        expected.setdefault(item.record_id, item)
    assert content(crashed) == expected
    for record_id in range(101, 115):
        pending_in(crashed).add([entry(record_id)])
        expected.setdefault(record_id, entry(record_id))
    assert content(crashed) == expected


def test_an_instance_whose_write_failed_can_be_asked_again():
    """After a failure that the caller survives, the same instance reads the stored state again."""
    store = CrashingStore()
    pending_in(store).add(map(entry, range(1, 8)))
    subjects: list[PendingWebhooks] = []

    def act(store: CrashingStore) -> None:
        subjects.append(pending_in(store))
        subjects[-1].remove([1, 7])

    for crashed in each_crash(store.values, act):
        assert {item.record_id: item for item in subjects[-1]} == content(crashed)
        subjects[-1].remove([1, 7])
        assert list(content(crashed)) == [2, 3, 4, 5, 6]


def test_a_pending_webhook_is_neither_moved_nor_doubled():
    """A second trigger of a record changes nothing, earlier or later, in the same batch or after it."""
    store = StateStore()
    first = entry(7, NOON)
    assert pending_in(store).add([first, entry(7, NOON - DAY)]) == [first]
    assert pending_in(store).add([entry(7, NOON + DAY, "updated"), entry(8)]) == [entry(8)]
    assert pending_in(store).all() == [first, entry(8)]
    assert pending_in(store).remove([7]) == [first]
    assert pending_in(store).add([entry(7, NOON + DAY)]) == [entry(7, NOON + DAY)]


def test_the_earliest_come_first():
    """Entries are sorted by due time, then by record id. Each stays until it is removed."""
    store = StateStore()
    subject = pending_in(store)
    subject.add([entry(1, NOON + DAY), entry(3, NOON), entry(2, NOON), entry(4, NOON - DAY)])
    assert [item.record_id for item in subject.all()] == [4, 2, 3, 1]
    assert subject.next_due() == NOON - DAY
    assert len(subject) == 4
    assert subject.remove([4, 99]) == [entry(4, NOON - DAY)]
    assert subject.next_due() == NOON


def test_times_are_kept_in_utc():
    """A time of another zone is the same moment in UTC."""
    store = StateStore()
    there = timezone(timedelta(hours=-7))
    (added,) = pending_in(store).add([entry(1, NOON.astimezone(there))])
    assert added.due.tzinfo is UTC
    assert store.get(f"{KEY}/0")["1"].startswith("2024-06-01T12:00:00Z ")


def test_how_a_book_is_stored():
    """It is a head and blocks that an operator can read and edit. Later versions must read this form."""
    store = StateStore()
    pending_in(store).add(
        [entry(7), entry(8, NOON + DAY, "updated", "2024-06-01 12:00:00"), entry(9), entry(10)]
    )
    assert store.get(KEY) == {"version": 2, "blocks": [0, 1], "runs": []}
    assert store.get(f"{KEY}/kept") is True
    assert store.get(f"{KEY}/0") == {
        "7": "2024-06-01T12:00:00Z added 2024-06-01T12:00:00Z",
        "8": "2024-06-02T12:00:00Z updated 2024-06-01 12:00:00",
        "9": "2024-06-01T12:00:00Z added 2024-06-01T12:00:00Z",
    }
    assert store.get(f"{KEY}/1") == {"10": "2024-06-01T12:00:00Z added 2024-06-01T12:00:00Z"}


def test_the_order_of_writes():
    """New blocks are written, then the head that names them; then the old blocks are deleted.

    Numbers are reused.
    """
    store = CrashingStore()
    subject = pending_in(store)
    subject.add(map(entry, range(1, 8)))
    assert store.made("get") == [KEY, f"{KEY}/kept", f"{KEY}/0"]
    assert store.made("set") == [KEY, f"{KEY}/kept", f"{KEY}/0", f"{KEY}/1", f"{KEY}/2", KEY]
    store.calls.clear()
    subject.remove([1, 4, 5, 6])  # the block in the middle is empty, so it is deleted
    assert store.calls == [("set", f"{KEY}/3"), ("set", KEY), ("delete", f"{KEY}/0"), ("delete", f"{KEY}/1")]
    store.calls.clear()
    subject.add([entry(9), entry(10)])
    assert store.calls == [
        *[("set", f"{KEY}/{number}") for number in (0, 1)],
        ("set", KEY),
        *[("delete", f"{KEY}/{number}") for number in (2, 3)],
    ]
    store.calls.clear()
    subject.remove([10, 2, 7, 3, 9])
    assert store.calls == [("set", KEY), ("delete", f"{KEY}/0"), ("delete", f"{KEY}/1")]
    store.calls.clear()
    subject.add([entry(3)])
    store.calls.clear()
    assert subject.add([entry(3)]) == subject.remove([99]) == []
    assert store.calls == []


@settings(deadline=None, max_examples=8)
@given(histories, st.lists(entries, min_size=1, max_size=10))
def test_a_lost_head_is_not_taken_for_nothing_pending(history, batch):
    """Wherever a crash stops a write, first or later, no entry is silently forgotten."""
    store = StateStore()
    applied(store, history)
    for crashed in each_crash(store.values, lambda s: pending_in(s).add(batch)):
        held = content(crashed)
        crashed.delete(KEY)
        if held:
            with pytest.raises(InvalidState) as caught:
                pending_in(crashed).add([entry(7)])
            assert caught.value.key == KEY
            assert f"{KEY}/kept" in str(caught.value)


def test_what_version_1_has_stored():
    """It can be read and changed, and its loss is noticed."""
    store = StateStore()
    store.set(KEY, {"version": 1, "blocks": 2})
    store.set(f"{KEY}/0", {"1": ENTRY})
    store.set(f"{KEY}/1", {"2": ENTRY})
    lost = CrashingStore(store.values)
    lost.delete(KEY)
    with pytest.raises(InvalidState, match=f"'{KEY}/0' is there"):
        pending_in(lost).all()
    assert pending_in(store).remove([1]) == [entry(1)]
    assert pending_in(store).all() == [entry(2)]
    store.delete(KEY)
    with pytest.raises(InvalidState, match=f"'{KEY}/kept' is there"):
        pending_in(store).all()


ENTRY = "2024-06-01T12:00:00Z added 2024-06-01T12:00:00Z"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (KEY, None),
        (KEY, {"version": 3, "blocks": 2}),
        (KEY, {"version": 2, "blocks": 2}),
        (KEY, {"version": 2, "blocks": 2, "runs": []}),
        (KEY, {"version": 2, "blocks": [0, 1]}),
        (KEY, {"version": 2, "blocks": [0, 1], "runs": [["r"]]}),
        (KEY, {"version": 2, "blocks": [0, 1], "runs": [[7, []]]}),
        (KEY, {"version": 2, "blocks": [0, 1], "runs": [["r", 2]]}),
        (KEY, {"version": 2, "blocks": [0, 1], "runs": [["r", [1]]]}),
        (KEY, {"version": 2, "blocks": [0, 0], "runs": []}),
        (KEY, {"version": 2, "blocks": [0, True], "runs": []}),
        (KEY, {"version": 2, "blocks": [0, -1], "runs": []}),
        (KEY, {"blocks": 2}),
        (KEY, {"version": 1}),
        (KEY, {"version": 1, "blocks": "2"}),
        (KEY, {"version": 1, "blocks": True}),
        (KEY, {"version": 1, "blocks": -1}),
        (KEY, "head"),
        (f"{KEY}/1", None),
        (f"{KEY}/1", "garbage"),
        (f"{KEY}/1", [ENTRY]),
        (f"{KEY}/1", {"x": ENTRY}),
        (f"{KEY}/1", {"0": ENTRY}),
        (f"{KEY}/1", {"9" * 5_000: ENTRY}),
        (f"{KEY}/1", {"7": None}),
        (f"{KEY}/1", {"7": ""}),
        (f"{KEY}/1", {"7": "2024-06-01T12:00:00Z added"}),
        (f"{KEY}/1", {"7": "2024-06-01T12:00:00Z deleted 2024-06-01T12:00:00Z"}),
        (f"{KEY}/1", {"7": "2024-06-01 12:00:00 added 2024-06-01T12:00:00Z"}),
        (f"{KEY}/1", {"7": "2024-06-31T12:00:00Z added 2024-06-01T12:00:00Z"}),
        (f"{KEY}/1", {"7": "2024-06-01T12:00:00Z added 2024-06-01T12:00:00Z more"}),
        (f"{KEY}/1", {"1": ENTRY}),
    ],
    ids=lambda part: str(part)[:70],
)
def test_state_that_cannot_be_read_is_refused(key, value):
    """Another version, a missing block, an invalid or repeated entry: each raises, and changes nothing."""
    store = StateStore()
    store.set(KEY, {"version": 1, "blocks": 2})
    store.set(f"{KEY}/0", {"1": ENTRY})
    store.set(f"{KEY}/1", {"2": ENTRY})
    assert pending_in(store).all() == [entry(1), entry(2)]
    if value is None:
        store.delete(key)
    else:
        store.set(key, value)
    before = dict(store.values)
    subject = pending_in(store)
    for ask in (
        subject.all,
        subject.next_due,
        subject.__len__,
        lambda: subject.add([entry(3)]),
        lambda: subject.remove([1]),
    ):
        with pytest.raises(InvalidState) as caught:
            ask()
        assert caught.value.key == key
    assert store.values == before


@pytest.mark.parametrize(
    "wrong",
    [
        entry(0),
        entry(7, datetime(2024, 6, 1)),  # noqa: DTZ001 — a time without a zone is what is refused
        entry(7, datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2)))),
        entry(7, event="deleted"),
        entry(7, at="today"),
    ],
    ids=str,
)
def test_what_could_not_be_read_again_is_not_added(wrong):
    """If one entry is invalid, none of the batch is entered."""
    store = StateStore()
    subject = pending_in(store)
    with pytest.raises(ValueError, match=r"must|changed_at"):
        subject.add([entry(1), wrong])
    assert (subject.all(), store.values) == ([], {})


def test_ten_thousand_entries(monkeypatch):
    """However long entries are, each value stays small. Adding one or taking a hundred writes few blocks."""
    monkeypatch.setattr(pending, "BLOCK_SIZE", 500)
    store = CrashingStore()  # it asserts the size of each value
    longest = "2024-06-01T12:00:00.123456789+00:00"
    due = NOON + timedelta(microseconds=1)
    pending_in(store).add(entry(2**63 - 1 - i, due + i * DAY / 24, "updated", longest) for i in range(10_000))
    assert len(store.values) == 22
    assert max(map(len, store.values.values())) < STATE_LIMIT
    store.calls.clear()
    subject = pending_in(store)
    subject.add([entry(1)])
    assert len(store.made("get")) == 21
    assert store.made("set") == [f"{KEY}/20", KEY]
    store.calls.clear()
    first = subject.all()[:100]
    assert subject.remove(item.record_id for item in first) == first
    assert len(first) == 100
    assert store.calls == [
        ("set", f"{KEY}/21"),
        ("set", KEY),
        ("delete", f"{KEY}/0"),
        ("delete", f"{KEY}/20"),
    ]
    store.calls.clear()
    decision = subject.decide("r", take=lambda waiting: waiting[:1_000])
    assert decision.taken == pending_in(store).taken_by("r")
    assert len(store.made("set")) <= 6
