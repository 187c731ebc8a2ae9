"""What runs do with pending webhooks: each is sent once, wherever and however often a try is killed."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_insightly_hooks.core.state import pending_webhooks as pending
from airflow_insightly_hooks.core.state.due_once import DueOnce
from airflow_insightly_hooks.core.state.pending_request import PendingRequest
from airflow_insightly_hooks.core.state.pending_webhooks import PendingWebhook, PendingWebhooks
from tests.conftest import StateStore
from tests.core.state.test_id_set import Crash

KEY = "pending/workflow/webhook"
NOON = datetime(2024, 6, 1, 12, tzinfo=timezone.utc)
CHANGED_AT = "2024-06-01T12:00:00Z"
AT_MOST = 4


class Power:
    """Fails at one of the next calls of all stores that share it."""

    def __init__(self) -> None:
        self.calls_left: int | None = None

    def spend(self) -> None:
        """Raise ``Crash`` at the chosen call, and at each one after it."""
        if self.calls_left is not None:
            if self.calls_left <= 0:
                raise Crash
            self.calls_left -= 1


class PoweredStore(StateStore):
    """A state store that may fail before or after each call."""

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


NOTHING = PendingRequest()


def cancelling(*record_ids: int) -> PendingRequest:
    return PendingRequest(cancel=dict.fromkeys(record_ids))


def sending_now(*entries: PendingWebhook) -> PendingRequest:
    return PendingRequest(send_now={item.record_id: item.changed_at for item in entries})


class Runs:
    """Runs that share one store of pending webhooks, and what each of them must do."""

    def __init__(self) -> None:
        self.power = Power()
        self.book = PoweredStore(self.power)
        self.states: dict[int, PoweredStore] = {}
        self.inputs: dict[int, tuple[list[PendingWebhook], PendingRequest]] = {}
        self.decided: dict[int, list[PendingWebhook]] = {}
        self.waiting: dict[int, PendingWebhook] = {}

    def try_once(
        self,
        run: int,
        entries: list[PendingWebhook],
        request: PendingRequest,
        until: datetime,
        crash_at: int | None = None,
    ) -> bool:
        """Make a try of a run: the first, a retry, or one after a clear. Return whether it finished."""
        entries, request = self.inputs.setdefault(run, (entries, request))
        state = self.states.setdefault(run, PoweredStore(self.power))
        name = f"run{run}"
        expected_waiting, expected = self._expected(entries, request, until)
        self.power.calls_left = crash_at
        taken: list[PendingWebhook] | None = None
        try:
            subject = DueOnce(PendingWebhooks(self.book, KEY), state, name)
            decision = subject.decide(lambda: entries, request, until, AT_MOST)
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
        self, entries: list[PendingWebhook], request: PendingRequest, until: datetime
    ) -> tuple[dict[int, PendingWebhook], list[PendingWebhook]]:
        waiting = dict(self.waiting)
        for item in entries:
            waiting.setdefault(item.record_id, item)
        for record_id, item in list(waiting.items()):
            if request.cancels(item):
                del waiting[record_id]
            elif request.sends_now(item):
                waiting[record_id] = item._replace(due=min(item.due, until))
        due = sorted((e for e in waiting.values() if e.due <= until), key=lambda e: (e.due, e.record_id))
        taken = due[:AT_MOST]
        return {k: item for k, item in waiting.items() if item not in taken}, taken


@pytest.fixture(autouse=True, scope="module")
def _small_blocks():
    """Let a few entries fill several blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pending, "BLOCK_SIZE", 2)
        yield


selections = st.dictionaries(
    st.integers(1, 7),
    st.none() | st.sampled_from([f"2024-06-01T12:00:{n:02}Z" for n in range(8)]),
    max_size=3,
)
steps = st.lists(
    st.tuples(
        st.integers(0, 4),  # the run
        st.lists(st.tuples(st.integers(1, 7), st.integers(0, 3)), max_size=7),
        st.builds(PendingRequest, selections, selections),
        st.integers(0, 3),
        st.none() | st.integers(0, 40),
    ),
    max_size=20,
)


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(steps)
def test_each_run_decides_once(steps):
    """A run enters, cancels, sends early and takes, each once. No entry is lost, and none is taken twice."""
    runs = Runs()
    for number, (run, entries, request, hours, crash_at) in enumerate(steps):
        new = [entry(record_id, due, f"2024-06-01T12:00:{number:02}Z") for record_id, due in entries]
        runs.try_once(run, new, request, NOON + timedelta(hours=hours), crash_at)
    for run in list(runs.inputs):
        assert runs.try_once(run, [], NOTHING, NOON + timedelta(days=1))
    taken = [item for items in runs.decided.values() for item in items]
    changes = [(item.record_id, item.changed_at) for item in taken]
    assert len(set(changes)) == len(changes)


def each_kill(prepare, act) -> None:
    """Make tries that are killed at each of its calls in turn, until one is not."""
    for crash_at in range(200):
        runs = Runs()
        prepare(runs)
        if act(runs, crash_at):
            return
    raise AssertionError("it has no end")


def test_a_run_killed_between_entering_and_noting_it_enters_nothing_twice():
    """Another run takes and sends the entry meanwhile. The retry and a cleared task don't enter it again."""

    def act(runs: Runs, crash_at: int) -> bool:
        ended = runs.try_once(1, [entry(7, 1)], NOTHING, NOON, crash_at)
        assert runs.try_once(2, [], NOTHING, NOON + timedelta(hours=1))
        for _ in range(2):
            assert runs.try_once(1, [], NOTHING, NOON + timedelta(hours=1))
        assert runs.try_once(3, [], NOTHING, NOON + timedelta(hours=1))
        assert sorted(item for taken in runs.decided.values() for item in taken) == [entry(7, 1)]
        return ended

    each_kill(lambda runs: None, act)


def test_a_run_killed_while_it_takes_takes_what_no_other_run_takes():
    """The run keeps the entries that it has taken. Another run takes the others."""

    def act(runs: Runs, crash_at: int) -> bool:
        ended = runs.try_once(2, [], NOTHING, NOON, crash_at)
        assert runs.try_once(3, [], NOTHING, NOON)
        assert runs.try_once(2, [], NOTHING, NOON)
        assert sorted(runs.decided[2] + runs.decided[3]) == [entry(1), entry(2), entry(3)]
        return ended

    each_kill(
        lambda runs: runs.try_once(1, [entry(1), entry(2), entry(3)], NOTHING, NOON - timedelta(1)), act
    )


def test_a_request_to_cancel_is_carried_out_once():
    """A retry, or a cleared task, doesn't cancel webhooks that were scheduled since."""

    def act(runs: Runs, crash_at: int) -> bool:
        ended = runs.try_once(2, [], cancelling(7), NOON, crash_at)
        has_decided = 2 in runs.decided
        again = entry(7, 5, "2024-06-02T12:00:00Z")
        assert runs.try_once(3, [again], NOTHING, NOON)
        assert runs.try_once(2, [], NOTHING, NOON)
        if has_decided:
            assert runs.waiting == {7: again}
        assert runs.try_once(2, [], NOTHING, NOON)
        return ended

    each_kill(lambda runs: runs.try_once(1, [entry(7, 5)], NOTHING, NOON), act)


def test_a_request_to_send_now_is_carried_out_once():
    """Killed at any call, the entry is sent once. A later trigger of the record keeps its time."""

    def act(runs: Runs, crash_at: int) -> bool:
        first, again = entry(7, 5), entry(7, 6, "2024-06-02T12:00:00Z")
        ended = runs.try_once(2, [], sending_now(first), NOON, crash_at)
        has_decided = 2 in runs.decided
        assert runs.try_once(3, [again], NOTHING, NOON)
        assert runs.try_once(2, [], NOTHING, NOON)
        assert runs.try_once(2, [], NOTHING, NOON)
        assert runs.decided[2] == [first._replace(due=NOON)]
        assert runs.decided[3] == []
        assert runs.waiting == ({7: again, 8: entry(8, 5)} if has_decided else {8: entry(8, 5)})
        return ended

    each_kill(lambda runs: runs.try_once(1, [entry(7, 5), entry(8, 5)], NOTHING, NOON), act)


def test_what_is_sent_now_beyond_a_run_is_due():
    """The next run takes it at once, without waiting for its original time."""
    runs = Runs()
    many = [entry(record_id, 5) for record_id in range(1, 7)]
    assert runs.try_once(1, many, NOTHING, NOON)
    assert runs.try_once(2, [], sending_now(*many), NOON)
    assert runs.try_once(3, [], NOTHING, NOON)
    assert [item.record_id for item in runs.decided[2] + runs.decided[3]] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("action", ["cancel", "send_now"])
def test_an_entry_that_is_named_by_its_change_is_no_other_one(action):
    """If the record was sent and scheduled again since, the new entry stays and keeps its time."""
    runs = Runs()
    newer = entry(7, 5, "2024-06-02T12:00:00Z")
    assert runs.try_once(1, [newer], NOTHING, NOON)
    assert runs.try_once(2, [], PendingRequest(**{action: {7: CHANGED_AT}}), NOON)
    assert (runs.decided[2], runs.waiting) == ([], {7: newer})


def test_what_is_put_back_is_sent_once():
    """Killed at any call, retried, cleared: the entry is this run's or pending, never both or neither."""
    for crash_at in range(200):
        power = Power()
        book, state = PoweredStore(power), PoweredStore(power)
        later = NOON + timedelta(hours=1)

        def run() -> DueOnce:
            subject = DueOnce(PendingWebhooks(book, KEY), state, "r")  # noqa: B023 — called in this round
            subject.decide(lambda: [entry(1), entry(2)], NOTHING, NOON, AT_MOST)
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
    """If its record is pending again, the pending entry stays."""
    book, state = StateStore(), StateStore()
    subject = DueOnce(PendingWebhooks(book, KEY), state, "r")
    subject.decide(lambda: [entry(1)], NOTHING, NOON, AT_MOST)
    newer = entry(1, 3, "2024-06-02T12:00:00Z")
    PendingWebhooks(book, KEY).add([newer])
    subject = DueOnce(PendingWebhooks(book, KEY), state, "r")
    subject.postpone([1], NOON)
    assert subject.taken() == []
    assert PendingWebhooks(book, KEY).all() == [newer]


def test_what_an_earlier_version_noted_counts():
    """After an upgrade between two tries, entries stay entered, and taken entries still belong to the run."""
    book, state = StateStore(), StateStore()
    state.set("entered", True)
    noted = "2024-06-01T12:00:00Z added 2024-06-01T12:00:00Z"
    state.set("taken", {"version": 1, "blocks": 1})
    state.set("taken/0", {"1": noted, "2": noted})
    book.set(KEY, {"version": 1, "blocks": 1})
    book.set(f"{KEY}/0", {"2": noted, "3": noted})
    subject = DueOnce(PendingWebhooks(book, KEY), state, "r")
    subject.decide(lambda: [entry(4)], NOTHING, NOON, AT_MOST)
    assert subject.taken() == [entry(1), entry(2)]
    assert PendingWebhooks(book, KEY).all() == [entry(3)]


def test_runs_that_are_never_tried_again_do_not_pile_up(monkeypatch):
    """Each was killed right after it had decided, and had nothing to send. Only the latest ones are kept."""
    monkeypatch.setattr(pending, "RUNS_KEPT", 3)
    store = StateStore()
    for number in range(10):
        PendingWebhooks(store, KEY).decide(f"r{number}", enter=[entry(number + 1)], take=lambda _: ())
    PendingWebhooks(store, KEY).decide("taker", take=lambda waiting: waiting)
    assert [name for name, _ in store.get(KEY)["runs"]] == ["r7", "r8", "r9", "taker"]
