"""Tasks store their counts in their own state. Counting never fails a task."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowSkipException

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.core.errors import UndeliveredError
from airflow_insightly_hooks.operators.criteria import EvaluateCriteriaOperator
from airflow_insightly_hooks.operators.one_task.webhook_deliveries import WebhookDeliveries
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator
from airflow_insightly_hooks.runs.run_counts import keep_run_counts
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor
from tests.conftest import API_KEY, Connect, Logged, StateStore, TaskInstance, run_context

START = datetime(2024, 1, 1, tzinfo=timezone.utc)
DAY = {"data_interval_start": START, "data_interval_end": START + timedelta(days=1)}
TEST = SimpleNamespace(run_type="manual", run_id="__airflow_temporary_run_1__")
CRITERIA = {"field": "FIRST_NAME", "operator": "equals", "value": "Ada"}


def kept(context: dict[str, Any]) -> dict[str, Any] | None:
    """Return a task's stored counts, without the account's requests, which vary."""
    value = context["task_state_store"].get("run_counts")
    if value is not None and "requests_left" in value:
        assert 0 < value.pop("requests_left") <= value.pop("requests_a_day")
        value["account"] = value.pop("insightly_conn_id")
    return value


@pytest.fixture
def crm(insightly: RunningSandbox, connect: Connect) -> RunningSandbox:
    """The sandbox with three contacts in the window, as account and receiver."""
    connect("out", host=insightly.bin_url("out"))
    for second, name in enumerate(("Ada", "Bob", "Ada")):
        at = f"2024-01-01 08:00:0{second}"
        insightly.create("Contacts", FIRST_NAME=name, DATE_CREATED_UTC=at, DATE_UPDATED_UTC=at)
    return insightly


def sensor(**arguments: Any) -> InsightlyRecordChangeSensor:
    return InsightlyRecordChangeSensor(task_id="detect", record_type="Contacts", **arguments)


def flow(**arguments: Any) -> InsightlyWorkflowOperator:
    arguments = {"evaluate": "created", "criteria": CRITERIA, **arguments}
    hook = Webhook(name="Out", conn_id="out", concurrency=1)
    given = Workflow(name="flow", record_type="Contacts", settle=0, webhooks=[hook], **arguments)
    return InsightlyWorkflowOperator(task_id="flow", workflow=given, batch_size=1)


def changes(*names: str) -> list[dict[str, Any]]:
    return [
        {
            "record_type": "Contacts",
            "record_id": number,
            "event": "added",
            "changed_at": "2024-01-01T08:00:00Z",
            "record": {"CONTACT_ID": number, "FIRST_NAME": name},
        }
        for number, name in enumerate(names, 1)
    ]


def evaluate(given: list[dict[str, Any]], **arguments: Any) -> EvaluateCriteriaOperator:
    with DAG("dag", schedule=None):
        return EvaluateCriteriaOperator(task_id="evaluate", changes=given, criteria=CRITERIA, **arguments)


@pytest.mark.usefixtures("crm")
@pytest.mark.parametrize("deferrable", [False, True])
def test_the_sensor_counts_what_it_has_detected(*, deferrable: bool) -> None:
    """It also stores the account's requests of the day. A retry or a cleared task stores the same counts."""
    context = run_context(**DAY)
    for _ in range(2):
        sensor(deferrable=deferrable).execute(context)
        assert kept(context) == {"version": 1, "detected": 3, "account": "insightly_default"}
    assert context["task_state_store"].writes.count("run_counts") == 2
    after = run_context(**DAY)
    sensor(deferrable=True).execute_complete(after, {}, until="2100-01-01T00:00:00Z")
    assert kept(after) == {"version": 1, "detected": 3, "account": "insightly_default"}


@pytest.mark.usefixtures("insightly")
def test_nothing_detected_is_counted_too() -> None:
    """A skipped task stores that it detected nothing."""
    context = run_context(**DAY)
    with pytest.raises(AirflowSkipException):
        sensor().execute(context)
    assert kept(context) == {"version": 1, "detected": 0, "account": "insightly_default"}


@pytest.mark.parametrize(
    ("arguments", "met"), [({}, 2), ({"active": False}, 0), ({"until_triggered": True}, 2)]
)
def test_the_criteria_count_what_met_them(arguments: dict[str, Any], met: int) -> None:
    """Undeliverable changes don't count, since it is unknown whether they meet the criteria."""
    bad = {**changes("Ada")[0], "record_id": 9, "record": {}, "undeliverable": "too deep"}
    context = run_context()
    evaluate([*changes("Ada", "Bob", "Ada"), bad], record_type="Contacts", **arguments).execute(context)
    assert kept(context) == {"version": 1, "met": met}


def test_what_has_triggered_before_is_not_counted_again() -> None:
    """With ``until_triggered``, only records that trigger count. In a retry they count again."""
    context = run_context()
    for _ in range(2):
        evaluate(changes("Ada"), until_triggered=True, record_type="Contacts").execute(context)
        assert kept(context) == {"version": 1, "met": 1}
    later = {**context, "task_state_store": StateStore(), "ti": TaskInstance(run_id="later")}
    evaluate(changes("Ada", "Eve"), until_triggered=True, record_type="Contacts").execute(later)
    assert kept(later) == {"version": 1, "met": 0}


@pytest.mark.parametrize("evaluated", ["created", "until_triggered"])
def test_one_task_counts_both(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch, evaluated: str) -> None:
    """Its counts are right at the end, even if an earlier try was stopped in the middle."""
    context = run_context(**DAY)
    deliver = WebhookDeliveries.deliver

    def killed(*arguments: Any) -> int:
        deliver(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(WebhookDeliveries, "deliver", killed)
        with pytest.raises(KeyboardInterrupt):
            flow(evaluate=evaluated).execute(context)
    assert kept(context) is None
    flow(evaluate=evaluated).execute(context)
    assert len(crm.received("out")) == 2
    assert kept(context) == {"version": 1, "detected": 3, "met": 2, "account": "insightly_default"}


def test_what_stays_undelivered_is_detected_all_the_same(crm: RunningSandbox) -> None:
    """The task fails, but its window was read."""
    crm.answer_with("out", status=400)
    context = run_context(**DAY)
    with pytest.raises(UndeliveredError):
        flow().execute(context)
    assert kept(context) == {"version": 1, "detected": 3, "met": 2, "account": "insightly_default"}


@pytest.mark.usefixtures("crm")
def test_an_inactive_workflow_has_read_nothing() -> None:
    """No counts are stored, since no changes were read."""
    context = run_context(**DAY)
    flow(active=False).execute(context)
    assert "detected" not in (kept(context) or {"detected": 0})


def nothing_kept() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    yield "a test", {"dag_run": TEST}, {}
    yield "a dry run by its param", {"params": {"dry_run": True}}, {}
    yield "a dry run by its argument", {}, {"is_dry_run": True}


@pytest.mark.usefixtures("crm")
@pytest.mark.parametrize(("entries", "arguments"), [case[1:] for case in nothing_kept()])
def test_tests_and_dry_runs_keep_nothing(entries: dict[str, Any], arguments: dict[str, Any]) -> None:
    """None of the three operators stores counts then."""
    for operator in (sensor(**arguments), evaluate(changes("Ada"), **arguments)):
        context = run_context(**DAY, **entries)
        operator.execute(context)
        assert kept(context) is None
    context = run_context(**DAY, **entries)
    flow(dry_run=bool(arguments)).execute(context)
    assert kept(context) is None


def test_a_workflow_tells_its_sensor_of_a_dry_run() -> None:
    """All tasks of its DAG treat the run in the same way."""
    given = Workflow(
        name="dry", record_type="Contacts", dry_run=True, webhooks=[Webhook(name="w", conn_id="c")]
    )
    dag = given.to_dag(auto_register=False)
    assert dag.task_dict["detect"].is_dry_run is True


class Failing(StateStore):
    def set(self, key: str, value: Any, **_: Any) -> None:
        if key == "run_counts":
            raise RuntimeError(f"http://user:{API_KEY}@store")
        super().set(key, value)


@pytest.mark.usefixtures("crm")
def test_a_store_that_fails_fails_no_task(logged: Logged) -> None:
    """The failure is logged, without the error's text."""
    assert len(sensor().execute(run_context(**DAY, task_state_store=Failing()))) == 3
    (warning,) = logged.messages("warning")
    assert warning.startswith(
        "The task's counts can't be kept, so the pages don't show them: RuntimeError at "
    )
    assert API_KEY not in warning


def test_no_store_is_needed() -> None:
    """Users' unit tests give a task an empty context."""
    assert len(evaluate(changes("Ada")).execute({})) == 1
    keep_run_counts({}, logging.getLogger(), met=1)


def test_a_connection_that_is_gone_costs_the_requests_only() -> None:
    """The other counts are stored without it."""

    class Gone:
        def requests_left(self) -> None:
            raise LookupError("insightly_default")

    context = run_context()
    keep_run_counts(context, logging.getLogger(), detected=1, hook=Gone())  # type: ignore[arg-type]
    assert kept(context) == {"version": 1, "detected": 1}
