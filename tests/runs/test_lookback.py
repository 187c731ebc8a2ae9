"""A run also reads the time before its window, against the sandbox: with the sensor and with the operator."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from airflow_insightly_hooks.hooks.assets import records_asset
from airflow_insightly_hooks.operators.one_task.batch_reading import Reading
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor
from airflow_insightly_hooks.workflows.workflow import Workflow
from tests.conftest import Logged, TaskInstance, run_context

START = datetime(2031, 3, 10, 8, tzinfo=timezone.utc)
ASSET = records_asset("insightly_default", "Contacts")
MINUTE = timedelta(minutes=1)

Summary = list[tuple[int, str, datetime]]
Task = Callable[[dict[str, Any]], Summary]


def set_clock(sandbox: RunningSandbox, moment: datetime) -> None:
    sandbox.configure(clock_offset=(moment - datetime.now(timezone.utc)).total_seconds())


def contact(
    sandbox: RunningSandbox, created: datetime, updated: datetime | None = None, **fields: Any
) -> int:
    times = {"DATE_CREATED_UTC": api(created), "DATE_UPDATED_UTC": api(updated or created)}
    contact_id: int = sandbox.create("Contacts", **times, **fields)["CONTACT_ID"]
    return contact_id


def api(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def summary(changes: Any) -> Summary:
    return [
        (c["record_id"], c["event"], datetime.fromisoformat(c["changed_at"].replace("Z", "+00:00")))
        for c in changes
    ]


def detect(context: dict[str, Any], **arguments: Any) -> Summary:
    """Return the changes that a sensor returns."""
    arguments = {"record_type": "Contacts", "poke_interval": 0.01, "timeout": 60, **arguments}
    try:
        return summary(InsightlyRecordChangeSensor(task_id="task", **arguments).execute(context))
    except AirflowSkipException:
        return []


@pytest.fixture(params=["sensor", "operator"])
def task(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, connect: Any) -> Task:
    """Return a task that detects changes in a run."""
    if request.param == "sensor":
        return detect
    connect("hook", host="https://hooks.example.com")

    def deliver(context: dict[str, Any], **arguments: Any) -> Summary:
        """Return the changes that an operator would deliver."""
        found: list[Any] = []
        batches = Reading.batches

        def noted(self: Reading, size: int) -> Any:
            for batch in batches(self, size):
                found.extend(batch)
            return iter(())

        workflow = Workflow(
            name="w", record_type="Contacts", webhooks=[{"name": "h", "conn_id": "hook"}], **arguments
        )
        with monkeypatch.context() as patch:
            patch.setattr(Reading, "batches", noted)
            InsightlyWorkflowOperator(task_id="task", workflow=workflow).execute(context)
        return summary(found)

    return deliver


@pytest.fixture
def crm(insightly: RunningSandbox) -> RunningSandbox:
    set_clock(insightly, START + timedelta(seconds=5.5))
    return insightly


def searches(sandbox: RunningSandbox) -> int:
    return sum(n for path, n in sandbox.configure()["requests"].items() if "/v3.1/" in path)


def next_run(context: dict[str, Any], **entries: Any) -> dict[str, Any]:
    run = context["ti"].run_id
    ti = TaskInstance(run_id=f"{run}1")
    return run_context(ti=ti, asset_state_store=context["asset_state_store"], **entries)


def test_what_becomes_visible_late_comes_out_once(crm: RunningSandbox, task: Task) -> None:
    """It comes with its own time, in the next run and in that run's retry, and in no other run."""
    old = contact(crm, START - 4 * MINUTE)
    first = run_context()
    assert task(first) == []  # remembers the records that exist
    imported = contact(crm, START - 2 * MINUTE)
    updated = contact(crm, START - 999 * MINUTE, START - MINUTE)
    set_clock(crm, START + 2 * MINUTE)
    new = contact(crm, START + MINUTE)
    second = next_run(first)
    expected = [
        (imported, "added", START - 2 * MINUTE),
        (updated, "updated", START - MINUTE),
        (new, "added", START + MINUTE),
    ]
    assert task(second) == expected
    later = contact(crm, START - 3 * MINUTE), contact(crm, START + MINUTE)
    set_clock(crm, START + 4 * MINUTE)
    third = next_run(second)
    times = (START - 3 * MINUTE, START + MINUTE)
    assert task(third) == [(i, "added", at) for i, at in zip(later, times, strict=True)]
    set_clock(crm, START + 5 * MINUTE)
    assert task(next_run(third)) == []
    assert task(second) == expected
    assert task(first) == []
    assert old not in {record_id for record_id, _, _ in expected}


def test_scheduled_intervals_bring_what_is_late(crm: RunningSandbox, task: Task) -> None:
    """With data intervals, the next scheduled run returns late changes.

    A backfill or manual run reads only its own.
    """

    def of(number: int, before: dict[str, Any] | None = None, run_type: str = "scheduled") -> dict[str, Any]:
        interval = {
            "data_interval_start": START + number * MINUTE,
            "data_interval_end": START + (number + 1) * MINUTE,
            "dag_run": SimpleNamespace(run_type=run_type),
        }
        return next_run(before, **interval) if before else run_context(**interval)

    second = timedelta(seconds=1)
    set_clock(crm, START + MINUTE + 6 * second)
    first = of(0)
    assert task(first) == []
    imported = contact(crm, START + 10 * second)
    set_clock(crm, START + 2 * MINUTE + 6 * second)
    expected = [(imported, "added", START + 10 * second)]
    state = dict(first["asset_state_store"][ASSET].values)
    for run_type in ("backfill", "manual"):
        assert task(of(1, first, run_type)) == []
        assert task(of(0, first, run_type)) == expected
    assert first["asset_state_store"][ASSET].values == state
    run = of(1, first)
    assert task(run) == expected
    set_clock(crm, START + 3 * MINUTE + 6 * second)
    assert task(of(2, run)) == []
    assert task(run) == expected
    assert task(first) == []


def test_an_explicit_window_has_no_lookback(crm: RunningSandbox) -> None:
    """It is read as it is, and nothing is remembered."""
    contact(crm, START - 2 * MINUTE)
    context = run_context()
    window = {"start": START - MINUTE, "end": START}
    assert detect(context, window=window) == []
    assert context["asset_state_store"] == {}
    assert list(context["task_state_store"].values) == ["run_counts"]  # it decides nothing


def test_no_lookback(crm: RunningSandbox, task: Task) -> None:
    """With 0 nothing is read again, and nothing is remembered."""
    first = run_context()
    assert task(first, lookback=0) == []
    contact(crm, START - MINUTE)
    set_clock(crm, START + MINUTE)
    assert task(next_run(first), lookback=0) == []
    assert not [key for key in first["asset_state_store"][ASSET].values if "~" in key]


def test_a_memory_that_is_gone_is_warned_of(crm: RunningSandbox, task: Task, logged: Logged) -> None:
    """Changes from before then are not reported as late; later ones are."""
    first = run_context()
    task(first)
    assert logged.messages("warning") == []
    contact(crm, START - MINUTE)
    for key in [key for key in first["asset_state_store"][ASSET].values if "~" in key]:
        first["asset_state_store"][ASSET].delete(key)
    set_clock(crm, START + MINUTE)
    second = next_run(first)
    assert task(second) == []
    (warning,) = logged.messages("warning")
    assert warning.startswith(
        "It is not known which changes before 2031-03-10T08:00:00Z earlier runs have seen: nothing"
    )
    imported = contact(crm, START - 2 * MINUTE)
    set_clock(crm, START + 2 * MINUTE)
    assert task(next_run(second)) == [(imported, "added", START - 2 * MINUTE)]


def test_another_search_has_seen_nothing(crm: RunningSandbox, logged: Logged) -> None:
    """If the searched value changes, records that the new search finds before the window are not late."""
    first = run_context()
    detect(first, field_name="TITLE", field_value="a")
    contact(crm, START - MINUTE, TITLE="b")
    set_clock(crm, START + MINUTE)
    second = next_run(first)
    assert detect(second, field_name="TITLE", field_value="b") == []
    (warning,) = logged.messages("warning")
    assert "another search" in warning
    imported = contact(crm, START - MINUTE, TITLE="b")
    set_clock(crm, START + 2 * MINUTE)
    assert detect(next_run(second), field_name="TITLE", field_value="b") == [
        (imported, "added", START - MINUTE)
    ]


def test_what_does_not_fit_is_given_up_in_the_log(
    crm: RunningSandbox, task: Task, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes that no longer fit are not reported again, even if they could be late. Later ones are found."""
    monkeypatch.setattr("airflow_insightly_hooks.core.detection.seen_changes.MOST_RECORDS", 3)
    for _ in range(8):
        contact(crm, START - 2 * MINUTE)
    kept = contact(crm, START - MINUTE)
    first = run_context()
    task(first)
    (warning,) = logged.messages("warning")
    assert warning.startswith(
        "There are more changes than can be remembered: a change from before 2031-03-10T07:58:00"
    )
    contact(crm, START - 2 * MINUTE)
    imported = contact(crm, START - MINUTE)
    set_clock(crm, START + MINUTE)
    assert task(next_run(first)) == [(imported, "added", START - MINUTE)]
    assert kept != imported


def test_a_sensor_that_waits_remembers_from_its_first_look_on(crm: RunningSandbox) -> None:
    """It also finds changes that become visible while it waits, with times before it began."""
    contact(crm, START - 2 * MINUTE)
    context = run_context()
    operator = InsightlyRecordChangeSensor(
        task_id="task", record_type="Contacts", on_empty="wait", poke_interval=0.01, timeout=60
    )
    assert not operator.poke(context)
    assert not operator.poke(context)
    set_clock(crm, START + 2 * MINUTE)
    imported = contact(crm, START - MINUTE)
    outcome = operator.poke(context)
    assert summary(outcome.xcom_value) == [(imported, "added", START - MINUTE)]


def test_one_page_costs_no_request_more(crm: RunningSandbox, task: Task) -> None:
    """If one page has all records, a run makes as many requests as one without a lookback."""
    cost = {}
    for lookback in (0, 900):
        set_clock(crm, START + timedelta(seconds=5.5))
        first = run_context()
        task(first, lookback=lookback)
        for second in range(100):
            contact(crm, START + timedelta(seconds=second))
        context, cost[lookback] = first, []
        for minutes in (5, 6):
            set_clock(crm, START + minutes * MINUTE)
            before = searches(crm)
            context = next_run(context)
            task(context, lookback=lookback)
            cost[lookback].append(searches(crm) - before)
    assert cost[900] == cost[0]
