"""The limits of the numbers in DAG files, wherever such a number is given."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_insightly_hooks.core.bounds import check_seconds
from airflow_insightly_hooks.core.errors import InvalidWorkflow
from airflow_insightly_hooks.core.workflow.definition import WorkflowDefinition
from airflow_insightly_hooks.core.workflow.parts import Schedule, Webhook
from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.operators.pending import ScheduleWebhooksOperator, TimeTrigger
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor
from airflow_insightly_hooks.triggers.record_change import (
    InsightlyRecordChangeEventTrigger,
    changes_asset,
)

ENDLESS = [1e10, 1e300, float("inf"), float("nan"), 10**400, -1, timedelta.max]
WORKFLOW: dict[str, Any] = {
    "name": "W",
    "record_type": "Contacts",
    "webhooks": [{"name": "A", "conn_id": "a"}],
}


def sensor(**arguments: Any) -> object:
    return InsightlyRecordChangeSensor(task_id="detect", record_type="Contacts", **arguments)


def deliver(**arguments: Any) -> object:
    return WebhookOperator(task_id="deliver", payloads=[], **arguments)


def whole(**arguments: Any) -> object:
    workflow = WorkflowDefinition(**WORKFLOW)
    return InsightlyWorkflowOperator(task_id="all", workflow=workflow, **arguments)


def build(**arguments: Any) -> object:
    return BuildPayloadOperator(task_id="build", changes=[], **arguments)


def timed(**arguments: Any) -> object:
    trigger = TimeTrigger("a", field="DUE_DATE", **arguments)
    return ScheduleWebhooksOperator(
        task_id="schedule", changes=[], time_triggers=[trigger], pending_dag_id="pending"
    )


def workflow(**arguments: Any) -> object:
    return WorkflowDefinition(**WORKFLOW, **arguments)


def webhook(**arguments: Any) -> object:
    return Webhook(name="A", conn_id="a", field="DATE_CREATED_UTC", **arguments)


@pytest.mark.parametrize("value", ENDLESS)
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (sensor, "settle"),
        (sensor, "timeout"),
        (sensor, "poke_interval"),
        (deliver, "retry_delay"),
        (deliver, "concurrency"),
        (deliver, "give_up_after"),
        (whole, "retry_delay"),
        (whole, "batch_size"),
        (build, "chunk_size"),
        (timed, "after"),
        (timed, "before"),
        (workflow, "settle"),
        (webhook, "concurrency"),
        (webhook, "after"),
        (webhook, "before"),
        (Schedule, "every"),
        (Schedule, "watch"),
        (lambda **given: changes_asset("Contacts", **given), "poll_interval"),
        (lambda **given: changes_asset("Contacts", **given), "settle"),
        (lambda **given: InsightlyRecordChangeEventTrigger("Contacts", **given), "poll_interval"),
        (lambda **given: InsightlyRecordChangeEventTrigger("Contacts", **given), "settle"),
    ],
)
def test_beyond_all_use(make: Any, name: str, value: Any) -> None:
    """An infinite, negative or missing number is refused when the DAG is parsed. The error names it."""
    with pytest.raises((ValueError, InvalidWorkflow), match=name):
        make(**{name: value})


@pytest.mark.parametrize("text", ["2d", "999999w"])
def test_settle_of_a_workflow(text: str) -> None:
    """A settle of more than a day is refused, however it is written."""
    with pytest.raises(InvalidWorkflow, match="settle"):
        workflow(settle=text)


@pytest.mark.parametrize("value", [0, 0.5, 86_400, timedelta(days=1)])
def test_within_bounds(value: Any) -> None:
    """The limits themselves are allowed."""
    check_seconds("settle", value, at_most=86_400, or_timedelta=True)


@pytest.mark.parametrize("value", ["5", None, True, timedelta(seconds=5)])
def test_no_seconds(value: Any) -> None:
    """For a value that is no number of seconds, the error says exactly this."""
    with pytest.raises(ValueError, match="must be a number of seconds"):
        check_seconds("settle", value)


def test_shortest_watch() -> None:
    """A watch without a pause between its requests is refused."""
    with pytest.raises(InvalidWorkflow, match="watch"):
        Schedule(watch=timedelta(microseconds=1))
    with pytest.raises(ValueError, match="poll_interval"):
        changes_asset("Contacts", poll_interval=0)
