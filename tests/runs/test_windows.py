"""Which window a run covers, and what moves the cursor."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset

from airflow_insightly_hooks.core.detection.changes import ChangeWindow
from airflow_insightly_hooks.core.errors import InvalidTime, InvalidWindow, LostCursor, UntrustedClock
from airflow_insightly_hooks.hooks.assets import records_asset
from airflow_insightly_hooks.runs.windows import RunWindows
from tests.conftest import Logged, TaskInstance, ended, run_context

ASSET = records_asset("insightly_default", "Contacts")
KEY = "cursor/dag/task"
EIGHT = datetime(2017, 3, 10, 8, tzinfo=timezone.utc)
NINE, TEN = EIGHT + timedelta(hours=1), EIGHT + timedelta(hours=2)
WINDOW = ChangeWindow(EIGHT, NINE)


def windows_of(context: dict[str, Any], asset: Asset, explicit: object = None) -> RunWindows:
    return RunWindows(context, context["ti"], asset, explicit)  # which has the ids that a task has


def interval(start: datetime | None = EIGHT, end: datetime | None = NINE, **entries: Any) -> dict[str, Any]:
    return run_context(data_interval_start=start, data_interval_end=end, **entries)


def with_cursor(context: dict[str, Any], cursor: str = "2017-03-10T08:00:00Z") -> dict[str, Any]:
    context["asset_state_store"][ASSET].set(KEY, cursor)
    return context


def cursor(context: dict[str, Any]) -> str | None:
    value: str | None = context["asset_state_store"][ASSET].get(KEY)
    return value


def next_run(context: dict[str, Any], **entries: Any) -> dict[str, Any]:
    """Return the context of a further run: the asset's state stays, the task's is new."""
    return run_context(asset_state_store=context["asset_state_store"], **entries)


def test_asset() -> None:
    """The asset that keeps the cursors depends on account and record type alone."""
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
    """What is no window is refused."""
    with pytest.raises(InvalidWindow):
        windows_of(run_context(), ASSET, explicit)
    with pytest.raises(InvalidTime, match="window start"):
        windows_of(run_context(), ASSET, ("yesterday", "2017-03-10"))


# --- rule 2 ----------------------------------------------------------------------------------------------


def test_interval() -> None:
    """A data interval that isn't empty is the window; a scheduled run moves the cursor to its end."""
    context = interval()
    windows = windows_of(context, ASSET)
    assert windows.fixed() == WINDOW
    assert windows.unread_before(WINDOW) is None
    windows.take(WINDOW)
    assert cursor(context) == "2017-03-10T09:00:00Z"
    assert context["task_state_store"].values == {}


@pytest.mark.parametrize("run_type", ["manual", "backfill", "asset_triggered"])
def test_interval_of_another_run(run_type: str) -> None:
    """Only a scheduled run's interval moves the cursor, and only it can find a gap."""
    context = with_cursor(interval(NINE, TEN, dag_run=SimpleNamespace(run_type=run_type)))
    windows = windows_of(context, ASSET)
    assert windows.fixed() == ChangeWindow(NINE, TEN)
    assert windows.unread_before(ChangeWindow(NINE, TEN)) is None
    windows.take(ChangeWindow(NINE, TEN))
    assert cursor(context) == "2017-03-10T08:00:00Z"


def test_cursor_never_goes_back() -> None:
    """A run of the past, such as a cleared one, leaves the cursor where it is."""
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
    """What lies between cursor and interval was left out, as when a DAG was paused without catching up."""
    context = interval() if read_to is None else with_cursor(interval(), read_to)
    assert windows_of(context, ASSET).unread_before(WINDOW) == gap


# --- rule 3 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "interval_of_run", [(None, None), (EIGHT, EIGHT), (EIGHT, None)], ids=["none", "empty", "half"]
)
def test_open_window(interval_of_run: tuple[datetime | None, datetime | None]) -> None:
    """Without an interval a run reads from the cursor on, and the next one goes on there."""
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
    """A task's first run has an empty window, and the next one begins where it was."""
    context = run_context()
    assert windows_of(context, ASSET).open(EIGHT) == ChangeWindow(EIGHT, EIGHT)
    assert cursor(context) == "2017-03-10T08:00:00Z"
    assert windows_of(next_run(context), ASSET).open(NINE) == WINDOW


def test_clock_that_goes_back() -> None:
    """A server's clock that went back a little gives an empty window, and the cursor stays."""
    context = with_cursor(run_context(), "2017-03-10T09:00:30Z")
    windows = windows_of(context, ASSET)
    assert windows.open(NINE) == ChangeWindow(NINE, NINE)
    windows.take(ChangeWindow(NINE, NINE))
    assert cursor(context) == "2017-03-10T09:00:30Z"


def test_clock_that_was_ahead() -> None:
    """A cursor that is far ahead of the server's clock is told of: what changes now would be in no window."""
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
    """A retry and a cleared run cover the window that the run has taken, though the cursor went on."""
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
    """A cursor that is gone although the task has run before is told of, and none is made."""
    context = run_context()
    context["ti"].previous = {state: [ended("backfill__1", NINE), ended("scheduled__0", EIGHT)]}
    with pytest.raises(LostCursor) as caught:
        windows_of(context, ASSET).open(NINE)
    error = caught.value
    assert (error.dag_id, error.task_id, error.asset, error.key) == ("dag", "task", ASSET.name, KEY)
    assert cursor(context) is None


SEVEN = EIGHT - timedelta(hours=1)


def test_a_lost_cursor_is_where_the_last_window_ended(logged: Logged) -> None:
    """The latest run counts by the time in its id, since runs that assets trigger have no logical date."""
    context = run_context()
    ti = context["ti"]
    windows = {
        "asset_triggered__2017-03-10T06:00:00.5+00:00_x": (SEVEN - timedelta(hours=1), SEVEN),
        "asset_triggered__2017-03-10T08:00:00+00:00_y": WINDOW,
        "scheduled__2017-03-10T07:00:00+00:00": (SEVEN, EIGHT),
        "backfill__2017-03-10T09:30:00+00:00": (EIGHT, TEN),
        "manual__2017-03-10T08:30:00+00:00": None,  # marked so by hand
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
    assert "going on from where run asset_triggered__2017-03-10T08" in logged.text


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
    """A run that failed, never looked, or was a backfill, and this run itself, had no cursor to lose."""
    context = run_context()
    context["ti"].previous = previous
    assert windows_of(context, ASSET).open(NINE).is_empty


def test_mapped_sensor() -> None:
    """A mapped sensor, which has no inlets of its own, is told to have windows."""
    context = run_context(asset_state_store={})
    with pytest.raises(InvalidWindow, match="mapped"):
        windows_of(context, ASSET).open(NINE)


def test_unreadable_cursor() -> None:
    """A cursor that is no time is told of with its key, and stays."""
    context = with_cursor(run_context(), "yesterday")
    with pytest.raises(InvalidTime, match="cursor/dag/task"):
        windows_of(context, ASSET).open(NINE)
    assert cursor(context) == "yesterday"


def test_adjoining_windows() -> None:
    """Over any sequence of runs, each moment is in exactly one window."""
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
    """What a run's context says of the watcher's events that have triggered it."""
    payloads = [payload] if payload is not None else [{"since": s.isoformat(), "until": "…"} for s in since]
    events = [SimpleNamespace(extra={"from_trigger": True, "payload": p}) for p in payloads]
    return {"triggering_asset_events": {Asset(name="changes", uri="x://changes"): events}}


def test_a_first_run_that_changes_have_woken_reads_them() -> None:
    """It starts where the earliest of its events says that changes begin; then the cursor is set."""
    context = run_context(**woken(NINE, EIGHT))
    windows = windows_of(context, ASSET)
    window = windows.open(TEN)
    assert window == ChangeWindow(EIGHT, TEN)
    assert cursor(context) is None  # nothing is taken yet: a crash here must not lose what was before
    windows.take(window)
    assert cursor(context) == "2017-03-10T10:00:00Z"


def test_a_later_run_takes_no_notice_of_events() -> None:
    """Its cursor says where it goes on."""
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
    """Its window would end before it starts."""
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
    """A run that a watcher's events have triggered reads at least up to where they say."""
    payload = {"since": EIGHT.isoformat(), "until": until.isoformat()}
    windows = windows_of(with_cursor(run_context(**woken(payload=payload))), ASSET)
    assert windows.unsettled(NINE, None) == wait
    assert windows.open(NINE) == WINDOW


def test_a_run_that_nothing_has_woken_waits_for_nothing() -> None:
    """Its window ends where what has settled does."""
    assert windows_of(with_cursor(run_context()), ASSET).unsettled(NINE, None) is None


# --- whose cursors there are -----------------------------------------------------------------------------


def cursors(context: dict[str, Any]) -> Any:
    return context["asset_state_store"][ASSET].get("cursors")


def run_of(
    before: dict[str, Any] | None, dag_id: str, until: datetime, task_id: str = "task", **entries: Any
) -> tuple[ChangeWindow, dict[str, Any]]:
    """Run a task, after what was done ``before``; return its window and the context."""
    entries = {"ti": TaskInstance(dag_id, task_id), **entries}
    context = run_context(**entries) if before is None else next_run(before, **entries)
    windows = windows_of(context, ASSET)
    window = windows.open(until)
    windows.take(window)
    return window, context


def test_each_task_is_listed() -> None:
    """With its ids, and whether watchers wake it; written when that changes only."""
    payload = {"since": EIGHT.isoformat(), "until": EIGHT.isoformat()}
    _, context = run_of(None, "dag", EIGHT, **woken(payload=payload))
    entry = {"dag": "dag", "task": "task", "woken": True}
    assert cursors(context) == {KEY: entry}
    by_hand = SimpleNamespace(run_type="manual")
    _, context = run_of(context, "dag", NINE, dag_run=by_hand)
    assert cursors(context) == {KEY: entry}
    assert context["asset_state_store"][ASSET].writes.count("cursors") == 1
    _, context = run_of(context, "dag", NINE)  # by a schedule, now
    assert cursors(context) == {KEY: {**entry, "woken": False}}


@pytest.mark.parametrize(
    ("dag_id", "task_id"), [("renamed", "task"), ("dag", "renamed")], ids=["DAG", "task"]
)
def test_another_task_begins(logged: Logged, dag_id: str, task_id: str) -> None:
    """A task without a cursor takes over no other one, however alike their ids; its log lists them."""
    _, context = run_of(None, "dag", EIGHT)
    window, context = run_of(context, dag_id, NINE, task_id)
    assert window == ChangeWindow(NINE, NINE)
    assert set(cursors(context)) == {KEY, f"cursor/{dag_id}/{task_id}"}
    assert cursor(context) == "2017-03-10T08:00:00Z"
    assert f"Cursor '{dag_id}/{task_id}' is new: changes are read from 2017-03-10T09:00:00Z on" in logged.text
    assert "record type: dag/task (read to 2017-03-10T08:00:00Z). If" in logged.text
    assert run_of(context, dag_id, TEN, task_id)[0] == ChangeWindow(NINE, TEN)


def test_the_first_task_of_all_has_no_others_to_list(logged: Logged) -> None:
    """Its log says from when on it reads, and nothing of other cursors; a later run's says neither."""
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
    """That is where the watcher's events say that changes begin."""
    windows_of(run_context(**woken(EIGHT)), ASSET).open(TEN)
    assert "Cursor 'dag/task' is new: changes are read from 2017-03-10T08:00:00Z on" in logged.text


def named(context: dict[str, Any], name: str = "contacts") -> RunWindows:
    return RunWindows(context, context["ti"], ASSET, cursor=name)


def test_a_renamed_task_goes_on_with_the_name_of_its_cursor(logged: Logged) -> None:
    """A sensor that names its cursor goes on from there under any id: a name of its own, or its old ids."""
    context = run_context()
    first = named(context)
    first.take(first.open(EIGHT))
    renamed = next_run(context, ti=TaskInstance("renamed", "other"))
    assert named(renamed).open(NINE) == WINDOW
    _, context = run_of(context, "dag", EIGHT)
    renamed = next_run(context, ti=TaskInstance("renamed", "other"))
    assert named(renamed, "dag/task").open(NINE) == WINDOW


def test_a_run_whose_cursor_is_another_now_moves_it_past_nothing(logged: Logged) -> None:
    """A cleared run reads its own window again; an older cursor that it was given since then stays."""
    _, context = run_of(None, "old", EIGHT)
    _, context = run_of(context, "dag", NINE)
    cleared = RunWindows(context, context["ti"], ASSET, cursor="old/task")
    assert cleared.fixed() == ChangeWindow(NINE, NINE)
    cleared.take(ChangeWindow(NINE, NINE))
    assert "Cursor 'old/task' stays at 2017-03-10T08:00:00Z" in logged.text
    following = named(next_run(context), "old/task")
    assert following.open(TEN) == ChangeWindow(EIGHT, TEN)


def test_a_cleared_run_makes_no_cursor(logged: Logged) -> None:
    """Where the cursor is missing, the last run's window says where to go on, not a cleared one's."""
    _, first = run_of(None, "dag", EIGHT)
    _, second = run_of(first, "dag", NINE)
    run_of(second, "dag", TEN)
    cleared = named(second, "sync")
    cleared.take(cleared.fixed() or WINDOW)
    assert second["asset_state_store"][ASSET].get("cursor/sync") is None


def test_two_tasks_that_share_a_cursor_are_warned_of(logged: Logged) -> None:
    """Each would miss what the other one reads: whoever moves a cursor after another task says so."""
    context = run_context()
    for dag_id in ("one", "one", "two"):
        assert "was moved by" not in logged.text
        context = next_run(context, ti=TaskInstance(dag_id))
        windows = named(context)
        windows.take(windows.open(NINE))
    assert "Cursor 'contacts' was moved by one.task before" in logged.text


def test_an_entry_of_an_earlier_version_is_read() -> None:
    """Entries held the DAG file, too."""
    context = with_cursor(run_context())
    entry = {"file": "dags/flows.py", "dag": "dag", "task": "task", "woken": True}
    context["asset_state_store"][ASSET].set("cursors", {KEY: entry})
    windows = windows_of(context, ASSET)
    windows.take(windows.open(NINE))
    assert cursors(context) == {KEY: {"dag": "dag", "task": "task", "woken": False}}
