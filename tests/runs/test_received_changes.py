"""Which webhooks a task reads: each one once, whatever has started its run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.standard.operators.python import PythonOperator

from airflow_insightly_hooks.core.delivery.message_id import message_id_of
from airflow_insightly_hooks.core.detection.changes import check_changes
from airflow_insightly_hooks.core.detection.storable_changes import exact_record
from airflow_insightly_hooks.core.errors import (
    InsightlyHooksError,
    InvalidConnection,
    NewerState,
    UnknownRecordType,
    UntrustedClock,
)
from airflow_insightly_hooks.core.incoming import seen_names
from airflow_insightly_hooks.hooks.entity_store import EntityStore
from airflow_insightly_hooks.operators.criteria import EvaluateCriteriaOperator
from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.runs import names_memory
from airflow_insightly_hooks.runs.received_changes import (
    MissingInletError,
    received_changes,
    received_changes_asset,
)
from tests.conftest import Connect, Logged, run_context
from tests.runs.received import EIGHT, Clock, Reader, StoppedHereError, keep, woken

Receive = Callable[..., Any]


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reader(connect: Connect, tmp_path: Path, clock: Clock) -> Reader:
    """A task, before its first run."""
    extra = {"accept": "entity", "entity_path": f"file://{tmp_path}/kept"}
    connect("crm", "insightly_incoming", login="insightly", password="correct horse", extra=extra)
    return Reader(clock)


@pytest.fixture
def receive(tmp_path: Path, clock: Clock) -> Receive:
    """``receive(record id, seconds from now, fields…)`` keeps a webhook."""
    store = EntityStore(f"file://{tmp_path}/kept", "insightly_default")
    return lambda record_id, after=0.0, **fields: keep(store, record_id, clock.now + seconds(after), **fields)


@pytest.fixture
def running(reader: Reader, clock: Clock) -> Reader:
    """A task that last ran a minute ago."""
    assert reader.ids() == []
    clock.forward(minutes=1)
    return reader


# --- what a run reads --------------------------------------------------------------------------------------


def test_first_run(reader: Reader, receive: Receive, clock: Clock) -> None:
    """A first run reads webhooks that came after its start. Earlier ones are never read."""
    receive(1, -5)
    run = reader.new_run()
    clock.forward(seconds=10)
    receive(2)
    assert reader.ids(run) == [2]
    assert reader.cursor == "2017-03-10T08:00:10Z"
    assert reader.ids() == []


def test_woken_first_run(reader: Reader, receive: Receive, clock: Clock) -> None:
    """If webhooks have started the first run, it reads from the announced changes on, by any clock."""
    receive(1, -100)
    receive(2, -30)
    receive(3, -1)
    events = woken(EIGHT + seconds(10), EIGHT - seconds(25))
    assert reader.ids(reader.new_run(triggering_asset_events=events)) == [2, 3]
    assert reader.ids() == []
    assert clock.now == EIGHT


def test_next_runs(running: Reader, receive: Receive, clock: Clock) -> None:
    """Each run reads what has come since the last one, whatever started it, the oldest change first."""
    receive(1, -20, changed_at=clock.now - seconds(21))
    receive(2, -10, changed_at=clock.now - seconds(22))
    assert running.ids() == [2, 1]
    assert running.ids() == []
    receive(3)
    assert running.ids() == [3]
    clock.forward(days=3)  # the DAG was paused
    receive(4, -86_400)
    receive(5, -1)
    assert running.ids() == [4, 5]
    assert running.ids() == []


def test_runs_of_one_second(running: Reader, receive: Receive) -> None:
    """Runs within one second read no webhook twice, and miss none."""
    found = []
    for number in range(1, 6):
        receive(number)
        found += running.ids()
    assert found == [1, 2, 3, 4, 5]


def test_clocks(running: Reader, receive: Receive, clock: Clock) -> None:
    """A webhook whose name is before the cursor, or in the future, is read once, too."""
    receive(1, 300)
    receive(2, -1)
    assert running.ids() == [2, 1]
    receive(3, -600)
    receive(4, 200)
    assert running.ids() == [3, 4]
    clock.forward(seconds=-200)  # of another worker
    receive(5)
    assert running.ids() == [5]
    clock.forward(minutes=30)
    assert running.ids() == []


def test_midnight(running: Reader, receive: Receive, clock: Clock) -> None:
    """Each day has its own folder, and no webhook is lost between two of them."""
    clock.forward(hours=15, minutes=58, seconds=50)
    receive(1)
    receive(2, 20)
    assert running.ids() == [1, 2]
    clock.forward(seconds=30)
    receive(3, -25)
    receive(4)
    assert running.ids() == [3, 4]


def test_change(running: Reader, receive: Receive) -> None:
    """A change is the same as the sensor's: it fits criteria and payloads, and has exact numbers."""
    receive(7, AMOUNT=1e20, DATE_CREATED_UTC="/Date(1489046400000-0800)/", DATE_OF_BIRTH=None)
    (change,) = changes = running.read(running.new_run())
    assert check_changes(changes) == changes
    assert exact_record(change)["DATE_CREATED_UTC"] == "2017-03-09 08:00:00"
    assert (change["event"], change["changed_at"]) == ("updated", "2017-03-10T08:01:00Z")
    criteria = {"all": [{"field": "FIRST_NAME", "operator": "equals", "value": "Zoé"}]}
    evaluate = EvaluateCriteriaOperator(task_id="evaluate", changes=changes, criteria=criteria)
    matching = evaluate.execute(run_context())  # type: ignore[arg-type]
    build = BuildPayloadOperator(task_id="build", changes=matching)
    (payload,) = build.execute(run_context())  # type: ignore[arg-type]
    assert '"DATE_CREATED_UTC":"\\/Date(1489046400000-0800)\\/"' in payload["body"]
    assert '"AMOUNT":1e+20' in payload["body"]
    assert message_id_of(change, "w") == message_id_of({**change, "record": {}}, "w")


def test_window(running: Reader, receive: Receive) -> None:
    """The window goes to XCom, for criteria with relative dates."""
    receive(1)
    run = running.new_run()
    running.ids(run)
    assert run["ti"].xcom["window"] == {"start": "2017-03-10T08:00:00Z", "end": "2017-03-10T08:01:00Z"}


def test_record_types(running: Reader, receive: Receive, clock: Clock) -> None:
    """A task with several record types has a cursor for each of them."""
    leads = received_changes_asset("Leads")
    run = running.new_run()
    receive(1)
    running.assets[leads].set("cursor/dag/read", "2017-03-10T08:00:30Z")
    for _ in range(2):  # a retry
        assert running.ids(run) == [1]
        assert running.read(run, record_type="Leads") == []
    assert running.assets[leads].get("cursor/dag/read") == "2017-03-10T08:01:00Z"
    assert clock.now == EIGHT + seconds(60)


# --- retries and cleared runs ------------------------------------------------------------------------------


def test_again(running: Reader, receive: Receive, clock: Clock) -> None:
    """A retry and a cleared run read the same again, even if more webhooks have come since."""
    first, second = running.new_run(), running.new_run()
    receive(1, -10)
    assert running.ids(first) == [1]
    receive(2, -10)
    receive(3)
    assert running.ids(first) == [1]
    assert running.ids(second) == [2, 3]
    receive(4, -10)
    clock.forward(hours=5)
    assert running.ids(second) == [2, 3]
    assert running.ids(first) == [1]
    assert running.ids() == [4]


def test_stopped(running: Reader, receive: Receive, clock: Clock) -> None:
    """Wherever a try is killed, the next one reads the same, or what is unread then.

    Each webhook is read once.
    """
    record_ids = count(1)
    for writes in range(20):
        run, other = running.new_run(), running.new_run()
        new = [next(record_ids), next(record_ids)]
        clock.forward(seconds=5)
        receive(new[0])
        running.left[0] = writes
        try:
            running.ids(run)
            is_stopped = False
        except StoppedHereError:
            is_stopped = True
        running.left[0] = None
        receive(new[1])
        again = running.ids(run)
        assert again in (new, new[:1])
        assert again + running.ids(other) == new
        if not is_stopped:
            assert writes > 3
            return
    pytest.fail("it never came to its end")


@pytest.mark.parametrize("writes", range(4))
@pytest.mark.parametrize("pause", [0, 5])
def test_stopped_before_another_run(
    running: Reader, receive: Receive, clock: Clock, writes: int, pause: float
) -> None:
    """If a run was killed before it wrote its cursor, the next run reads its webhooks."""
    run = running.new_run()
    receive(1)
    running.left[0] = writes
    with pytest.raises(StoppedHereError):
        running.ids(run)
    running.left[0] = None
    clock.forward(seconds=pause)
    assert running.ids() == [1]
    receive(2)
    assert running.ids(run) == [2]


def test_test_run(running: Reader, receive: Receive) -> None:
    """A test of the task reads what the next run will read, and changes nothing."""
    receive(1)
    before = dict(running.assets[running.asset].values)
    for run_type in ("manual", "manual"):
        test = SimpleNamespace(run_type=run_type, triggering_user_name="dag_test", start_date=None)
        run = running.new_run(dag_run=test)
        assert running.ids(run) == [1]
        assert run["task_state_store"].values == {}
    assert running.assets[running.asset].values == before
    assert running.ids() == [1]


# --- intervals ---------------------------------------------------------------------------------------------


def interval(reader: Reader, start: float, end: float, run_type: str = "scheduled") -> dict[str, Any]:
    """Return the context of a run for an interval, in seconds from eight on."""
    return reader.new_run(
        dag_run=SimpleNamespace(run_type=run_type, start_date=reader.clock.now),
        data_interval_start=EIGHT + seconds(start),
        data_interval_end=EIGHT + seconds(end),
    )


def test_intervals(reader: Reader, receive: Receive, clock: Clock) -> None:
    """A run with a data interval reads webhooks of the interval and late ones.

    A backfill reads only the former.
    """
    clock.forward(seconds=60)
    receive(1, -70)
    receive(2, -60)
    receive(3, -1)
    receive(4, 0)
    assert reader.ids(interval(reader, 0, 60)) == [2, 3]
    clock.forward(seconds=60)
    receive(5, -90)
    second = interval(reader, 60, 120)
    assert reader.ids(second) == [5, 4]
    receive(6, -90)
    assert reader.ids(second) == [5, 4]
    assert reader.ids(interval(reader, 0, 60, "backfill")) == [2, 5, 6, 3]
    assert reader.cursor == "2017-03-10T08:02:00Z"
    assert reader.ids(interval(reader, 120, 180)) == [6]


def test_gap(reader: Reader, receive: Receive, clock: Clock, logged: Logged) -> None:
    """Webhooks from before a scheduled interval are not read, and the log says so."""
    clock.forward(seconds=240)
    for number, after in enumerate((-240, -170, -110, -50), 1):
        receive(number, after)
    assert reader.ids(interval(reader, 0, 60)) == [1]
    assert reader.ids(interval(reader, 180, 240)) == [4]
    assert "No run has read [2017-03-10T08:01:00Z, 2017-03-10T08:03:00Z)" in logged.text
    assert reader.ids(interval(reader, 60, 120, "backfill")) == [2]


def test_intervals_in_another_order(reader: Reader, receive: Receive, clock: Clock) -> None:
    """A scheduled run whose interval is before the cursor reads its interval, and moves no cursor."""
    clock.forward(seconds=180)
    for number, after in enumerate((-170, -110, -50), 1):
        receive(number, after)
    assert reader.ids(interval(reader, 0, 60)) == [1]
    assert reader.ids(interval(reader, 120, 180)) == [3]
    before = dict(reader.assets[reader.asset].values)
    assert reader.ids(interval(reader, 60, 120)) == [2]
    assert reader.assets[reader.asset].values == before
    assert reader.ids(interval(reader, 180, 240)) == []


# --- what is missing ---------------------------------------------------------------------------------------


def test_deleted(running: Reader, receive: Receive, clock: Clock, tmp_path: Path, logged: Logged) -> None:
    """Webhooks that were deleted before they were read are reported: whole days, and single files."""
    receive(1)
    run = running.new_run()
    assert running.ids(run) == [1]
    for path in tmp_path.rglob("*.json"):
        path.unlink()
    assert running.ids(run) == []
    assert "Deleted since this run first read: 1 webhook" in logged.text
    assert "may have been deleted" not in logged.text
    clock.forward(days=9)
    receive(2)
    assert running.ids() == [2]
    assert "Webhooks from 2017-03-10T07:46:00Z to 2017-03-12T00:00:00Z may have been deleted" in logged.text


def test_deleted_while_it_is_read(
    running: Reader, receive: Receive, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    """If an object is listed but no longer exists when it is read, it is counted."""
    receive(1)
    receive(2)
    contents = EntityStore.contents

    def without_first(*arguments: Any) -> Any:
        found = list(contents(*arguments))
        return [None, *found[1:]]

    with monkeypatch.context() as patch:
        patch.setattr(EntityStore, "contents", without_first)
        assert running.ids() == [2]
    assert "Deleted before this task could read: 1 webhook" in logged.text
    assert running.ids() == []


def test_unreadable(running: Reader, receive: Receive, tmp_path: Path, clock: Clock, logged: Logged) -> None:
    """An unreadable object becomes an undeliverable change. If it is new, it may still be being written."""
    receive(1)
    half = receive(2)
    other = receive(3)
    paths = {path.name: path for path in tmp_path.rglob("*.json")}
    whole = paths[str(half)].read_bytes()
    paths[str(half)].write_bytes(whole[:-9])
    paths[str(other)].write_bytes(whole)
    run = running.new_run()
    assert running.ids(run) == [1]
    assert "Left to the next run, since they seem to be only partly written: 2 webhooks" in logged.text
    paths[str(half)].write_bytes(whole)
    clock.forward(minutes=2)
    changes = {change["record_id"]: change for change in running.read(running.new_run())}
    assert sorted(changes) == [2, 3]
    assert "undeliverable" not in changes[2]
    assert str(other) in changes[3]["undeliverable"]
    assert changes[3]["record"] == {}
    assert "Contacts 3 can't be delivered" in logged.text
    assert running.ids(run) == [1]
    assert running.ids() == []


def test_lost_memory(running: Reader, receive: Receive, logged: Logged) -> None:
    """If it isn't known any more what was read, the task reads from the cursor on, and the log says so."""
    receive(1, -5)
    assert running.ids() == [1]
    state = running.assets[running.asset]
    for key in [key for key in state.values if "~" in key]:
        state.set(key, {**state.get(key), "digest": "?"})
    receive(2, 5)
    assert running.ids() == [2]
    assert "its parts don't belong together" in logged.text
    assert running.ids() == []


@pytest.mark.parametrize(
    ("key", "is_of_asset"),
    [("cursor/dag/read", True), ("cursor/dag/read~a", True), ("window", False), ("told", False)],
)
def test_state_of_a_newer_release(running: Reader, receive: Receive, key: str, is_of_asset: bool) -> None:
    """The task, cleared, says which key an older release can't read, and reads nothing."""
    run = running.new_run()
    receive(1)
    assert running.ids(run) == [1]
    state = running.assets[running.asset] if is_of_asset else run["task_state_store"]
    (key,) = [kept for kept in state.values if kept.removeprefix("received/Contacts/") == key]
    state.set(key, {"version": 99})
    with pytest.raises(NewerState) as caught:
        running.ids(run)
    assert key.endswith(caught.value.key)
    assert state.get(key) == {"version": 99}


def test_cursor_set_back(running: Reader, receive: Receive) -> None:
    """If a cursor was set back by hand, the task reads again from there."""
    receive(1, -50)
    receive(2, -5)
    assert running.ids() == [1, 2]
    running.assets[running.asset].set("cursor/dag/read", "2017-03-10T08:00:30Z")
    assert running.ids() == [2]
    assert running.ids() == []


def test_lost_cursor(running: Reader, receive: Receive, clock: Clock, logged: Logged) -> None:
    """If a task has run before and has no cursor, it reads all stored webhooks, so that none is lost."""
    receive(1, -86_400 * 3)
    receive(2, -5)
    running.assets[running.asset].clear()
    run = running.new_run()
    run["ti"].previous = {"success": [SimpleNamespace(run_id="r", logical_date=EIGHT, try_number=1)]}
    clock.forward(seconds=1)
    assert running.ids(run) == [1, 2]
    assert "it reads all kept webhooks, from 2017-03-03T00:00:00Z on" in logged.text
    assert running.ids() == []


def test_more_than_is_remembered(
    running: Reader, receive: Receive, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    """If more was read than can be remembered, no webhook is read twice, and the log says what it costs."""
    monkeypatch.setattr(names_memory, "MOST_NAMES", 3)
    for number in range(1, 8):
        receive(number, number - 8)
    assert running.ids() == [1, 2, 3, 4, 5, 6, 7]
    assert "late ones may be missed" in logged.text
    receive(8, -6.5)  # older than the remembered ones
    receive(9, -2.5)
    assert running.ids() == [9]


def test_many_runs(running: Reader, receive: Receive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the last runs are listed with the cursor. An earlier run reads the same again, too."""
    monkeypatch.setattr(names_memory, "RUNS", 3)
    receive(1)
    first = running.new_run()
    assert running.ids(first) == [1]
    for number in range(2, 8):
        receive(number)
        assert running.ids() == [number]
    state = running.assets[running.asset]
    assert [len(state.get(f"cursor/dag/read~{slot}")["runs"]) for slot in "ab"] == [3, 3]
    assert running.ids(first) == [1]


def test_many(running: Reader, receive: Receive, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of many webhooks take several values. A retry and the next run read all of them."""
    for module in (names_memory, seen_names):
        monkeypatch.setattr(module, "BLOCK_NAMES", 3)
    for number in range(1, 12):
        receive(number)
    run = running.new_run()
    assert running.ids(run) == list(range(1, 12))
    assert running.ids(run) == list(range(1, 12))
    assert running.ids() == []


# --- what is refused ---------------------------------------------------------------------------------------


def test_missing_inlet(running: Reader) -> None:
    """If the asset is missing among a task's inlets, the error says how to add it."""
    run = running.new_run(asset_state_store={})
    with pytest.raises(MissingInletError) as caught:
        running.read(run)
    assert caught.value.asset == "insightly/insightly_default/Contacts"
    assert "@task(inlets=[received_changes_asset('Contacts', 'insightly_default')])" in str(caught.value)
    assert isinstance(caught.value, InsightlyHooksError)


def test_connections(running: Reader, connect: Connect) -> None:
    """A connection without a store, or of another account, is refused. The error names its field."""
    connect("crm", "insightly_incoming", login="i", password="p")
    with pytest.raises(InvalidConnection) as caught:
        running.read(running.new_run())
    assert caught.value.field == "extra.accept"
    extra = {"accept": "entity", "entity_path": "file:///nowhere", "insightly_conn_id": "other"}
    connect("crm", "insightly_incoming", login="i", password="p", extra=extra)
    with pytest.raises(InvalidConnection) as caught:
        running.read(running.new_run())
    assert caught.value.field == "extra.insightly_conn_id"


def test_record_type() -> None:
    """A record type that Insightly doesn't have is refused when the DAG is parsed."""
    with pytest.raises(UnknownRecordType):
        received_changes_asset("Contact")
    with pytest.raises(UnknownRecordType):
        received_changes("Contact")


def test_returned_records_are_not_logged(running: Reader) -> None:
    """Airflow's Python operators log what a task returns. This is switched off if it may contain records."""
    operator = PythonOperator(task_id="read", python_callable=print)
    assert operator.show_return_value_in_logs
    running.ids(running.new_run(task=operator))
    assert not operator.show_return_value_in_logs


def test_wrong_clock(running: Reader, receive: Receive, clock: Clock) -> None:
    """If a worker's clock is far behind the cursor, it reads nothing: it would read webhooks again."""
    receive(1)
    clock.forward(minutes=-7)
    with pytest.raises(UntrustedClock, match="this worker's clock says that it is 2017-03-10T07:54:00Z"):
        running.ids()
    clock.forward(minutes=8)
    assert running.ids() == [1]


def test_failing_store(running: Reader, receive: Receive, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that can't be read fails the task. The next try reads the same."""
    receive(1)
    run = running.new_run()

    def fail(*_: Any) -> Any:
        raise OSError("away")

    for name in ("names", "contents"):
        with monkeypatch.context() as patch:
            patch.setattr(EntityStore, name, fail)
            with pytest.raises(OSError, match="away"):
                running.ids(run)
    receive(2)
    assert running.ids(run) == [1, 2]


def test_nothing_is_logged_of_records(
    running: Reader, receive: Receive, tmp_path: Path, logged: Logged
) -> None:
    """Neither the records' contents nor their faults appear in a log or in the stored state of a run."""
    receive(1)
    receive(2, CUSTOMFIELDS=[{"Zoé": 1}])
    (path, *_) = tmp_path.rglob("*.json")
    path.write_bytes(path.read_bytes()[:-20])
    run = running.new_run()
    running.clock.forward(minutes=2)
    running.ids(run)
    kept = [str(store.values) for store in (running.assets[running.asset], run["task_state_store"])]
    text = logged.text + "".join(kept)
    assert "Zo" not in text
    assert "can't be delivered" in text
