"""The records that have triggered: no stored id is lost, wherever a task stops."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_insightly_hooks.core.errors import InvalidState
from airflow_insightly_hooks.core.state import id_set as triggered
from airflow_insightly_hooks.core.state.id_set import IdSet
from tests.conftest import StateStore

KEY = "triggered/workflow"
STATE_LIMIT = 60_000
"""Bytes of JSON that an entry of Airflow's state stores safely holds."""


class Crash(BaseException):
    """A task is killed: no exception handler catches it."""


class CrashingStore(StateStore):
    """A state store that notes the calls made to it, and can fail at one of them.

    :ivar calls: each call's method and key.
    :ivar crash_at: the number, from 0, of the call to fail at; ``None`` for none.
    :ivar done: whether that call has done its work when it fails.
    """

    def __init__(self, values: dict[str, str] | None = None) -> None:
        super().__init__()
        self.values = dict(values or {})
        self.calls: list[tuple[str, str]] = []
        self.crash_at: int | None = None
        self.done = False

    def get(self, key: str, default: Any = None) -> Any:
        with self._call("get", key):
            return super().get(key, default)

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        with self._call("set", key):
            super().set(key, value, retention=retention)
            assert len(self.values[key]) < STATE_LIMIT

    def delete(self, key: str) -> None:
        with self._call("delete", key):
            super().delete(key)

    def made(self, method: str) -> list[str]:
        """Return the keys of all calls of one method."""
        return [key for name, key in self.calls if name == method]

    @contextmanager
    def _call(self, method: str, key: str) -> Iterator[None]:
        crashes = self.crash_at == len(self.calls)
        self.calls.append((method, key))
        if crashes and not self.done:
            raise Crash
        yield
        if crashes:
            raise Crash


def each_crash(values: dict[str, str], act: Callable[[CrashingStore], object]) -> Iterator[CrashingStore]:
    """Yield the store as each crash of ``act`` leaves it: before and after each of its calls."""
    whole = CrashingStore(values)
    act(whole)
    for call in range(len(whole.calls)):
        for done in (False, True):
            store = CrashingStore(values)
            store.crash_at, store.done = call, done
            with pytest.raises(Crash):
                act(store)
            store.crash_at = None
            yield store


def records(store: StateStore) -> IdSet:
    """Return the set as another task finds it."""
    return IdSet(store, KEY)


def content(store: StateStore) -> set[int]:
    """Return all stored ids, read from the store alone."""
    directory = store.get(KEY, {"leaves": []})
    return {
        record_id
        for _, number in directory["leaves"]
        for record_id in triggered._decoded(store.get(f"{KEY}/{number}")) or ()
    }


def leaf_text(*differences: int) -> str:
    """Return a leaf in the form that the module's docstring describes, made by other code."""
    planes = bytes(d >> 8 * place & 255 for place in range(8) for d in differences)
    return base64.b64encode(zlib.compress(planes)).decode()


# Close together, so that they meet in leaves, and at both ends of what an id can be.
record_ids = st.integers(1, 60) | st.integers(1, 2**63 - 1) | st.integers(2**63 - 20, 2**63 - 1)
batches = st.lists(record_ids, max_size=20)
histories = st.lists(st.tuples(st.sampled_from(["add", "add", "known"]), batches, st.booleans()))


@contextmanager
def small_leaves(ids: int, characters: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triggered, "LEAF_IDS", ids)
        patch.setattr(triggered, "LEAF_CHARACTERS", characters)
        yield


limits = st.sampled_from([(3, 45_000), (1, 45_000), (100, 60), (100, 1)])


def applied(store: StateStore, history: list[tuple[str, list[int], bool]]) -> set[int]:
    """Do what the history says. Compare each answer with a plain set, and return that set."""
    model: set[int] = set()
    subject = records(store)
    for action, ids, anew in history:
        if anew:
            subject = records(store)
        if action == "add":
            subject.add(iter(ids))
            model.update(ids)
        else:
            assert subject.known(ids) == model.intersection(ids)
    return model


@settings(deadline=None, max_examples=40)
@given(histories, limits)
def test_it_is_a_set(history, limit):
    """Whatever is added, by one instance or several, it contains what a plain set contains."""
    store = StateStore()
    with small_leaves(*limit):
        model = applied(store, history)
        assert content(store) == model
        assert records(store).known(model | {1, 2, 2**63 - 1}) == model
        directory = store.get(KEY, {"leaves": []})
        named = {f"{KEY}/{number}" for _, number in directory["leaves"]}
        assert set(store.values) - {KEY, f"{KEY}/kept"} == named, (
            "nothing is left over where nothing has failed"
        )


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@given(histories, st.lists(record_ids, min_size=1, max_size=12), limits)
def test_a_crash_at_any_call_loses_nothing(history, batch, limit):
    """Stored ids stay. Of the batch, a part is stored; repeating the batch completes it."""
    store = CrashingStore()
    with small_leaves(*limit):
        before = applied(store, history)
        after = before | set(batch)
        for crashed in each_crash(store.values, lambda s: records(s).add(batch)):
            found = content(crashed)
            assert before <= found <= after
            assert records(crashed).known(after) == found
            again = CrashingStore(crashed.values)
            records(again).add(batch)
            assert content(again) == after
            # Later additions are not mixed up with what the crash has left.
            records(crashed).add(range(40, 52))
            assert content(crashed) == found | set(range(40, 52))


@settings(deadline=None, max_examples=10)
@given(histories, st.lists(record_ids, min_size=1, max_size=12))
def test_an_instance_whose_write_failed_can_be_asked_again(history, batch):
    """After a failure that the caller survives, the same instance reads the stored state again."""
    store = CrashingStore()
    with small_leaves(3, 45_000):
        before = applied(store, history)
        subject: list[IdSet] = []

        def act(store: CrashingStore) -> None:
            subject.append(records(store))
            subject[-1].add(batch)

        for crashed in each_crash(store.values, act):
            found = content(crashed)
            assert subject[-1].known(before | set(batch)) == found
            subject[-1].add([1, *batch])
            assert content(crashed) == before | {1, *batch}


def test_how_it_is_stored():
    """A directory, and leaves that other tools can read. Later versions must read this form."""
    store = StateStore()
    records(store).add([1000, 7, 8])
    assert store.get(KEY) == {"version": 2, "leaves": [[1, 0]], "next": 1}
    planes = zlib.decompress(base64.b64decode(store.get(f"{KEY}/0")))
    assert planes == bytes([7, 1, 992 % 256, 0, 0, 992 // 256]) + bytes(18)
    store.set(f"{KEY}/0", leaf_text(3, 2**62))
    assert records(store).known([3, 7, 2**62 + 3]) == {3, 2**62 + 3}


def test_a_leaf_is_halved_under_new_numbers(monkeypatch):
    """New leaves are written, then the directory; then the old leaf is deleted.

    Others are written in place.
    """
    monkeypatch.setattr(triggered, "LEAF_IDS", 4)
    store = CrashingStore()
    subject = records(store)
    subject.add([10, 20, 30, 40])
    assert store.made("get") == [KEY, f"{KEY}/kept", f"{KEY}/0"]
    assert store.made("set") == [KEY, f"{KEY}/kept", f"{KEY}/0", KEY]
    store.calls.clear()
    subject.add([50])
    assert store.calls == [("set", f"{KEY}/1"), ("set", f"{KEY}/2"), ("set", KEY), ("delete", f"{KEY}/0")]
    assert store.get(KEY) == {"version": 2, "leaves": [[1, 1], [30, 2]], "next": 3}
    store.calls.clear()
    subject.add([29, 10])
    assert store.calls == [("set", f"{KEY}/1")]


def test_only_the_leaves_of_the_ids_are_read_once(monkeypatch):
    """Looking up and then adding reads the directory and each leaf once, and writes only what changes."""
    monkeypatch.setattr(triggered, "LEAF_IDS", 100)
    store = CrashingStore()
    records(store).add(range(1, 10_000, 2))
    store.calls.clear()
    subject = records(store)
    batch = [9_000, 9_001, 9_002]
    assert subject.known(batch) == {9_001}
    subject.add(batch)
    assert len(store.made("get")) == 2
    assert len(store.made("set")) == 1
    store.calls.clear()
    subject.add(batch)
    assert subject.known([]) == set()
    assert subject.known([4]) == set()
    assert (len(store.made("get")), store.made("set")) == (1, [])


def test_nothing_costs_nothing():
    """Without ids, there are no calls."""
    store = CrashingStore()
    records(store).add([])
    assert records(store).known([]) == set()
    assert store.calls == []


@pytest.mark.parametrize("record_id", [0, -1, 2**63, True, "7", 7.0, None])
def test_what_is_no_id_is_refused(record_id):
    """Only positive integers below 2⁶³ are asked for and added; nothing is stored otherwise."""
    store = StateStore()
    for method in ("known", "add"):
        with pytest.raises(ValueError, match="positive whole number"):
            getattr(records(store), method)([1, record_id])
    assert store.values == {}


DIRECTORY = {"version": 1, "leaves": [[1, 4], [100, 2]], "next": 5}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (KEY, None),
        (KEY, {**DIRECTORY, "version": 3}),
        (KEY, {**DIRECTORY, "version": True}),
        (KEY, {"leaves": [[1, 4]], "next": 5}),
        (KEY, "directory"),
        (KEY, []),
        (KEY, {**DIRECTORY, "leaves": None}),
        (KEY, {**DIRECTORY, "leaves": []}),
        (KEY, {"version": 2, "leaves": [], "next": 0}),
        (KEY, {**DIRECTORY, "leaves": [[1, 4], [100]]}),
        (KEY, {**DIRECTORY, "leaves": [[1, 4], [100, "2"]]}),
        (KEY, {**DIRECTORY, "leaves": [[2, 4], [100, 2]]}),
        (KEY, {**DIRECTORY, "leaves": [[1, 4], [1, 2]]}),
        (KEY, {**DIRECTORY, "leaves": [[1, 4], [100, 4]]}),
        (KEY, {**DIRECTORY, "leaves": [[1, 4], [100, -2]]}),
        (KEY, {**DIRECTORY, "leaves": [[1, 4], [2**63, 2]]}),
        (KEY, {**DIRECTORY, "next": 4}),
        (KEY, {**DIRECTORY, "next": -1}),
        (KEY, {"version": 1, "leaves": [[1, 4]]}),
        (f"{KEY}/2", None),
        (f"{KEY}/2", 7),
        (f"{KEY}/2", "garbage"),
        (f"{KEY}/2", "ü"),
        (f"{KEY}/2", ""),
        (f"{KEY}/2", base64.b64encode(b"garbage").decode()),
        (f"{KEY}/2", leaf_text(100, 1)[:-4]),
        (f"{KEY}/2", base64.b64encode(base64.b64decode(leaf_text(100, 1)) + b"more").decode()),
        (f"{KEY}/2", base64.b64encode(zlib.compress(bytes([100, 1]) + bytes(13))).decode()),
        (f"{KEY}/2", base64.b64encode(zlib.compress(bytes(10_000_000))).decode()),
        (f"{KEY}/2", leaf_text(100, 0)),
        (f"{KEY}/2", leaf_text(99, 1)),
        (f"{KEY}/2", leaf_text(100, 2**63 - 100)),
        (f"{KEY}/2", leaf_text(100, 2**64 - 1)),
        (f"{KEY}/4", leaf_text(100)),
    ],
    ids=lambda part: str(part)[:50],
)
def test_state_that_cannot_be_read_is_refused(key, value):
    """Another version, a missing leaf, or any other invalid state raises an error, and isn't changed."""
    store = StateStore()
    store.set(f"{KEY}/kept", True)
    store.set(KEY, DIRECTORY)
    store.set(f"{KEY}/4", leaf_text(1, 98))
    store.set(f"{KEY}/2", leaf_text(100, 2**63 - 101))
    assert content(store) == {1, 99, 100, 2**63 - 1}
    if value is None:
        store.delete(key)
    else:
        store.set(key, value)
    before = dict(store.values)
    for method in ("known", "add"):
        with pytest.raises(InvalidState) as caught:
            getattr(records(store), method)([99, 100])
        assert caught.value.key == key
    assert store.values == before


def test_a_set_of_version_1_goes_on_and_its_loss_is_noticed_from_its_next_leaf_on(monkeypatch):
    """State of earlier versions is read.

    Until its next leaf is written, only leaf 0 shows whether it is lost.
    """
    monkeypatch.setattr(triggered, "LEAF_IDS", 3)
    store = StateStore()
    store.set(KEY, {"version": 1, "leaves": [[1, 0]], "next": 1})
    store.set(f"{KEY}/0", leaf_text(1, 98))
    records(store).add([50])
    lost = CrashingStore(store.values)
    lost.delete(KEY)
    with pytest.raises(InvalidState, match="missing"):
        records(lost).known([1])
    records(store).add([51])
    assert content(store) == {1, 50, 51, 99}
    assert store.get(KEY)["version"] == 2
    store.delete(KEY)
    with pytest.raises(InvalidState, match="missing"):
        records(store).known([1])


@settings(deadline=None, max_examples=20)
@given(histories, st.lists(record_ids, min_size=1, max_size=12), limits)
def test_a_lost_directory_is_no_empty_set(history, batch, limit):
    """Wherever a crash stops a write, first or later, the stored ids are not forgotten."""
    store = StateStore()
    with small_leaves(*limit):
        applied(store, history)
        for crashed in each_crash(store.values, lambda s: records(s).add(batch)):
            held = content(crashed)
            crashed.delete(KEY)
            if held:
                with pytest.raises(InvalidState) as caught:
                    records(crashed).known([7])
                assert caught.value.key == KEY


def test_a_leaf_that_the_ids_are_not_in_need_not_be_there():
    """A leaf that isn't needed isn't read."""
    store = StateStore()
    store.set(KEY, DIRECTORY)
    store.set(f"{KEY}/4", leaf_text(1, 98))
    assert records(store).known([99]) == {99}


@pytest.mark.parametrize("count", [65_535, 65_536, 65_537])
def test_the_largest_leaf(count):
    """A leaf holds 65,536 ids, no more, and is read again."""
    store = StateStore()
    records(store).add(range(1, count + 1))
    assert len(store.get(KEY)["leaves"]) == (1 if count <= 65_536 else 2)
    assert records(store).known([1, count, count + 1]) == {1, count}
    assert len(content(store)) == count


MILLION = 1_000_000


def size(store: StateStore) -> int:
    return sum(map(len, store.values.values()))


def test_a_million_ids_in_a_row_are_small():
    """A million ids take far less than 2 MB, and the next batch costs a few reads and writes."""
    store = CrashingStore()
    records(store).add(range(1, MILLION + 1))
    assert size(store) < 50_000
    store.calls.clear()
    subject = records(store)
    batch = range(MILLION - 500, MILLION + 500)
    assert len(subject.known(batch)) == 501
    subject.add(batch)
    assert len(store.made("get")) <= 3
    assert len(store.made("set")) <= 4
    assert len(content(store)) == MILLION + 499


def test_the_directory_of_many_random_ids_is_small():
    """Even for a million ids that compress badly, the directory fits into a state store."""
    store = CrashingStore()
    random = Random(7)
    some = {random.randrange(1, 2**63) for _ in range(100_000)}
    records(store).add(some)
    directory = len(json.dumps(store.get(KEY)))
    assert directory * (MILLION / len(some)) < STATE_LIMIT / 2
    assert len(content(store)) == len(some)
