"""What runs do with pending webhooks: each once, wherever a try is killed, however often it is repeated."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_insightly_hooks.core.state import pending_webhooks as pending
from airflow_insightly_hooks.core.state.due_once import DueOnce
from airflow_insightly_hooks.core.state.pending_webhooks import PendingWebhook, PendingWebhooks
from tests.conftest import StateStore
from tests.core.state.test_id_set import Crash

KEY = "pending/workflow/webhook"
NOON = datetime(2024, 6, 1, 12, tzinfo=timezone.utc)
CHANGED_AT = "2024-06-01T12:00:00Z"
AT_MOST = 4


class Power:
    """Fails at one of the next calls of all stores that it feeds."""

    def __init__(self) -> None:
        self.calls_left: int | None = None

    def spend(self) -> None:
        """Raise ``Crash`` if this is the call to fail at, and at each one after it."""
        if self.calls_left is not None:
            if self.calls_left <= 0:
                raise Crash
            self.calls_left -= 1


class PoweredStore(StateStore):
    """A state store whose calls need power, before they are done and after."""

    def __init__(self, power: Power) -> None:
        super().__init__()
        self._power = power

    def get(self, key: str, default: Any = None) -> Any:
        self._power.spend()
        return super().get(key, default)

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self._power.spend()
        super().set(key, value, retention=retention)
        self._power.spend()

    def delete(self, key: str) -> None:
        self._power.spend()
        super().delete(key)
        self._power.spend()


def entry(record_id: int, hours: int = 0, at: str = CHANGED_AT) -> PendingWebhook:
    return PendingWebhook(record_id, NOON + timedelta(hours=hours), "added", at)


class Runs:
    """Runs over one book, and what must have come of each."""

    def __init__(self) -> None:
        self.power = Power()
        self.book = PoweredStore(self.power)
        self.states: dict[int, PoweredStore] = {}
        self.inputs: dict[int, tuple[list[PendingWebhook], list[int]]] = {}
        self.decided: dict[int, list[PendingWebhook]] = {}
        self.waiting: dict[int, PendingWebhook] = {}

    def try_once(
        self,
        run: int,
        entries: list[PendingWebhook],
        cancel: list[int],
        until: datetime,
        crash_at: int | None = None,
    ) -> bool:
        """Make a try of a run, its first, a retry or one after a clear; return whether it came to its end."""
        entries, cancel = self.inputs.setdefault(run, (entries, cancel))
        state = self.states.setdefault(run, PoweredStore(self.power))
        name = f"run{run}"
        expected_waiting, expected = self._expected(entries, cancel, until)
        self.power.calls_left = crash_at
        taken: list[PendingWebhook] | None = None
        try:
            subject = DueOnce(PendingWebhooks(self.book, KEY), state, name)
            decision = subject.decide(lambda: entries, cancel, until, AT_MOST)
            taken = subject.taken()
            assert decision is None or run not in self.decided
        except Crash:
            pass
        self.power.calls_left = None
        book = PendingWebhooks(self.book, KEY)
        if run not in self.decided:
            has_decided = taken is not None or state.get("decided") or book.taken_by(name) is not None
            if has_decided:
                self.decided[run], self.waiting = expected, expected_waiting
        assert {item.record_id: item for item in book} == self.waiting
        if taken is not None:
            assert taken == self.decided[run]
            assert book.taken_by(name) is None
        return taken is not None

    def _expected(
        self, entries: list[PendingWebhook], cancel: list[int], until: datetime
    ) -> tuple[dict[int, PendingWebhook], list[PendingWebhook]]:
        waiting = dict(self.waiting)
        for item in entries:
            waiting.setdefault(item.record_id, item)
        waiting = {record_id: item for record_id, item in waiting.items() if record_id not in cancel}
        due = sorted((e for e in waiting.values() if e.due <= until), key=lambda e: (e.due, e.record_id))
        taken = due[:AT_MOST]
        return {k: item for k, item in waiting.items() if item not in taken}, taken


@pytest.fixture(autouse=True, scope="module")
def _small_blocks():
    """Let a few entries fill several blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pending, "BLOCK_SIZE", 2)
        yield


steps = st.lists(
    st.tuples(
        st.integers(0, 4),  # the run
        st.lists(st.tuples(st.integers(1, 7), st.integers(0, 3)), max_size=7),
        st.lists(st.integers(1, 7), max_size=2),
        st.integers(0, 3),
        st.none() | st.integers(0, 40),
    ),
    max_size=20,
)


@settings(deadline=None, max_examples=200)
@given(steps)
def test_each_run_decides_once(steps):
    """Entering, cancelling and taking happen together, once a run; no entry is lost, none is taken twice."""
    runs = Runs()
    for number, (run, entries, cancel, hours, crash_at) in enumerate(steps):
        new = [entry(record_id, due, f"2024-06-01T12:00:{number:02}Z") for record_id, due in entries]
        runs.try_once(run, new, cancel, NOON + timedelta(hours=hours), crash_at)
    for run in list(runs.inputs):
        assert runs.try_once(run, [], [], NOON + timedelta(days=1))
    taken = [item for items in runs.decided.values() for item in items]
    assert len(set(taken)) == len(taken)


def each_kill(prepare, act) -> None:
    """Make a try that is killed at each of its calls in turn, until it is not."""
    for crash_at in range(200):
        runs = Runs()
        prepare(runs)
        if act(runs, crash_at):
            return
    raise AssertionError("it has no end")


def test_a_run_killed_between_entering_and_noting_it_enters_nothing_twice():
    """Another run takes and sends the entry meanwhile; the retry, and a cleared task, enter it no more."""

    def act(runs: Runs, crash_at: int) -> bool:
        ended = runs.try_once(1, [entry(7, 1)], [], NOON, crash_at)
        assert runs.try_once(2, [], [], NOON + timedelta(hours=1))
        for _ in range(2):
            assert runs.try_once(1, [], [], NOON + timedelta(hours=1))
        assert runs.try_once(3, [], [], NOON + timedelta(hours=1))
        assert sorted(item for taken in runs.decided.values() for item in taken) == [entry(7, 1)]
        return ended

    each_kill(lambda runs: None, act)


def test_a_run_killed_while_it_takes_takes_what_no_other_run_takes():
    """What it has taken out is its own; what it hasn't, another run takes."""

    def act(runs: Runs, crash_at: int) -> bool:
        ended = runs.try_once(2, [], [], NOON, crash_at)
        assert runs.try_once(3, [], [], NOON)
        assert runs.try_once(2, [], [], NOON)
        assert sorted(runs.decided[2] + runs.decided[3]) == [entry(1), entry(2), entry(3)]
        return ended

    each_kill(lambda runs: runs.try_once(1, [entry(1), entry(2), entry(3)], [], NOON - timedelta(1)), act)


def test_a_request_to_cancel_is_carried_out_once():
    """A retry, or a cleared task, doesn't cancel what was scheduled since."""

    def act(runs: Runs, crash_at: int) -> bool:
        ended = runs.try_once(2, [], [7], NOON, crash_at)
        has_decided = 2 in runs.decided
        again = entry(7, 5, "2024-06-02T12:00:00Z")
        assert runs.try_once(3, [again], [], NOON)
        assert runs.try_once(2, [], [], NOON)
        if has_decided:
            assert runs.waiting == {7: again}
        assert runs.try_once(2, [], [], NOON)
        return ended

    each_kill(lambda runs: runs.try_once(1, [entry(7, 5)], [], NOON), act)


def test_what_is_put_back_is_sent_once():
    """Killed at any call, tried again, cleared: the entry is this run's or pending, never both or neither."""
    for crash_at in range(200):
        power = Power()
        book, state = PoweredStore(power), PoweredStore(power)
        later = NOON + timedelta(hours=1)

        def run() -> DueOnce:
            subject = DueOnce(PendingWebhooks(book, KEY), state, "r")  # noqa: B023 — called in this round
            subject.decide(lambda: [entry(1), entry(2)], [], NOON, AT_MOST)
            return subject

        first = run()
        power.calls_left = crash_at
        is_killed = False
        try:
            first.postpone([2], later)
        except Crash:
            is_killed = True
        power.calls_left = None
        again = run()
        taken, waiting = again.taken(), PendingWebhooks(book, KEY).all()
        assert (taken, waiting) in (
            ([entry(1), entry(2)], []),
            ([entry(1)], [entry(2)._replace(due=later)]),
        )
        if entry(2) in taken:
            again.postpone([2], later)
        assert run().taken() == [entry(1)]
        assert PendingWebhooks(book, KEY).all() == [entry(2)._replace(due=later)]
        assert book.get(KEY)["runs"] == []
        if not is_killed:
            return
    raise AssertionError("it has no end")


def test_what_is_put_back_doubles_nothing():
    """Where its record is pending again, that one stays."""
    book, state = StateStore(), StateStore()
    subject = DueOnce(PendingWebhooks(book, KEY), state, "r")
    subject.decide(lambda: [entry(1)], [], NOON, AT_MOST)
    newer = entry(1, 3, "2024-06-02T12:00:00Z")
    PendingWebhooks(book, KEY).add([newer])
    subject = DueOnce(PendingWebhooks(book, KEY), state, "r")
    subject.postpone([1], NOON)
    assert subject.taken() == []
    assert PendingWebhooks(book, KEY).all() == [newer]


def test_what_an_earlier_version_noted_counts():
    """An upgrade between a task's tries: what it has entered is entered, what it has taken is its own."""
    book, state = StateStore(), StateStore()
    state.set("entered", True)
    noted = "2024-06-01T12:00:00Z added 2024-06-01T12:00:00Z"
    state.set("taken", {"version": 1, "blocks": 1})
    state.set("taken/0", {"1": noted, "2": noted})
    book.set(KEY, {"version": 1, "blocks": 1})
    book.set(f"{KEY}/0", {"2": noted, "3": noted})
    subject = DueOnce(PendingWebhooks(book, KEY), state, "r")
    subject.decide(lambda: [entry(4)], [], NOON, AT_MOST)
    assert subject.taken() == [entry(1), entry(2)]
    assert PendingWebhooks(book, KEY).all() == [entry(3)]


def test_runs_that_are_never_tried_again_do_not_pile_up(monkeypatch):
    """Each was killed right after it had decided, and had nothing to send; the latest ones are kept."""
    monkeypatch.setattr(pending, "RUNS_KEPT", 3)
    store = StateStore()
    for number in range(10):
        PendingWebhooks(store, KEY).decide(f"r{number}", enter=[entry(number + 1)], take=lambda _: ())
    PendingWebhooks(store, KEY).decide("taker", take=lambda waiting: waiting)
    assert [name for name, _ in store.get(KEY)["runs"]] == ["r7", "r8", "r9", "taker"]
