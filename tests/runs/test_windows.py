"""Which window a run covers, and what moves the cursor."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import (
    Asset,
    CronTriggerTimetable,
    DeltaTriggerTimetable,
    MultipleCronTriggerTimetable,
)
from airflow.sdk.definitions.timetables.simple import ContinuousTimetable, NullTimetable
from airflow.timetables.trigger import CronTriggerTimetable as CoreCronTriggerTimetable

from airflow_insightly_hooks.core.detection.changes import ChangeWindow
from airflow_insightly_hooks.core.errors import InvalidTime, InvalidWindow, LostCursor, UntrustedClock
from airflow_insightly_hooks.hooks.assets import CURSOR_LISTS, cursor_list, records_asset
from airflow_insightly_hooks.runs import cursor_lists
from airflow_insightly_hooks.runs import windows as windows_module
from airflow_insightly_hooks.runs.windows import RunWindows
from tests.conftest import Logged, TaskInstance, ended, run_context

ASSET = records_asset("insightly_default", "Contacts")
KEY = "cursor/dag/task"
EIGHT = datetime(2017, 3, 10, 8, tzinfo=timezone.utc)
NINE, TEN = EIGHT + timedelta(hours=1), EIGHT + timedelta(hours=2)
WINDOW = ChangeWindow(EIGHT, NINE)


def windows_of(context: dict[str, Any], asset: Asset, explicit: object = None) -> RunWindows:
    return RunWindows(context, context["ti"], asset, explicit)  # it has the ids of a task


def interval(start: datetime | None = EIGHT, end: datetime | None = NINE, **entries: Any) -> dict[str, Any]:
    return run_context(data_interval_start=start, data_interval_end=end, **entries)


def with_cursor(context: dict[str, Any], cursor: str = "2017-03-10T08:00:00Z") -> dict[str, Any]:
    context["asset_state_store"][ASSET].set(KEY, cursor)
    return context


def cursor(context: dict[str, Any]) -> str | None:
    value: str | None = context["asset_state_store"][ASSET].get(KEY)
    return value


def next_run(context: dict[str, Any], **entries: Any) -> dict[str, Any]:
    """Return the context of a later run: it has the same asset state, and a new task state."""
    return run_context(asset_state_store=context["asset_state_store"], **entries)


def test_asset() -> None:
    """The asset of the cursors depends only on account and record type."""
    asset = Asset("insightly/insightly_default/Contacts", "insightly://insightly_default/Contacts")
    assert records_asset("insightly_default", "Contacts") == asset
    assert records_asset("other", "Contacts") != ASSET
    assert records_asset("insightly_default", "Tasks") != ASSET


# --- rule 1 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "explicit",
    [
        {"start": "2017-03-10T08:00:00Z", "end": "2017-03-10T09:00:00Z"},
        {"start": "2017-03-10 08:00:00", "end": "2017-03-10 10:00:00+01:00"},
        ("2017-03-10 08:00", "2017-03-10 09:00"),
        [EIGHT, NINE],
        WINDOW,
    ],
)
def test_explicit(explicit: Any) -> None:
    """An explicit window comes first, and moves no cursor."""
    context = with_cursor(interval(NINE, TEN))
    windows = windows_of(context, ASSET, explicit)
    assert windows.fixed() == WINDOW
    windows.take(WINDOW)
    assert cursor(context) == "2017-03-10T08:00:00Z"
    assert context["task_state_store"].values == {}
    assert windows.unread_before(WINDOW) is None


@pytest.mark.parametrize(
    "explicit",
    [
        "2017-03-10",
        {"start": EIGHT},
        {"start": EIGHT, "end": NINE, "settle": 5},
        (EIGHT, NINE, TEN),
        (NINE, EIGHT),
        (EIGHT.replace(tzinfo=None), NINE),
        (1, 2),
        "",
        {},
        (),
    ],
)
def test_refused_explicit(explicit: Any) -> None:
    """Anything but a window is refused."""
    with pytest.raises(InvalidWindow):
        windows_of(run_context(), ASSET, explicit)
    with pytest.raises(InvalidTime, match="window start"):
        windows_of(run_context(), ASSET, ("yesterday", "2017-03-10"))


# --- rule 2 ----------------------------------------------------------------------------------------------


def test_interval() -> None:
    """If the data interval isn't empty, it is the window. A scheduled run moves the cursor to its end."""
    context = interval()
    windows = windows_of(context, ASSET)
    assert windows.fixed() == WINDOW
    assert windows.unread_before(WINDOW) is None
    windows.take(WINDOW)
    assert cursor(context) == "2017-03-10T09:00:00Z"
    assert context["task_state_store"].values == {}


@pytest.mark.parametrize("run_type", ["manual", "backfill", "asset_triggered"])
def test_interval_of_another_run(run_type: str) -> None:
    """Only a scheduled run's interval moves the cursor, and only a scheduled run can find a gap."""
    context = with_cursor(interval(NINE, TEN, dag_run=SimpleNamespace(run_type=run_type)))
    windows = windows_of(context, ASSET)
    assert windows.fixed() == ChangeWindow(NINE, TEN)
    assert windows.unread_before(ChangeWindow(NINE, TEN)) is None
    windows.take(ChangeWindow(NINE, TEN))
    assert cursor(context) == "2017-03-10T08:00:00Z"


def test_cursor_never_goes_back() -> None:
    """A run over the past, such as a cleared one, leaves the cursor where it is."""
    context = with_cursor(interval(), "2017-03-10T10:00:00Z")
    windows_of(context, ASSET).take(WINDOW)
    assert cursor(context) == "2017-03-10T10:00:00Z"


@pytest.mark.parametrize(
    ("read_to", "gap"),
    [
        ("2017-03-10T07:00:00Z", ChangeWindow(EIGHT - timedelta(hours=1), EIGHT)),
        ("2017-03-10T08:00:00Z", None),
        ("2017-03-10T09:30:00Z", None),
        (None, None),
    ],
)
def test_gap(read_to: str | None, gap: ChangeWindow | None) -> None:
    """The time between cursor and interval was skipped, for example while a DAG without catchup paused."""
    context = interval() if read_to is None else with_cursor(interval(), read_to)
    assert windows_of(context, ASSET).unread_before(WINDOW) == gap


# --- rule 3 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "interval_of_run", [(None, None), (EIGHT, EIGHT), (EIGHT, None)], ids=["none", "empty", "half"]
)
def test_open_window(interval_of_run: tuple[datetime | None, datetime | None]) -> None:
    """Without an interval, a run reads from the cursor on, and the next run continues at its end."""
    start, end = interval_of_run
    context = with_cursor(interval(start, end))
    windows = windows_of(context, ASSET)
    assert windows.fixed() is None
    window = windows.open(NINE)
    assert window == WINDOW
    assert cursor(context) == "2017-03-10T08:00:00Z"
    windows.take(window)
    assert cursor(context) == "2017-03-10T09:00:00Z"
    assert windows_of(next_run(context), ASSET).open(TEN) == ChangeWindow(NINE, TEN)


def test_first_run() -> None:
    """A task's first run has an empty window. The next one begins there."""
    context = run_context()
    assert windows_of(context, ASSET).open(EIGHT) == ChangeWindow(EIGHT, EIGHT)
    assert cursor(context) == "2017-03-10T08:00:00Z"
    assert windows_of(next_run(context), ASSET).open(NINE) == WINDOW


def test_clock_that_goes_back() -> None:
    """If the server's clock went back a little, the window is empty, and the cursor stays."""
    context = with_cursor(run_context(), "2017-03-10T09:00:30Z")
    windows = windows_of(context, ASSET)
    assert windows.open(NINE) == ChangeWindow(NINE, NINE)
    windows.take(ChangeWindow(NINE, NINE))
    assert cursor(context) == "2017-03-10T09:00:30Z"


def test_clock_that_was_ahead() -> None:
    """If a cursor is far ahead of the server's clock, the task fails: new changes would be in no window."""
    context = with_cursor(run_context(), "2017-03-10T10:00:00Z")
    with pytest.raises(UntrustedClock) as caught:
        windows_of(context, ASSET).open(NINE)
    error = caught.value
    assert (error.server, error.read_to) == ("2017-03-10T09:00:00Z", "2017-03-10T10:00:00Z")
    assert cursor(context) == "2017-03-10T10:00:00Z"


def test_a_second_that_is_not_over_is_in_the_next_window() -> None:
    """The window ends at a whole second: records of that second may still come."""
    context = with_cursor(run_context())
    assert windows_of(context, ASSET).open(NINE + timedelta(microseconds=999_999)) == WINDOW


def test_taken_window_is_kept() -> None:
    """A retry and a cleared run cover the window of the run, even if the cursor has moved on."""
    context = with_cursor(run_context())
    windows = windows_of(context, ASSET)
    windows.take(windows.open(NINE))
    context["asset_state_store"][ASSET].set(KEY, "2017-03-10T10:00:00Z")
    again = windows_of(context, ASSET)
    assert again.fixed() == WINDOW
    again.take(WINDOW)
    assert cursor(context) == "2017-03-10T10:00:00Z"


def test_cursors_of_two_tasks() -> None:
    """Each task has its own cursor in the state of one asset."""
    context = with_cursor(run_context())
    other = next_run(context, ti=TaskInstance("dag", "other"))
    assert windows_of(other, ASSET).open(TEN) == ChangeWindow(TEN, TEN)
    assert windows_of(next_run(context), ASSET).open(NINE) == WINDOW


@pytest.mark.parametrize("state", ["success", "skipped"])
def test_lost_cursor(state: str) -> None:
    """If the task has run before and its cursor is gone, it fails, and makes no new cursor."""
    context = run_context()
    context["ti"].previous = {state: [ended("backfill__1", NINE), ended("scheduled__0", EIGHT)]}
    with pytest.raises(LostCursor) as caught:
        windows_of(context, ASSET).open(NINE)
    error = caught.value
    assert (error.dag_id, error.task_id, error.asset, error.key) == ("dag", "task", ASSET.name, KEY)
    assert cursor(context) is None


SEVEN = EIGHT - timedelta(hours=1)


def test_a_lost_cursor_is_where_the_last_window_ended(logged: Logged) -> None:
    """The latest run is found by the time in its id, since runs that assets trigger have no logical date."""
    context = run_context()
    ti = context["ti"]
    windows = {
        "asset_triggered__2017-03-10T06:00:00.5+00:00_x": (SEVEN - timedelta(hours=1), SEVEN),
        "asset_triggered__2017-03-10T08:00:00+00:00_y": WINDOW,
        "scheduled__2017-03-10T07:00:00+00:00": (SEVEN, EIGHT),
        "backfill__2017-03-10T09:30:00+00:00": (EIGHT, TEN),
        "manual__2017-03-10T08:30:00+00:00": None,  # a user has marked it so
        "my own id": (NINE, TEN),
    }
    ids = list(windows)
    ti.previous = {
        "skipped": [ended(i, NINE) for i in ids[:2]],
        "success": [ended(i, EIGHT) for i in ids[2:]],
    }
    for run_id, window in windows.items():
        if window is not None:
            ti.others[run_id, "task", "window"] = ChangeWindow.of(window).as_dict()
    assert windows_of(context, ASSET).open(TEN) == ChangeWindow(NINE, TEN)
    assert cursor(context) is None  # until it is read
    assert "this run continues where run asset_triggered__2017-03-10T08" in logged.text


@pytest.mark.parametrize(
    "previous",
    [
        {"failed": [ended("scheduled__0", EIGHT)]},
        {"success": [ended("backfill__0", EIGHT)]},
        {"success": [ended("scheduled__1", EIGHT)]},
        {"skipped": [ended("scheduled__0", EIGHT, try_number=0)]},
    ],
)
def test_no_lost_cursor(previous: dict[str, Any]) -> None:
    """A run that failed, never read, or was a backfill had no cursor to lose, and neither had this run."""
    context = run_context()
    context["ti"].previous = previous
    assert windows_of(context, ASSET).open(NINE).is_empty


def test_mapped_sensor() -> None:
    """A mapped sensor has no inlets of its own. The error says to give it windows."""
    context = run_context(asset_state_store={})
    with pytest.raises(InvalidWindow, match="mapped"):
        windows_of(context, ASSET).open(NINE)


def test_unreadable_cursor() -> None:
    """If a cursor is not a time, the error names its key, and the cursor stays."""
    context = with_cursor(run_context(), "yesterday")
    with pytest.raises(InvalidTime, match="cursor/dag/task"):
        windows_of(context, ASSET).open(NINE)
    assert cursor(context) == "yesterday"


def test_adjoining_windows() -> None:
    """In any sequence of runs, each moment is in exactly one window."""
    context = with_cursor(run_context())
    windows = []
    until = EIGHT
    for minutes in (1, 1, 5, 60, 0, 7):
        until += timedelta(minutes=minutes)
        run = windows_of(context := next_run(context), ASSET)
        windows.append(run.open(until))
        run.take(windows[-1])
    assert windows[0].start == EIGHT
    assert all(a.end == b.start for a, b in pairwise(windows))


def woken(*since: datetime, payload: Any = None) -> dict[str, Any]:
    """Return what a run's context has of the watcher's events that have triggered it."""
    payloads = [payload] if payload is not None else [{"since": s.isoformat(), "until": "…"} for s in since]
    events = [SimpleNamespace(extra={"from_trigger": True, "payload": p}) for p in payloads]
    return {"triggering_asset_events": {Asset(name="changes", uri="x://changes"): events}}


def test_a_first_run_that_changes_have_woken_reads_them() -> None:
    """It starts where the earliest event says that changes begin. Then the cursor is set."""
    context = run_context(**woken(NINE, EIGHT))
    windows = windows_of(context, ASSET)
    window = windows.open(TEN)
    assert window == ChangeWindow(EIGHT, TEN)
    assert cursor(context) is None  # no window is taken yet: a crash here must not lose earlier changes
    windows.take(window)
    assert cursor(context) == "2017-03-10T10:00:00Z"


def test_a_first_run_covers_the_time_since_it_began(logged: Logged) -> None:
    """It begins when the DAG is unpaused. Its task may start, or be tried again, much later."""
    began = datetime.now(timezone.utc) - timedelta(minutes=10)
    run = SimpleNamespace(run_type="scheduled", start_date=began)
    context = run_context(dag_run=run)
    window = windows_of(context, ASSET).open(NINE)
    assert window.end == NINE
    assert timedelta(seconds=-2) <= window.start - (NINE - timedelta(minutes=10)) <= timedelta(0)
    assert f"changes are read from {window.start:%Y-%m-%dT%H:%M:%S}" in logged.text
    run.start_date = datetime.now(timezone.utc) + timedelta(minutes=1)  # by a clock that is ahead
    assert windows_of(run_context(dag_run=run), ASSET).open(NINE).is_empty


def test_a_later_run_takes_no_notice_of_events() -> None:
    """Its cursor says where it continues."""
    context = with_cursor(run_context(**woken(EIGHT - timedelta(days=1))))
    assert windows_of(context, ASSET).open(NINE) == WINDOW


@pytest.mark.parametrize(
    "payload", ["text", 5, {}, {"until": "2017-03-10T08:00:00Z"}, {"since": "yesterday", "until": 5}]
)
def test_somebody_elses_events_begin_nothing(payload: Any) -> None:
    """A DAG may be scheduled by other assets, too."""
    context = run_context(**woken(payload=payload))
    assert windows_of(context, ASSET).open(TEN).is_empty
    assert cursor(context) == "2017-03-10T10:00:00Z"


def test_an_event_from_the_future_begins_nothing() -> None:
    """Otherwise its window would end before it starts."""
    assert windows_of(run_context(**woken(TEN)), ASSET).open(NINE) == ChangeWindow(NINE, NINE)


@pytest.mark.parametrize(
    ("until", "wait"),
    [
        (NINE + timedelta(seconds=3), timedelta(seconds=3)),
        (NINE, None),
        (EIGHT, None),
        (NINE + timedelta(days=1), None),
    ],
    ids=["not settled", "settled", "past", "nobody's settling"],
)
def test_what_events_tell_of_is_waited_for(until: datetime, wait: timedelta | None) -> None:
    """If a watcher's events have triggered a run, it reads at least up to the time that they name."""
    payload = {"since": EIGHT.isoformat(), "until": until.isoformat()}
    windows = windows_of(with_cursor(run_context(**woken(payload=payload))), ASSET)
    assert windows.unsettled(NINE, None) == wait
    assert windows.open(NINE) == WINDOW


def test_a_run_that_nothing_has_woken_waits_for_nothing() -> None:
    """Its window ends where changes have settled."""
    assert windows_of(with_cursor(run_context()), ASSET).unsettled(NINE, None) is None


# --- whose cursors there are -----------------------------------------------------------------------------


def cursors(context: dict[str, Any]) -> dict[str, Any]:
    """Return all listed cursors, from all parts of the list."""
    state = context["asset_state_store"][ASSET]
    return {key: entry for part in CURSOR_LISTS for key, entry in (state.get(part) or {}).items()}


def run_of(
    before: dict[str, Any] | None, dag_id: str, until: datetime, task_id: str = "task", **entries: Any
) -> tuple[ChangeWindow, dict[str, Any]]:
    """Run a task after ``before``; return its window and the context."""
    entries = {"ti": TaskInstance(dag_id, task_id), **entries}
    context = run_context(**entries) if before is None else next_run(before, **entries)
    windows = windows_of(context, ASSET)
    window = windows.open(until)
    windows.take(window)
    return window, context


def test_a_watcher_of_its_own_looks_after_a_cursor_itself() -> None:
    """Watchers that it shares with others must not wake the other DAGs for its cursor."""
    payload = {"since": EIGHT.isoformat(), "until": EIGHT.isoformat(), "cursor": "dag/task"}
    _, context = run_of(None, "dag", EIGHT, **woken(payload=payload))
    assert cursors(context) == {KEY: {"dag": "dag", "task": "task", "woken": False}}


def test_each_task_is_listed() -> None:
    """It is listed with its ids, and with whether watchers wake it.

    The list is only written when that changes.
    """
    payload = {"since": EIGHT.isoformat(), "until": EIGHT.isoformat()}
    _, context = run_of(None, "dag", EIGHT, **woken(payload=payload))
    entry = {"dag": "dag", "task": "task", "woken": True}
    assert cursors(context) == {KEY: entry}
    by_hand = SimpleNamespace(run_type="manual")
    _, context = run_of(context, "dag", NINE, dag_run=by_hand)
    assert cursors(context) == {KEY: entry}
    assert context["asset_state_store"][ASSET].writes.count(cursor_list(KEY)) == 1
    _, context = run_of(context, "dag", NINE)  # by a schedule, now
    assert cursors(context) == {KEY: {**entry, "woken": False}}


@pytest.mark.parametrize(
    ("dag_id", "task_id"), [("renamed", "task"), ("dag", "renamed")], ids=["DAG", "task"]
)
def test_another_task_begins(logged: Logged, dag_id: str, task_id: str) -> None:
    """A task without a cursor never takes one of similar ids. Its log lists the others."""
    _, context = run_of(None, "dag", EIGHT)
    window, context = run_of(context, dag_id, NINE, task_id)
    assert window == ChangeWindow(NINE, NINE)
    assert set(cursors(context)) == {KEY, f"cursor/{dag_id}/{task_id}"}
    assert cursor(context) == "2017-03-10T08:00:00Z"
    assert f"Cursor '{dag_id}/{task_id}' is new: changes are read from 2017-03-10T09:00:00Z on" in logged.text
    assert "record type: dag/task (read to 2017-03-10T08:00:00Z). If" in logged.text
    assert run_of(context, dag_id, TEN, task_id)[0] == ChangeWindow(NINE, TEN)


def test_the_first_task_of_all_has_no_others_to_list(logged: Logged) -> None:
    """Its log says from when on it reads, and doesn't mention other cursors.

    A later run's log says neither.
    """
    _, context = run_of(None, "dag", EIGHT)
    assert "Cursor 'dag/task' is new: changes are read from 2017-03-10T08:00:00Z on" in logged.text
    run_of(context, "dag", NINE)
    assert logged.text.count("is new") == 1
    assert "Other cursors" not in logged.text


def test_many_cursors_are_counted(logged: Logged) -> None:
    """A first run lists fifty of them, and says how many more there are."""
    _, context = run_of(None, "dag_00", EIGHT)
    for number in range(1, 61):
        _, context = run_of(context, f"dag_{number:02}", EIGHT)
    assert "dag_49/task (read to 2017-03-10T08:00:00Z), and 10 more. If" in logged.text


def test_a_first_run_that_changes_have_woken_says_from_when_on_it_reads(logged: Logged) -> None:
    """The time is the one at which, according to the watcher's events, changes begin."""
    windows_of(run_context(**woken(EIGHT)), ASSET).open(TEN)
    assert "Cursor 'dag/task' is new: changes are read from 2017-03-10T08:00:00Z on" in logged.text


def named(context: dict[str, Any], name: str = "contacts") -> RunWindows:
    return RunWindows(context, context["ti"], ASSET, cursor=name)


def test_a_renamed_task_goes_on_with_the_name_of_its_cursor(logged: Logged) -> None:
    """If a sensor names its cursor, it continues under any task id.

    The name may be its own, or the old ids.
    """
    context = run_context()
    first = named(context)
    first.take(first.open(EIGHT))
    renamed = next_run(context, ti=TaskInstance("renamed", "other"))
    assert named(renamed).open(NINE) == WINDOW
    _, context = run_of(context, "dag", EIGHT)
    renamed = next_run(context, ti=TaskInstance("renamed", "other"))
    assert named(renamed, "dag/task").open(NINE) == WINDOW


def test_a_run_whose_cursor_is_another_now_moves_it_past_nothing(logged: Logged) -> None:
    """A cleared run reads its own window again. If it was given an older cursor since, that cursor stays."""
    _, context = run_of(None, "old", EIGHT)
    _, context = run_of(context, "dag", NINE)
    cleared = RunWindows(context, context["ti"], ASSET, cursor="old/task")
    assert cleared.fixed() == ChangeWindow(NINE, NINE)
    cleared.take(ChangeWindow(NINE, NINE))
    assert "Cursor 'old/task' stays at 2017-03-10T08:00:00Z" in logged.text
    following = named(next_run(context), "old/task")
    assert following.open(TEN) == ChangeWindow(EIGHT, TEN)


def test_a_cleared_run_makes_no_cursor(logged: Logged) -> None:
    """If the cursor is missing, only the latest run's window says where to continue."""
    _, first = run_of(None, "dag", EIGHT)
    _, second = run_of(first, "dag", NINE)
    run_of(second, "dag", TEN)
    cleared = named(second, "sync")
    cleared.take(cleared.fixed() or WINDOW)
    assert second["asset_state_store"][ASSET].get("cursor/sync") is None


def test_two_tasks_that_share_a_cursor_are_warned_of(logged: Logged) -> None:
    """Each would miss changes that the other has read. A task that moves another task's cursor logs it."""
    context = run_context()
    for dag_id in ("one", "one", "two"):
        assert "has moved cursor" not in logged.text
        context = next_run(context, ti=TaskInstance(dag_id))
        windows = named(context)
        windows.take(windows.open(NINE))
    assert "Task one.task has moved cursor 'contacts' before" in logged.text


def test_an_entry_of_an_earlier_version_is_read() -> None:
    """These entries also had the DAG's file."""
    context = with_cursor(run_context())
    entry = {"file": "dags/flows.py", "dag": "dag", "task": "task", "woken": True}
    context["asset_state_store"][ASSET].set("cursors", {KEY: entry})
    windows = windows_of(context, ASSET)
    windows.take(windows.open(NINE))
    assert cursors(context) == {KEY: {"dag": "dag", "task": "task", "woken": False}}


# --- the list of cursors stays small --------------------------------------------------------------------


def test_two_thousand_cursors_fit() -> None:
    """Whatever the ids are, each part of the list fits into the store, and each cursor is found again."""
    context = run_context()
    for number in range(2_000):
        ti = TaskInstance(f"a_dag_with_a_rather_long_name_of_about_sixty_characters_{number:04}", "detect")
        context = next_run(context, ti=ti)
        windows = windows_of(context, ASSET)
        windows.take(windows.open(EIGHT))
    state = context["asset_state_store"][ASSET]
    assert len(cursors(context)) == 2_000
    assert max(len(state.values[part]) for part in CURSOR_LISTS[1:]) < 60_000


def test_more_cursors_than_fit_are_kept_and_not_listed(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log says which are not listed."""
    monkeypatch.setattr(cursor_lists, "LARGEST_PART", 50)
    _, context = run_of(None, "dag", EIGHT)
    assert cursor(context) == "2017-03-10T08:00:00Z"
    assert cursors(context) == {}
    assert "Cursor 'dag/task' is kept but not listed" in logged.text


@pytest.mark.parametrize(
    ("position", "is_gone", "stays"),
    [
        ("2017-03-10T08:00:00Z", True, False),
        ("2017-03-10T08:00:00Z", False, True),
        ("2199-03-10T08:00:00Z", True, True),
        ("by hand", True, True),
        (None, False, False),
    ],
    ids=["old and gone", "paused", "gone of late", "no time", "no cursor"],
)
def test_cursors_of_dags_that_are_gone_are_deleted(
    monkeypatch: pytest.MonkeyPatch, position: str | None, is_gone: bool, stays: bool
) -> None:
    """They are deleted after 90 days without a move, together with all state of their tasks."""
    monkeypatch.setattr(windows_module.CursorLists, "log_others", lambda self, key: None)
    monkeypatch.setattr(cursor_lists, "cursor_list", lambda key: "cursors/0")
    _, context = run_of(None, "old", EIGHT)
    state = context["asset_state_store"][ASSET]
    state.delete("cursor/old/task")
    if position is not None:
        state.set("cursor/old/task", position)
    state.set("claim/old/task", {})
    state.set("chunks/old/task", [])
    ti = TaskInstance("new")
    ti.gone_dags = {"old"} if is_gone else set()
    windows = windows_of(context := next_run(context, ti=ti), ASSET)
    windows.take(windows.open(EIGHT))
    kept = {key for key in ("cursor/old/task", "claim/old/task", "chunks/old/task") if key in state.values}
    assert ("cursor/old/task" in cursors(context)) == stays
    assert kept == ({"cursor/old/task", "claim/old/task", "chunks/old/task"} if stays else set())


def test_an_entry_moves_out_of_an_earlier_versions_list() -> None:
    """That list had one part. It is deleted with its last entry."""
    context = with_cursor(run_context())
    state = context["asset_state_store"][ASSET]
    entry = {"dag": "dag", "task": "task", "woken": True}
    state.set(CURSOR_LISTS[0], {KEY: entry})
    run_of(context, "dag", NINE, dag_run=SimpleNamespace(run_type="manual"))
    assert state.get(CURSOR_LISTS[0]) is None
    assert cursors(context) == {KEY: entry}


def test_a_first_run_warns_of_cursors_whose_dags_are_gone(logged: Logged) -> None:
    """One of them may be the task's own old cursor."""
    _, context = run_of(None, "gone", EIGHT)
    _, context = run_of(context, "there", EIGHT)
    ti = TaskInstance("new")
    ti.gone_dags = {"gone"}
    windows_of(next_run(context, ti=ti), ASSET).open(NINE)
    (warning,) = [m for m in logged.text.splitlines() if "whose DAGs are gone" in m]
    assert "gone: gone/task (read to 2017-03-10T08:00:00Z). If" in warning
    assert "record type: there/task (read to 2017-03-10T08:00:00Z). If" in logged.text


# --- tests ------------------------------------------------------------------------------------------------


def in_a_test(context: dict[str, Any], **entries: Any) -> dict[str, Any]:
    run = SimpleNamespace(run_type="manual", run_id="manual__x", triggering_user_name="dag_test")
    return next_run(context, **{"dag_run": run, **entries})


@pytest.mark.parametrize(
    "run",
    [
        SimpleNamespace(run_type="manual", run_id="manual__x", triggering_user_name="dag_test"),
        SimpleNamespace(run_type="manual", run_id="__airflow_temporary_run_2026__"),
    ],
    ids=["dag.test()", "airflow tasks test"],
)
def test_a_test_takes_no_window(logged: Logged, run: SimpleNamespace) -> None:
    """It covers the window of the next run, and changes nothing."""
    context = with_cursor(run_context())
    before = dict(context["asset_state_store"][ASSET].values)
    test = in_a_test(context, dag_run=run)
    windows = windows_of(test, ASSET)
    assert windows.open(NINE) == WINDOW
    windows.take(WINDOW)
    assert context["asset_state_store"][ASSET].values == before
    assert test["task_state_store"].values == {}
    assert "This run is a test and takes no window" in logged.text


@pytest.mark.parametrize("user", [None, "dag_test"])
def test_a_run_that_a_scheduler_has_made_is_no_test(user: str | None) -> None:
    """This holds whatever has triggered the run."""
    context = with_cursor(run_context())
    run = SimpleNamespace(run_type="scheduled", run_id="scheduled__2017", triggering_user_name=user)
    windows = windows_of(next_run(context, dag_run=run), ASSET)
    windows.take(windows.open(NINE))
    assert cursor(context) == "2017-03-10T09:00:00Z"


def test_a_test_before_the_first_run_marks_nothing() -> None:
    """The first real run begins on its own. A later test continues from the earlier one."""
    context = run_context()
    first = in_a_test(context)
    windows = windows_of(first, ASSET)
    windows.take(windows.open(EIGHT))
    assert context["asset_state_store"][ASSET].values == {}

    def after_it(following: dict[str, Any]) -> ChangeWindow:
        ti = following["ti"]
        ti.run_id = "another"
        ti.previous = {"success": [ended("manual__x", EIGHT)]}
        ti.others["manual__x", "task", "cursor"] = first["ti"].xcom["cursor"]
        return windows_of(following, ASSET).open(NINE)

    assert after_it(in_a_test(context)) == WINDOW
    assert after_it(next_run(context)) == ChangeWindow(NINE, NINE)


# --- backfills --------------------------------------------------------------------------------------------


class FromElsewhere(CronTriggerTimetable):
    """A user's own timetable."""


def backfilled(timetable: Any, moment: datetime = NINE) -> dict[str, Any]:
    run = SimpleNamespace(run_type="backfill", run_id="backfill__x", logical_date=moment)
    return interval(NINE, NINE, dag_run=run, dag=SimpleNamespace(timetable=timetable))


@pytest.mark.parametrize(
    ("timetable", "start"),
    [
        (CronTriggerTimetable("0 * * * *", timezone="UTC"), EIGHT),
        (CoreCronTriggerTimetable("*/20 * * * *", timezone="UTC"), NINE - timedelta(minutes=20)),
        (CronTriggerTimetable("0 10 * * 1-5", timezone="Europe/Berlin"), NINE - timedelta(days=1)),
        (DeltaTriggerTimetable(timedelta(minutes=5)), NINE - timedelta(minutes=5)),
        (
            MultipleCronTriggerTimetable("0 * * * *", "30 * * * *", timezone="UTC"),
            NINE - timedelta(minutes=30),
        ),
        (CronTriggerTimetable("40 * * * *", timezone="UTC"), NINE - timedelta(minutes=20)),
    ],
    ids=["hourly", "of the scheduler", "work days", "delta", "several", "edited since"],
)
def test_a_backfill_without_intervals_reads_what_its_schedule_says(timetable: Any, start: datetime) -> None:
    """It reads from the schedule's previous time to its own. It neither moves nor begins a cursor."""
    context = backfilled(timetable)
    windows = windows_of(context, ASSET)
    assert windows.fixed() == ChangeWindow(start, NINE)
    windows.take(ChangeWindow(start, NINE))
    assert context["asset_state_store"][ASSET].values == {}
    assert context["task_state_store"].values == {}


@pytest.mark.parametrize("timetable", [None, FromElsewhere("0 * * * *", timezone="UTC"), NullTimetable()])
def test_a_backfill_whose_past_is_unknown_is_refused(timetable: Any) -> None:
    """It is refused before anything is read. An explicit window works."""
    context = with_cursor(backfilled(timetable))
    with pytest.raises(InvalidWindow, match="data_interval: true"):
        windows_of(context, ASSET)
    assert windows_of(context, ASSET, WINDOW).fixed() == WINDOW


def test_a_continuous_run_goes_on_from_the_cursor() -> None:
    """Its interval is not used as a window: it would be closed, and no change could be waited for."""
    context = with_cursor(interval(EIGHT, NINE, dag=SimpleNamespace(timetable=ContinuousTimetable())))
    windows = windows_of(context, ASSET)
    assert windows.fixed() is None
    assert windows.open(TEN) == ChangeWindow(EIGHT, TEN)


# --- mapped task groups -----------------------------------------------------------------------------------


def mapped(context: dict[str, Any], map_index: int) -> dict[str, Any]:
    ti = TaskInstance()
    ti.map_index = map_index
    return next_run(context, ti=ti)


def test_a_map_index_needs_a_cursor_of_its_own() -> None:
    """Without one it has no open window. Intervals need no cursor, and move none."""
    context = run_context()
    with pytest.raises(InvalidWindow, match="map indexes"):
        windows_of(mapped(context, 0), ASSET).open(NINE)
    of_interval = mapped(context, 1) | {"data_interval_start": EIGHT, "data_interval_end": NINE}
    windows = windows_of(of_interval, ASSET)
    assert windows.unread_before(WINDOW) is None
    windows.take(WINDOW)
    assert context["asset_state_store"][ASSET].values == {}


def test_map_indexes_with_names_go_on_by_themselves() -> None:
    """The name counts, whichever index has it."""
    context = run_context()
    for index, city in enumerate(("Berlin", "Paris")):
        run = mapped(context, index)
        windows = RunWindows(run, run["ti"], ASSET, cursor=city)
        windows.take(windows.open(EIGHT + index * timedelta(minutes=1)))
    run = mapped(context, 0)
    windows = RunWindows(run, run["ti"], ASSET, cursor="Paris")
    assert windows.open(NINE) == ChangeWindow(EIGHT + timedelta(minutes=1), NINE)


def test_map_indexes_that_share_a_name_are_refused() -> None:
    """At least the second one is refused."""
    run = mapped(run_context(), 1)
    entries = [{"name": "city", "window": None, "is_test": False}] * 2
    run["ti"].others["scheduled__1", "task", "cursor"] = entries
    with pytest.raises(InvalidWindow, match="several map indexes"):
        RunWindows(run, run["ti"], ASSET, cursor="city").open(NINE)


def test_a_map_indexes_lost_cursor_is_found_by_its_name() -> None:
    """Earlier names of another index don't count. A new name begins a new cursor."""
    run = mapped(run_context(), 0)
    ti = run["ti"]
    ti.previous = {"success": [ended("scheduled__0", EIGHT)]}
    ti.others["scheduled__0", "task", "cursor"] = [
        {"name": "Berlin", "window": ChangeWindow(EIGHT, EIGHT).as_dict(), "is_test": False},
        {"name": "Paris", "window": WINDOW.as_dict(), "is_test": False},
    ]
    assert RunWindows(run, ti, ASSET, cursor="Paris").open(TEN) == ChangeWindow(NINE, TEN)
    assert RunWindows(run, ti, ASSET, cursor="Rome").open(TEN) == ChangeWindow(TEN, TEN)


# --- runs that ended without a window ---------------------------------------------------------------------


def test_a_run_that_took_no_window_is_none_before() -> None:
    """A first run that was skipped or marked by hand had no cursor that could be lost."""
    failed = run_context()
    assert windows_of(failed, ASSET).begin() is None
    context = run_context()
    never_looked = ended("scheduled__1_hour_before", SEVEN, try_number=0)
    context["ti"].previous = {"skipped": [ended("scheduled__0", EIGHT), never_looked]}
    context["ti"].others["scheduled__0", "task", "cursor"] = failed["ti"].xcom["cursor"]
    assert windows_of(context, ASSET).open(NINE) == ChangeWindow(NINE, NINE)
