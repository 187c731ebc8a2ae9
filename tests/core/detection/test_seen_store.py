"""Two states of the seen changes. One for the cursor's position is always complete."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from airflow_insightly_hooks.core.detection import seen_changes
from airflow_insightly_hooks.core.detection.seen_changes import SeenChanges
from airflow_insightly_hooks.core.detection.seen_store import RUNS, SeenStore, seen_keys
from airflow_insightly_hooks.core.digest import digest_of
from airflow_insightly_hooks.core.errors import InvalidState
from tests.conftest import StateStore
from tests.core.state.test_id_set import each_crash

START = datetime(2026, 3, 29, 12, tzinfo=timezone.utc)
KEY = "cursor/dag/detect"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def seen(until: float, records: int = 3) -> SeenChanges:
    found = SeenChanges(START, at(until))
    for number in range(records):
        found.see(number * 7 + 1, [at(0)])
    return found


def written(store: StateStore, *positions: int, records: int = 3) -> None:
    """Write states for these positions of the cursor, each by a run that started from the one before."""
    for position in positions:
        found = SeenStore(store, KEY)
        base = next(iter(found.states()[::-1]), None)
        since = base.until if base else START
        found.write(seen(position, records), reader="r", run=f"run{position}", since=since, base=base)


def test_the_last_two_positions_are_kept():
    """A write replaces the older state. The state that the run started from stays."""
    store = StateStore()
    written(store, 60, 120, 180)
    found = SeenStore(store, KEY)
    assert [state.until for state in found.states()] == [at(120), at(180)]
    assert [len(found.read(state)) for state in found.states()] == [3, 3]
    assert set(store.values) == {f"{KEY}~a", f"{KEY}~b"}


def test_how_a_state_is_stored(monkeypatch):
    """Later versions read this form: a head with the first block, and the other blocks beside it."""
    monkeypatch.setattr(seen_changes, "BLOCK_RECORDS", 2)
    store = StateStore()
    written(store, 60)
    blocks = seen(60).blocks()
    assert len(blocks) == 2
    assert store.get(f"{KEY}~a") == {
        "version": 1,
        "since": "2026-03-29T12:00:00Z",
        "until": "2026-03-29T12:01:00Z",
        "reader": "r",
        "runs": [["2026-03-29T12:00:00Z", ""], ["2026-03-29T12:01:00Z", "run60"]],
        "blocks": 2,
        "digest": digest_of("\n".join(blocks)),
        "first": blocks[0],
    }
    assert store.get(f"{KEY}~a1") == blocks[1]
    (state,) = SeenStore(store, KEY).states()
    assert (state.since, state.until, state.reader, state.slot) == (START, at(60), "r", "a")


def test_a_state_in_which_nothing_was_seen():
    """It is a state like any other."""
    store = StateStore()
    written(store, 60, records=0)
    assert (store.get(f"{KEY}~a")["blocks"], store.get(f"{KEY}~a")["first"]) == (0, "")
    found = SeenStore(store, KEY)
    assert len(found.read(found.states()[0])) == 0


def test_a_state_is_written_without_further_requests():
    """Each request to Airflow's API takes time, so nothing is deleted that was not there."""

    class NothingToDelete(StateStore):
        def delete(self, key: str) -> None:
            pytest.fail(f"{key} was deleted")

    written(NothingToDelete(), 60, 120, 180)


def test_states_are_in_the_order_of_their_positions():
    """Also if the later one remembers changes from an earlier time on."""
    store = StateStore()
    written(store, 60, 120)
    first, second = (store.get(f"{KEY}~{slot}") for slot in "ab")
    store.set(f"{KEY}~a", {**first, "since": "2026-03-29T12:00:30Z"})
    assert [state.until for state in SeenStore(store, KEY).states()] == [at(60), at(120)]
    store.set(f"{KEY}~a", second)
    store.set(f"{KEY}~b", {**first, "since": "2026-03-29T12:00:30Z"})
    assert [state.until for state in SeenStore(store, KEY).states()] == [at(60), at(120)]


def test_the_runs_that_have_moved_the_cursor():
    """The last runs are listed with their positions. Of earlier ones it is unknown."""
    store = StateStore()
    written(store, *range(60, 60 * (RUNS + 10), 60))
    _, state = SeenStore(store, KEY).states()
    assert state.has_run(at(60 * 20), "run1200") is True
    assert state.has_run(at(60 * 20), "run1260") is False
    assert state.has_run(at(60 * 3), "run180") is None
    assert len(state.runs) == RUNS


def test_a_first_state_knows_where_it_began():
    """A run whose end differs from the first listed position hasn't moved the cursor."""
    store = StateStore()
    written(store, 60)
    (state,) = SeenStore(store, KEY).states()
    assert state.has_run(at(30), "other") is False
    assert state.has_run(START, "other") is None


@pytest.mark.parametrize("records", [3, 500])
def test_a_kill_leaves_a_state_for_where_the_cursor_stands(monkeypatch, records):
    """Whichever write is the last one, the state that the run started from can be read."""
    monkeypatch.setattr(seen_changes, "BLOCK_RECORDS", 100)
    before = StateStore()
    written(before, 60, records=records)
    written(before, 120, records=250)
    for store in each_crash(before.values, lambda store: written(store, 180, records=records)):
        found = SeenStore(store, KEY)
        state = next(state for state in found.states() if state.until == at(120))
        assert len(found.read(state)) == 250
        written(store, 180, records=records)
        state = found.states()[-1]
        assert (state.until, len(found.read(state))) == (at(180), records)


def test_values_that_are_no_longer_used_are_deleted(monkeypatch):
    """A state that shrinks leaves no values behind. All keys in use are among seen_keys."""
    monkeypatch.setattr(seen_changes, "BLOCK_RECORDS", 100)
    store = StateStore()
    written(store, 60, 120, records=2_300)
    assert len(store.values) == 46
    assert set(store.values) <= set(seen_keys(KEY))
    written(store, 180, 240)
    assert set(store.values) == {f"{KEY}~a", f"{KEY}~b"}
    assert len(set(seen_keys(KEY))) == 48


@pytest.mark.parametrize(
    "value",
    [
        "x",
        {},
        {"version": 0},
        {"version": 1, "since": "2026-03-29T12:00:00Z", "until": "x", "reader": "", "runs": [], "blocks": 0},
        {"version": 1, "since": "2026-03-29T12:00:00Z", "until": "2026-03-29T12:00:00Z", "reader": ""},
    ],
)
def test_what_cannot_be_read_is_no_state(value):
    """A state that another version or a person has written counts as missing."""
    store = StateStore()
    store.set(f"{KEY}~a", value)
    assert SeenStore(store, KEY).states() == []
    other = StateStore()
    written(other, 60)
    store.set(f"{KEY}~b", other.get(f"{KEY}~a"))
    assert [state.slot for state in SeenStore(store, KEY).states()] == ["b"]


def test_parts_that_do_not_belong_together(monkeypatch):
    """A block that is missing, or that belongs to another state, is noticed."""
    monkeypatch.setattr(seen_changes, "BLOCK_RECORDS", 100)
    store = StateStore()
    written(store, 60, records=250)
    found = SeenStore(store, KEY)
    (state,) = found.states()
    first, second = store.get(f"{KEY}~a1"), store.get(f"{KEY}~a2")
    store.set(f"{KEY}~a1", second)
    with pytest.raises(InvalidState, match="belong together"):
        found.read(state)
    store.delete(f"{KEY}~a1")
    with pytest.raises(InvalidState, match="belong together"):
        found.read(state)
    store.set(f"{KEY}~a1", first)
    assert len(found.read(state)) == 250


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"since": "x"}, "since is not a time such as '2017-03-10 08:00:00'"),
        ({"until": 5}, "until is not a time such as '2017-03-10 08:00:00'"),
        ({"blocks": "1"}, "its blocks is missing"),
        ({"digest": "x"}, "its parts don't belong together"),
    ],
)
def test_a_state_that_is_damaged_while_it_is_read(entries, reason):
    """InvalidState names the key, and what is wrong."""
    store = StateStore()
    written(store, 60)
    found = SeenStore(store, KEY)
    (state,) = found.states()
    store.set(f"{KEY}~a", store.get(f"{KEY}~a") | entries)
    with pytest.raises(InvalidState) as caught:
        found.read(state)
    assert caught.value.key == f"{KEY}~a"
    assert caught.value.reason.startswith(reason)
