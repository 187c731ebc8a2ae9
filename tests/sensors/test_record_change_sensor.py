"""The detect task, against the sandbox: it finds the same changes in the worker and deferred."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, CronDataIntervalTimetable, CronTriggerTimetable, task_group
from airflow.sdk.definitions.timetables.simple import ContinuousTimetable
from airflow.sdk.exceptions import (
    AirflowNotFoundException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferralError,
    TaskDeferred,
)

from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.errors import InvalidWindow, LostCursor, UnknownRecordType
from airflow_insightly_hooks.hooks.api import server_clock
from airflow_insightly_hooks.hooks.api.api_errors import InsightlyAccessError, InsightlyRateLimitError
from airflow_insightly_hooks.hooks.assets import records_asset
from airflow_insightly_hooks.hooks.insightly import InsightlyHook
from airflow_insightly_hooks.hooks.process_registry import clear_process_registries
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from airflow_insightly_hooks.sensors import record_change as module
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor
from airflow_insightly_hooks.triggers.record_change import InsightlyRecordChangeTrigger, changes_schedule
from tests.conftest import API_KEY, Logged, StateStore, TaskInstance, ended, run_context

START = datetime(2031, 3, 10, 8, tzinfo=timezone.utc)
"""Later than every seeded record, so that only a test's own records change there."""
LONG_AGO = datetime(2017, 3, 10, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
CANARY = "canary-of-a-record"
KEY = "cursor/dag/task"
ASSET = records_asset("insightly_default", "Contacts")
MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["poke", "deferrable"])


@pytest.fixture(autouse=True)
def _nothing_secret_logged(logged: Logged) -> Iterator[None]:
    """Whatever happens, no log line holds the key or a record's contents."""
    yield
    assert CANARY not in logged.text
    assert f"{API_KEY}:" not in logged.text


@pytest.fixture
def crm(insightly: RunningSandbox) -> RunningSandbox:
    """The sandbox, whose clock shows an hour and a minute after START."""
    set_clock(insightly, START + HOUR + timedelta(minutes=1))
    return insightly


@pytest.fixture
def _own_clock_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the sandbox's clock accepted at once, although it is years ahead."""
    monkeypatch.setattr(server_clock, "TOLERANCE", math.inf)


def set_clock(sandbox: RunningSandbox, moment: datetime) -> None:
    sandbox.configure(clock_offset=(moment - datetime.now(timezone.utc)).total_seconds())


def api(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def contact(
    sandbox: RunningSandbox, created: datetime, updated: datetime | None = None, **fields: Any
) -> int:
    times = {"DATE_CREATED_UTC": api(created), "DATE_UPDATED_UTC": api(updated or created)}
    record = sandbox.create("Contacts", FIRST_NAME=CANARY, **times, **fields)
    contact_id: int = record["CONTACT_ID"]
    return contact_id


def sensor(**arguments: Any) -> InsightlyRecordChangeSensor:
    arguments = {"record_type": "Contacts", "poke_interval": 0.01, "timeout": 60, **arguments}
    return InsightlyRecordChangeSensor(task_id="task", **arguments)


def interval(start: datetime = START, end: datetime = START + HOUR, **entries: Any) -> dict[str, Any]:
    return run_context(data_interval_start=start, data_interval_end=end, **entries)


def with_cursor(moment: datetime = START, **entries: Any) -> dict[str, Any]:
    context = run_context(**entries)
    context["asset_state_store"][ASSET].set(KEY, moment.isoformat())
    return context


def cursor(context: dict[str, Any]) -> datetime | None:
    text = context["asset_state_store"][ASSET].get(KEY)
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


def events(changes: list[Any]) -> list[tuple[int, str]]:
    return [(change["record_id"], change["event"]) for change in changes]


def deferred(operator: InsightlyRecordChangeSensor, context: dict[str, Any]) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        operator.execute(context)
    return caught.value


# --- arguments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"record_type": "Contact"}, UnknownRecordType),
        ({"record_type": ""}, UnknownRecordType),
        ({"events": []}, ValueError),
        ({"events": ["deleted"]}, ValueError),
        ({"events": "Added"}, ValueError),
        ({"record_type": "Emails", "events": ["updated"]}, ValueError),
        ({"on_empty": "ignore"}, ValueError),
        ({"settle": -1}, ValueError),
        ({"lookback": -1}, ValueError),
        ({"lookback": 86_401}, ValueError),
        ({"lookback": float("nan")}, ValueError),
        ({"lookback": "15m"}, ValueError),
        ({"field_name": "TITLE"}, ValueError),
        ({"field_value": "x"}, ValueError),
        ({"cursor": ""}, ValueError),
        ({"cursor": 5}, ValueError),
    ],
)
def test_refused_when_the_dag_is_parsed(arguments: dict[str, Any], error: type[Exception]) -> None:
    """Invalid arguments are refused when the DAG is parsed."""
    with pytest.raises(error):
        sensor(**arguments)


def test_arguments() -> None:
    """The asset that keeps the cursor is among the sensor's inlets, besides the user's own.

    Its window is rendered.
    """
    mine = Asset("mine")
    assert sensor(inlets=[mine]).inlets == [mine, ASSET]
    assert sensor(inlets=mine).inlets == [mine, ASSET]
    assert sensor().inlets == [ASSET]
    assert sensor().outlets == []
    assert sensor(events="added").events == ("added",)
    assert sensor(events=["updated", "added", "updated"]).events == ("updated", "added")
    assert InsightlyRecordChangeSensor.template_fields == ("window", "field_value", "cursor")


# --- what changed ----------------------------------------------------------------------------------------


@MODES
def test_changes_of_an_interval(crm: RunningSandbox, deferrable: bool, logged: Logged) -> None:
    """A record created in the window was added, a record updated there was updated.

    The window's end is not in it.
    """
    second = timedelta(seconds=1)
    contact(crm, START - second)
    first = contact(crm, START)
    last = contact(crm, START + HOUR - second)
    contact(crm, START + HOUR)
    both = contact(crm, START, START + 2 * second)
    later = contact(crm, START + second, START + HOUR + second)
    updated = contact(crm, START - HOUR, START)
    contact(crm, START - HOUR, START + HOUR)
    context = interval()
    changes = sensor(deferrable=deferrable).execute(context)
    assert events(changes) == [
        (first, "added"),
        (last, "added"),
        (both, "added"),
        (later, "added"),
        (updated, "updated"),
    ]
    assert changes[0]["record_type"] == "Contacts"
    assert changes[0]["changed_at"] == "2031-03-10T08:00:00Z"
    assert changes[0]["record"]["FIRST_NAME"] == CANARY
    assert context["ti"].xcom["window"] == {"start": "2031-03-10T08:00:00Z", "end": "2031-03-10T09:00:00Z"}
    assert cursor(context) == START + HOUR
    messages = " ".join(logged.messages("info"))
    assert "[2031-03-10T08:00:00Z, 2031-03-10T09:00:00Z): 4 added, 1 updated; 8 records read" in messages


@MODES
@pytest.mark.parametrize("chosen", [["added"], ["updated"]])
def test_events(crm: RunningSandbox, deferrable: bool, chosen: list[str]) -> None:
    """Only the events that were asked for come."""
    ids = {"added": contact(crm, START), "updated": contact(crm, START - HOUR, START)}
    changes = sensor(events=chosen, deferrable=deferrable).execute(interval())
    assert events(changes) == [(ids[chosen[0]], chosen[0])]


def test_explicit_window(crm: RunningSandbox) -> None:
    """An explicit window is rendered and read, and moves no cursor."""
    number = contact(crm, START)
    operator = sensor(window={"start": "{{ from_here }}", "end": "2031-03-10 08:00:01"})
    context = interval(START + HOUR, START + 2 * HOUR, from_here="2031-03-10 08:00:00")
    operator.render_template_fields(context)
    assert events(operator.execute(context)) == [(number, "added")]
    assert cursor(context) is None
    with pytest.raises(InvalidWindow):
        sensor(window=("2031-03-11", "2031-03-10")).execute(interval())


def test_backfill(crm: RunningSandbox) -> None:
    """A backfill reads its interval, and leaves the cursor of the scheduled runs alone."""
    number = contact(crm, START)
    context = interval(dag_run=SimpleNamespace(run_type="backfill"))
    assert events(sensor().execute(context)) == [(number, "added")]
    assert cursor(context) is None


def test_emails_have_no_update_time(crm: RunningSandbox) -> None:
    """Record types without update times have added records all the same."""
    email = crm.create("Emails", SUBJECT=CANARY, DATE_CREATED_UTC=api(START))
    changes = sensor(record_type="Emails").execute(interval())
    assert events(changes) == [(email["EMAIL_ID"], "added")]


def test_custom_objects(crm: RunningSandbox) -> None:
    """Custom objects have their times among custom fields, and are watched like others."""
    old = crm.create("Invoice__c", RECORD_NAME=CANARY, DATE_CREATED_UTC=api(START - HOUR))
    crm.update("Invoice__c", old["RECORD_ID"], DATE_UPDATED_UTC=api(START + timedelta(minutes=1)))
    new = crm.create("Invoice__c", RECORD_NAME=CANARY, DATE_CREATED_UTC=api(START))
    changes = sensor(record_type="Invoice__c").execute(interval())
    assert sorted(events(changes)) == sorted([(new["RECORD_ID"], "added"), (old["RECORD_ID"], "updated")])


def test_a_record_comes_once(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that moves between two pages during reading comes once."""
    from airflow_insightly_hooks.hooks.insightly import InsightlyHook

    number = contact(crm, START)
    record = InsightlyHook().get_record("Contacts", number)
    monkeypatch.setattr(InsightlyHook, "iter_records", lambda *_, **__: iter([record, record]))
    assert events(sensor().execute(interval())) == [(number, "added")]


# --- nothing changed -------------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize("on_empty", ["skip", "wait", "succeed"])
def test_nothing_changed_in_a_closed_window(crm: RunningSandbox, deferrable: bool, on_empty: Any) -> None:
    """A closed window without a change is skipped, or gives an empty list.

    It is useless to wait for a change.
    """
    context = interval()
    operator = sensor(on_empty=on_empty, deferrable=deferrable)
    if on_empty == "succeed":
        assert operator.execute(context) == []
    else:
        with pytest.raises(AirflowSkipException, match="nothing changed"):
            operator.execute(context)
    assert cursor(context) == START + HOUR
    assert context["ti"].xcom["window"]["end"] == "2031-03-10T09:00:00Z"


@MODES
@pytest.mark.parametrize("on_empty", ["skip", "succeed"])
def test_nothing_changed_in_an_open_window(crm: RunningSandbox, deferrable: bool, on_empty: Any) -> None:
    """The window counts as read: the next run continues after it."""
    context = with_cursor()
    operator = sensor(on_empty=on_empty, deferrable=deferrable)
    if on_empty == "succeed":
        assert operator.execute(context) == []
    else:
        with pytest.raises(AirflowSkipException):
            operator.execute(context)
    moved = cursor(context)
    assert moved is not None
    assert moved > START + HOUR
    assert context["task_state_store"].get("window")["start"] == "2031-03-10T08:00:00Z"


# --- rule 3: open windows --------------------------------------------------------------------------------


@MODES
def test_open_windows_follow_each_other(crm: RunningSandbox, deferrable: bool, logged: Logged) -> None:
    """The first run watches from its own time on. Each later run reads from the end of the one before."""
    contact(crm, START)
    context = run_context()
    with pytest.raises(AirflowSkipException):
        sensor(deferrable=deferrable).execute(context)
    assert any("nothing to read yet, watching from" in message for message in logged.messages("info"))
    for hours in (2, 3):
        number = contact(crm, START + hours * HOUR)
        set_clock(crm, START + hours * HOUR + timedelta(minutes=1))
        context = run_context(asset_state_store=context["asset_state_store"])
        assert events(sensor(deferrable=deferrable).execute(context)) == [(number, "added")]


@MODES
def test_retry_reads_the_same_window(crm: RunningSandbox, deferrable: bool) -> None:
    """A retry or a cleared run reads the run's window again, and moves no cursor."""
    number = contact(crm, START)
    context = with_cursor()
    operator = sensor(deferrable=deferrable)
    assert events(operator.execute(context)) == [(number, "added")]
    window, moved = context["ti"].xcom["window"], cursor(context)
    set_clock(crm, START + 5 * HOUR)
    contact(crm, START + 3 * HOUR)
    assert events(operator.execute(context)) == [(number, "added")]
    assert (context["ti"].xcom["window"], cursor(context)) == (window, moved)


@MODES
@pytest.mark.parametrize("stopped_at", ["window", "first request"])
def test_a_window_is_told_of_while_the_cursor_is_behind_it(
    crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch, deferrable: bool, stopped_at: str
) -> None:
    """Wherever a try is stopped, the next one reports the window, though Airflow deletes its XCom first."""
    contact(crm, START)
    context = with_cursor()
    operator = sensor(deferrable=deferrable)
    if stopped_at == "window":
        context["task_state_store"] = Stopping("window")
        with pytest.raises(KeyboardInterrupt):
            operator.execute(context)
    else:
        operator.execute(context)
        context["ti"].xcom.clear()
        monkeypatch.setattr(InsightlyHook, "server_time", stop)
        monkeypatch.setattr(InsightlyHook, "iter_records", stop)
        with pytest.raises(KeyboardInterrupt):
            operator.execute(context)
    assert context["ti"].xcom["window"]["start"] == "2031-03-10T08:00:00Z"


def stop(*_: Any, **_named: Any) -> Any:
    """Stop the task, as a kill does."""
    raise KeyboardInterrupt


class Stopping(StateStore):
    """A store that stops the task, like a kill, right after it has written a key."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.stops_at = key

    def set(self, key: str, value: Any, **how: Any) -> None:
        super().set(key, value, **how)
        if key == self.stops_at:
            stop()


def test_failed_read_takes_nothing(crm: RunningSandbox) -> None:
    """A run that could not read its window leaves the cursor and the task's state unchanged."""
    contact(crm, START)
    context = with_cursor()
    crm.configure(fault={"path": "/v3.1/Contacts/Search", "status": 403, "times": 1})
    with pytest.raises(InsightlyAccessError):
        sensor().execute(context)
    assert cursor(context) == START
    assert context["task_state_store"].values == {}
    assert len(sensor().execute(context)) == 1


@MODES
def test_lost_cursor(crm: RunningSandbox, deferrable: bool) -> None:
    """A lost cursor is an error. Otherwise changes would be missed."""
    context = run_context()
    context["ti"].previous = {"success": [ended("scheduled__0", START)]}
    with pytest.raises(LostCursor):
        sensor(deferrable=deferrable).execute(context)


def test_settle_of_an_open_window(crm: RunningSandbox) -> None:
    """The window ends ``settle`` before the server's present time.

    Younger changes are left to the next run.
    """
    set_clock(crm, START + timedelta(seconds=30))
    old = contact(crm, START + timedelta(seconds=5))
    young = contact(crm, START + timedelta(seconds=25))
    context = with_cursor()
    assert events(sensor(settle=15).execute(context)) == [(old, "added")]
    set_clock(crm, START + timedelta(seconds=60))
    context = run_context(asset_state_store=context["asset_state_store"])
    assert events(sensor(settle=15).execute(context)) == [(young, "added")]


# --- settling and waiting --------------------------------------------------------------------------------


@MODES
def test_short_settling_is_slept(
    crm: RunningSandbox, deferrable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If its window settles within seconds by the server's clock, the sensor sleeps until then."""
    number = contact(crm, START)
    set_clock(crm, START + HOUR)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        set_clock(crm, START + HOUR + timedelta(seconds=7))

    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: 0.0))
    assert events(sensor(settle=5, deferrable=deferrable).execute(interval())) == [(number, "added")]
    (seconds,) = slept
    assert 0 < seconds <= 6.5  # the sandbox's clock has moved on during the requests


def test_sleeps_once_before_it_defers(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a deferrable sensor has slept and has to wait longer, it waits in the triggerer."""
    set_clock(crm, START + HOUR)
    slept: list[float] = []
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=slept.append, monotonic=lambda: 0.0))
    deferred(sensor(deferrable=True, settle=5), interval())
    assert len(slept) == 1
    deferred(sensor(deferrable=True, settle=5, timeout=2), interval())
    assert len(slept) == 1


def test_long_settling_is_a_reschedule(crm: RunningSandbox) -> None:
    """Until a future window settles, a sensor in poke mode sleeps a poke interval; others are rescheduled."""
    context = interval(START + 5 * HOUR, START + 6 * HOUR)
    context["ti"].get_first_reschedule_date = lambda _: None
    with pytest.raises(AirflowRescheduleException):
        sensor(mode="reschedule", poke_interval=60).execute(context)
    with pytest.raises(AirflowSensorTimeout):
        sensor(timeout=0).execute(context)
    assert cursor(context) is None


def test_defers_until_it_settles(crm: RunningSandbox) -> None:
    """A deferrable sensor leaves a window that has not settled to the trigger, which makes no requests."""
    context = interval(START, START + 2 * HOUR)
    before = datetime.now(timezone.utc)
    event = deferred(sensor(deferrable=True, timeout=7200, settle=5, events=["added"]), context)
    assert isinstance(event.trigger, InsightlyRecordChangeTrigger)
    assert event.method_name == "execute_complete"
    arguments = event.trigger.serialize()[1]
    look_at, until = (
        datetime.fromisoformat(arguments[k].replace("Z", "+00:00")) for k in ("look_at", "until")
    )
    expected = before + timedelta(minutes=59, seconds=5)
    assert expected <= look_at < expected + timedelta(seconds=4)
    assert before + timedelta(hours=2) <= until < before + timedelta(hours=2, seconds=4)
    assert event.kwargs == {"until": arguments["until"]}
    del arguments["look_at"], arguments["until"]
    assert arguments == {
        "insightly_conn_id": "insightly_default",
        "record_type": "Contacts",
        "events": ["added"],
        "settle": 5,
        "open_since": None,
        "poll_interval": 0.01,
        "version": 1,
    }
    number = contact(crm, START)
    set_clock(crm, START + 2 * HOUR + timedelta(seconds=7))
    changes = sensor(deferrable=True).execute_complete(context, {"reason": "settled"}, **event.kwargs)
    assert events(changes) == [(number, "added")]


def test_looks_no_later_than_its_time_is_up(crm: RunningSandbox) -> None:
    """If a window settles after the sensor's time-out, the sensor reads it at the time-out."""
    event = deferred(sensor(deferrable=True, timeout=60), interval(START, START + 24 * HOUR))
    arguments = event.trigger.serialize()[1]
    assert arguments["look_at"] == arguments["until"]


def test_waits_for_a_change(crm: RunningSandbox) -> None:
    """If an open window must have a change, the trigger gets it from its start on."""
    context = with_cursor()
    operator = sensor(deferrable=True, on_empty="wait", poke_interval=30)
    event = deferred(operator, context)
    arguments = event.trigger.serialize()[1]
    assert arguments["open_since"] == "2031-03-10T08:00:00Z"
    assert arguments["poll_interval"] == 30
    assert cursor(context) == START
    number = contact(crm, START + timedelta(seconds=1))
    changes = operator.execute_complete(context, {"reason": "changed"}, **event.kwargs)
    assert events(changes) == [(number, "added")]
    moved = cursor(context)
    assert moved is not None
    assert moved > START + HOUR


def test_waits_again(crm: RunningSandbox) -> None:
    """If the trigger fires without a change, the sensor defers again, with the same time-out."""
    context = with_cursor()
    operator = sensor(deferrable=True, on_empty="wait")
    event = deferred(operator, context)
    with pytest.raises(TaskDeferred) as caught:
        operator.execute_complete(context, {"reason": "changed"}, **event.kwargs)
    assert caught.value.kwargs == event.kwargs


def test_waits_from_its_first_run_on(crm: RunningSandbox) -> None:
    """A first run that waits finds changes made after its first look."""
    context = run_context()
    event = deferred(sensor(deferrable=True, on_empty="wait"), context)
    number = contact(crm, START + HOUR + timedelta(minutes=2))
    set_clock(crm, START + HOUR + timedelta(minutes=3))
    changes = sensor(deferrable=True, on_empty="wait").execute_complete(context, {}, **event.kwargs)
    assert events(changes) == [(number, "added")]


def test_pokes_until_a_change(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiting sensor in poke mode looks again every poke interval."""
    from airflow.sdk.bases import sensor as base

    context = with_cursor()
    made: list[int] = []

    def sleep(_: float) -> None:
        made.append(contact(crm, START + timedelta(seconds=len(made))))

    monkeypatch.setattr(base.time, "sleep", sleep)
    changes = sensor(on_empty="wait").execute(context)
    assert events(changes) == [(made[0], "added")]


def test_time_out(crm: RunningSandbox) -> None:
    """At its time-out it looks once more. It returns the changes, or fails if there are none."""
    context = with_cursor()
    operator = sensor(deferrable=True, on_empty="wait", timeout=60)
    past = {"until": "2017-03-10T08:00:00Z"}
    with pytest.raises(AirflowSensorTimeout, match="60 s"):
        operator.execute_complete(context, {"reason": "timeout"}, **past)
    assert cursor(context) == START
    number = contact(crm, START)
    assert events(operator.execute_complete(context, {"reason": "timeout"}, **past)) == [(number, "added")]


def test_error_of_the_trigger(crm: RunningSandbox) -> None:
    """After an error of the trigger, the sensor looks itself, and raises what is wrong."""
    context = with_cursor()
    event = deferred(sensor(deferrable=True, on_empty="wait"), context)
    crm.configure(fault={"path": "/v3.1/Contacts/Search", "status": 401})
    with pytest.raises(InsightlyAccessError):
        sensor(deferrable=True, on_empty="wait").execute_complete(
            context, {"reason": "error"}, **event.kwargs
        )


SOFT_MODES = pytest.mark.parametrize(
    "mode", [{}, {"mode": "reschedule"}, {"deferrable": True}], ids=["poke", "reschedule", "deferred"]
)


@SOFT_MODES
@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_soft_fail_skips_no_refused_access(
    crm: RunningSandbox, mode: dict[str, Any], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong key doesn't mean "nothing yet".

    The task must not be green, at its first look or after a deferral.
    """
    monkeypatch.setattr(TaskInstance, "get_first_reschedule_date", lambda *_: None, raising=False)
    operator = sensor(soft_fail=True, on_empty="wait", **mode)
    context = with_cursor()
    waiting = deferred(operator, context) if mode.get("deferrable") else None
    crm.configure(fault={"path": "/v3.1/Contacts/Search", "status": status})
    with pytest.raises(InsightlyAccessError):
        operator.execute(context)
    if waiting is not None:
        with pytest.raises(InsightlyAccessError):
            operator.resume_execution(
                "execute_complete", {**waiting.kwargs, "event": {"reason": "error"}}, context
            )


@pytest.mark.parametrize("error", [AirflowNotFoundException("gone"), TaskDeferralError("the trigger")])
def test_soft_fail_skips_no_other_error_after_a_deferral(
    crm: RunningSandbox, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing connection and a failed trigger are such errors."""

    def broken(*_args: Any, **_kwargs: Any) -> None:
        raise error

    operator = sensor(soft_fail=True, deferrable=True)
    monkeypatch.setattr(operator, "execute_complete", broken)
    with pytest.raises(type(error)):
        operator.resume_execution("execute_complete", {"event": {}, "until": "2017-03-10"}, with_cursor())


@SOFT_MODES
def test_soft_fail_skips_where_the_time_is_up(
    crm: RunningSandbox, mode: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """This is what soft_fail is for. "Nothing changed" is a skip, too."""
    monkeypatch.setattr(TaskInstance, "get_first_reschedule_date", lambda *_: LONG_AGO, raising=False)
    context = with_cursor()
    operator = sensor(soft_fail=True, on_empty="wait", timeout=0.01, **mode)
    past = {"until": "2017-03-10T08:00:00Z", "event": {"reason": "timeout"}}
    if not mode.get("deferrable"):
        with pytest.raises(AirflowSkipException):
            operator.execute(context)
        return
    with pytest.raises(AirflowSkipException):
        operator.resume_execution("execute_complete", past, context)
    skipping = sensor(soft_fail=True, deferrable=True)
    with pytest.raises(AirflowSkipException, match="nothing changed"):
        skipping.resume_execution("execute_complete", past, context)


# --- gaps ------------------------------------------------------------------------------------------------


def test_gap_is_told(crm: RunningSandbox, logged: Logged) -> None:
    """If no run has read the time before this interval, the log warns of it, and says how to read it."""
    context = interval()
    context["asset_state_store"][ASSET].set(KEY, (START - HOUR).isoformat())
    with pytest.raises(AirflowSkipException):
        sensor().execute(context)
    *_, warning = logged.messages("warning")
    assert warning.startswith("No run has read [2031-03-10T07:00:00Z, 2031-03-10T08:00:00Z)")
    assert warning.endswith("Backfill the missing time")


def test_no_gap(crm: RunningSandbox, logged: Logged) -> None:
    """Intervals that follow each other warn of nothing."""
    context = interval()
    for hours in (0, 1):
        set_clock(crm, START + (hours + 1) * HOUR + timedelta(minutes=1))
        context = interval(
            START + hours * HOUR,
            START + (hours + 1) * HOUR,
            asset_state_store=context["asset_state_store"],
        )
        with pytest.raises(AirflowSkipException):
            sensor().execute(context)
    assert logged.messages("warning") == []


def test_records_without_times_are_warned_of(crm: RunningSandbox, logged: Logged) -> None:
    """A record without any time is in no window. The log names it."""
    from airflow_insightly_hooks.hooks.insightly import InsightlyHook

    timeless = {"CONTACT_ID": 5, "FIRST_NAME": CANARY}
    number = contact(crm, START)
    operator = sensor(window=(START, START + HOUR))
    real = InsightlyHook.iter_records
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InsightlyHook, "iter_records", lambda *a, **k: [timeless, *real(*a, **k)])
        changes = operator.execute(interval(START, START + HOUR))
    assert [change["record_id"] for change in changes] == [number]
    (warning,) = logged.messages("warning")
    assert warning.startswith(
        "Contacts: 1 record without a time of creation or update, so no window has it: "
    )
    assert "[5]" in warning


# --- what it costs ---------------------------------------------------------------------------------------


def requests(crm: RunningSandbox) -> dict[str, int]:
    """Return how many requests there were, by path."""
    return {path.split()[1]: n for path, n in crm.configure()["requests"].items() if "/v3.1/" in path}


@pytest.mark.usefixtures("_own_clock_is_right")
def test_a_cursor_costs_one_request(crm: RunningSandbox) -> None:
    """The first page's answer also gives the server's time, and thus the end of the window."""
    number = contact(crm, START + HOUR)
    context = with_cursor()
    assert events(sensor().execute(context)) == [(number, "added")]
    assert requests(crm) == {"/v3.1/Contacts/Search": 1}
    with pytest.raises(AirflowSkipException):
        sensor().execute({**with_cursor(cursor(context))})
    assert requests(crm) == {"/v3.1/Contacts/Search": 2}


@pytest.mark.usefixtures("_own_clock_is_right")
def test_a_window_that_has_settled_costs_one_request(crm: RunningSandbox) -> None:
    """If our own clock says that the window has settled, one request is enough.

    Otherwise the server's clock is read first.
    """
    past = datetime(2024, 5, 1, tzinfo=timezone.utc)
    sensor(window=(past, past + HOUR), on_empty="succeed").execute(run_context())
    assert requests(crm) == {"/v3.1/Contacts/Search": 1}
    contact(crm, START)
    sensor(window=(START, START + HOUR)).execute(run_context())
    assert requests(crm) == {"/v3.1/Contacts/Search": 2, "/v3.1/Instance": 1}


def test_a_workers_clock_decides_nothing(insightly: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten minutes ahead, it takes the window for settled. The clock in the server's answer decides."""

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(minutes=10)

    end = datetime.now(timezone.utc) + timedelta(minutes=5)
    monkeypatch.setattr(module, "datetime", Ahead)
    with pytest.raises(TaskDeferred) as caught:
        sensor(window=(end - HOUR, end), deferrable=True, timeout=3600).execute(run_context())
    look_at = caught.value.trigger.look_at
    assert 290 < (api_time(look_at) - Ahead.now(timezone.utc)).total_seconds() < 310


@pytest.mark.parametrize(
    ("name", "value", "other"),
    [("LAST_NAME", "Weiß & Co", "Weiss"), ("EMAIL_OPTED_OUT", True, False), ("Region__c", "Europe", "Asia")],
)
def test_a_field_that_is_searched_for(crm: RunningSandbox, name: str, value: Any, other: Any) -> None:
    """Only records with the value come, in a standard or custom field. Others aren't read."""

    def fields(of: Any) -> dict[str, Any]:
        return {"CUSTOMFIELDS": [{"FIELD_NAME": name, "FIELD_VALUE": of}]} if "__c" in name else {name: of}

    number = contact(crm, START, **fields(value))
    contact(crm, START, **fields(other))
    operator = sensor(window=(START, START + HOUR), field_name=name, field_value=value)
    assert events(operator.execute(run_context())) == [(number, "added")]


@MODES
@pytest.mark.parametrize("status", [429, 503])
def test_an_api_that_is_asked_too_much_is_looked_at_again(
    crm: RunningSandbox, status: int, deferrable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the hook's patience ends, the sensor waits as usual, up to its timeout, and holds no slot."""
    from airflow_insightly_hooks.hooks.insightly import InsightlyHook

    monkeypatch.setattr(InsightlyHook, "patience", 0.0)
    number = contact(crm, START)
    crm.configure(fault={"path": "/v3.1/Contacts/Search", "status": status, "times": 1, "retry_after": 1})
    context = with_cursor()
    operator = sensor(deferrable=deferrable, poke_interval=1.1)
    if deferrable:
        assert deferred(operator, context).trigger.open_since is None
    else:
        assert operator.poke(context) is False
        # A 429 stops all requests of the process for a while.
        assert operator.poke(context) is False or status == 503
    clear_process_registries()
    again = sensor().execute(context)
    assert events(again) == [(number, "added")]


def test_a_spent_day_fails_at_once(crm: RunningSandbox) -> None:
    """Asking again is useless before the hour that the error names."""
    crm.configure(requests_per_day=0)
    with pytest.raises(InsightlyRateLimitError, match="UTC") as caught:
        sensor().execute(with_cursor())
    assert caught.value.day_is_spent


def test_a_cursor_of_its_own_name_is_gone_on_from_under_any_id(crm: RunningSandbox) -> None:
    """With a named cursor, the task's ids don't matter."""
    number = contact(crm, START + HOUR)
    context = run_context()
    context["asset_state_store"][ASSET].set("cursor/new contacts", START.isoformat())
    assert events(sensor(cursor="new contacts").execute(context)) == [(number, "added")]
    assert context["asset_state_store"][ASSET].get("cursor/new contacts") > START.isoformat()


# --- mapped task groups ------------------------------------------------------------------------------------


def of_cities(schedule: Any = None, **arguments: Any) -> DAG:
    """Return a DAG with a sensor for each city."""
    with DAG("dag", schedule=schedule, start_date=START, max_active_runs=1) as dag:

        @task_group
        def of_city(city: Any) -> None:
            by_city = {name: city if value is CITY else value for name, value in arguments.items()}
            sensor(field_name="ADDRESS_MAIL_CITY", field_value=city, **by_city)

        of_city.expand(city=["Berlin", "Paris"])
    return dag


CITY = object()
"""The argument that the task group is mapped over."""


@pytest.mark.parametrize(
    "schedule",
    [
        None,
        "*/5 * * * *",
        "@continuous",
        timedelta(minutes=5),
        [ASSET],
        changes_schedule("Contacts", cursor="dag/of_city.detect"),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
@pytest.mark.parametrize("cursor", [None, "contacts"])
def test_map_indexes_that_would_share_a_cursor_are_refused(schedule: Any, cursor: str | None) -> None:
    """They are refused when the DAG is parsed: each would miss the changes that another has read."""
    with pytest.raises(ValueError, match="would share"):
        of_cities(schedule, cursor=cursor)


@pytest.mark.parametrize(
    "arguments",
    [
        {"cursor": CITY},
        {"cursor": "cities/{{ ti.map_index }}"},
        {"window": (START, START + HOUR)},
        {"schedule": CronDataIntervalTimetable("0 * * * *", timezone="UTC")},
        {"schedule": CronTriggerTimetable("0 * * * *", timezone="UTC", interval=HOUR)},
    ],
)
def test_map_indexes_with_cursors_of_their_own_are_fine(arguments: dict[str, Any]) -> None:
    """Map indexes with named cursors are accepted, and so are those that need no cursor."""
    assert len(of_cities(**arguments).tasks) == 1


# --- what the log says -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "text"), [(1, "1 record changed after"), (2, "2 records changed after"), (0, None)]
)
def test_an_empty_window_says_what_came_after_it(
    crm: RunningSandbox, logged: Logged, records: int, text: str | None
) -> None:
    """Changes that haven't settled yet belong to the next run."""
    for _ in range(records):
        contact(crm, START + HOUR + timedelta(seconds=58))
    with pytest.raises(AirflowSkipException):
        sensor(settle=10).execute(with_cursor(START + HOUR))
    assert ("the next run takes" in logged.text) == (text is not None)
    assert text is None or f"{text} the window's end" in logged.text


def test_what_came_after_a_window_that_holds_changes_is_not_told(crm: RunningSandbox, logged: Logged) -> None:
    """The next run's log says it."""
    contact(crm, START + HOUR + timedelta(seconds=10))
    contact(crm, START + HOUR + timedelta(seconds=58))
    assert len(sensor(settle=10).execute(with_cursor(START + HOUR))) == 1
    assert "after the window's end" not in logged.text


@MODES
def test_a_continuous_run_waits_for_a_change(crm: RunningSandbox, deferrable: bool) -> None:
    """Its interval is over before it begins. It continues from the cursor, up to the present."""
    context = with_cursor(START + HOUR, dag=SimpleNamespace(timetable=ContinuousTimetable()))
    context |= {"data_interval_start": START, "data_interval_end": START + HOUR}
    operator = sensor(on_empty="wait", deferrable=deferrable)
    if deferrable:
        assert deferred(operator, context).trigger.open_since is not None
    else:
        assert operator.poke(context) is False


def test_retries() -> None:
    """There are two by default, after a short delay.

    A DAG's defaults, an argument or a mapping can change that.
    """
    it = sensor()
    assert (it.retries, it.retry_delay) == (2, timedelta(seconds=10))
    with DAG("dag", schedule=None, default_args={"retries": 5, "retry_delay": timedelta(seconds=7)}):
        it = sensor()
        own = InsightlyRecordChangeSensor(task_id="own", record_type="Contacts", retries=0)
        mapped = InsightlyRecordChangeSensor.partial(task_id="mapped").expand(record_type=["Contacts"])
    assert (it.retries, it.retry_delay) == (5, timedelta(seconds=7))
    assert own.retries == 0
    assert mapped.partial_kwargs["retries"] == 5


def test_a_run_that_fails_before_it_looks_is_no_run_before() -> None:
    """If it was marked as a success by hand, it has read no window.

    This is noted before anything can fail.
    """
    context = run_context()
    with pytest.raises(AirflowNotFoundException):
        sensor(insightly_conn_id="insightly_later").execute(context)
    assert context["ti"].xcom["cursor"] == {"name": "dag/task", "window": None, "is_test": False}
