"""Which window a run covers, and what moves the cursor."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset

from airflow_insightly_hooks.core.changes import ChangeWindow
from airflow_insightly_hooks.core.errors import InvalidTime, InvalidWindow, LostCursor, UntrustedClock
from airflow_insightly_hooks.hooks.assets import records_asset
from airflow_insightly_hooks.sensors.windows import RunWindows
from tests.conftest import TaskInstance, ended, run_context

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


@pytest.mark.parametrize("payload", ["text", 5, {}, {"until": "2017-03-10T08:00:00Z"}])
def test_somebody_elses_events_begin_nothing(payload: Any) -> None:
    """A DAG may be scheduled by other assets, too."""
    context = run_context(**woken(payload=payload))
    assert windows_of(context, ASSET).open(TEN).is_empty
    assert cursor(context) == "2017-03-10T10:00:00Z"


def test_an_event_from_the_future_begins_nothing() -> None:
    """Its window would end before it starts."""
    assert windows_of(run_context(**woken(TEN)), ASSET).open(NINE) == ChangeWindow(NINE, NINE)
