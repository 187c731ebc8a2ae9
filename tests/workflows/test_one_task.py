"""Workflows in the mode ``one_task``: a DAG, or a group, of one task."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, CronDataIntervalTimetable, TaskGroup
from airflow.serialization.serialized_objects import DagSerialization

from airflow_insightly_hooks import Schedule, Webhook, Workflow
from airflow_insightly_hooks.core.errors import InvalidWorkflow
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator
from airflow_insightly_hooks.workflows import files
from airflow_insightly_hooks.workflows.dag import workflow_dags

BILLING = Webhook(name="Billing", conn_id="billing_webhook")
NEWS = Webhook(name="News letter", conn_id="news_webhook", retries=5)
INTERVALS = {"schedule": Schedule(cron="0 * * * *", data_interval=True), "start_date": "2026-01-01"}
FILE = "name: A\nrecord_type: Notes\nmode: {}\nmax_active_runs: 2\nwebhooks: [{{name: w, conn_id: c}}]\n"


def workflow(*webhooks: Webhook, **arguments: Any) -> Workflow:
    arguments = {"name": "New contacts", "record_type": "Contacts", "mode": "one_task", **arguments}
    return Workflow(webhooks=list(webhooks or [BILLING]), **arguments)


def only_task(dag: DAG) -> InsightlyWorkflowOperator:
    (task,) = dag.tasks
    assert isinstance(task, InsightlyWorkflowOperator)
    return task


def test_the_dag_has_one_task() -> None:
    """It does the whole workflow. Only the number of active runs differs from the mode ``tasks``."""
    made = workflow(BILLING, NEWS, tags=["crm"], owner="sales", dry_run=False)
    dag, tasks = made.to_dag(), made.to_dag(mode="tasks")
    task = only_task(dag)
    assert (task.task_id, task.owner) == ("detect_and_deliver", "sales")
    assert task.workflow.webhooks == made.webhooks
    assert (dag.max_active_runs, tasks.max_active_runs) == (1, 16)
    for name in ("dag_id", "dag_display_name", "tags", "catchup", "description", "start_date"):
        assert getattr(dag, name) == getattr(tasks, name)
    assert dag.params.dump() == tasks.params.dump() == {"dry_run": False}
    assert "One task does everything" in str(dag.doc_md)
    assert "mode: one_task" in str(dag.doc_md)
    assert task.doc_yaml is not None
    assert "mode: one_task" in task.doc_yaml
    assert "mode" not in str(tasks.doc_md)
    DagSerialization.to_dict(dag)


def test_an_argument_goes_over_the_key() -> None:
    """This works in both directions. Pages show the mode of the DAG that was made."""
    assert only_task(workflow(mode="tasks").to_dag(mode="one_task")).workflow.mode == "one_task"
    assert len(workflow().to_dag(mode="tasks").tasks) == 4
    with pytest.raises(InvalidWorkflow, match="mode: 'tasks' or 'one_task' is needed"):
        workflow().to_dag(mode="one")
    with pytest.raises(InvalidWorkflow, match="mode: 'tasks' or 'one_task' is needed"):
        Workflow(name="x", record_type="Notes", webhooks=[BILLING], mode="one-task")  # type: ignore[arg-type]


def test_the_cursor_is_that_of_the_mode_tasks() -> None:
    """The mode can be changed, and the watcher looks at the same cursor."""
    for made, cursor in (
        (workflow(schedule="on_change").to_dag(), "new_contacts/detect"),
        (workflow(schedule="on_change").to_dag(dag_id="other"), "other/detect"),
        (workflow(schedule="on_change", cursor="old/detect").to_dag(), "old/detect"),
    ):
        assert only_task(made).cursor == cursor
        (asset,) = made.timetable.asset_condition.objects
        assert asset.watchers[0].trigger.cursor == cursor


def test_a_group_of_one_task() -> None:
    """Its cursor is that of the group's ``detect`` task. The workflow's memory belongs to its ``dag_id``."""
    with DAG("own", schedule=None, max_active_runs=1) as dag, TaskGroup("outer"):
        workflow().task_group()
    task = only_task(dag)
    assert task.task_id == "outer.new_contacts.detect_and_deliver"
    assert task.cursor == "own/outer.new_contacts.detect"
    assert task.workflow.dag_id == "new_contacts"
    with DAG("own", schedule=None) as dag:
        workflow(mode="tasks").task_group(mode="tasks")
    assert len(dag.tasks) == 4


def test_runs_that_would_read_the_same_are_refused(tmp_path: Path) -> None:
    """A file's mistake has its line. With data intervals, each run reads its own and is accepted."""
    for make in (
        lambda: workflow(max_active_runs=2).to_dag(),
        lambda: workflow().to_dag(max_active_runs=2),
        lambda: workflow().to_dag(max_active_runs=2, schedule="@daily"),
    ):
        with pytest.raises(InvalidWorkflow, match="max_active_runs: at most 1 in the mode one_task"):
            make()
    with DAG("own", schedule="@daily"), pytest.raises(InvalidWorkflow, match="max_active_runs: at most 1"):
        workflow().task_group()
    assert workflow(max_active_runs=2, **INTERVALS).to_dag().max_active_runs == 2
    assert workflow(**INTERVALS).to_dag().max_active_runs == 1
    timetable = CronDataIntervalTimetable("0 * * * *", timezone="UTC")
    assert workflow().to_dag(max_active_runs=3, schedule=timetable).max_active_runs == 3
    errors: dict[str, str] = {}
    for mode in ("tasks", "one_task"):
        path = tmp_path / f"{mode}.yaml"
        path.write_text(FILE.format(mode))
        loaded = files.load_files([(path, path.name)], {"auto_register": False})
        for error in loaded.errors.values():
            errors[mode] = str(error)
    assert errors.keys() == {"one_task"}
    assert errors["one_task"].startswith("one_task.yaml:4: max_active_runs: at most 1 in the mode one_task")


def test_default_args_reach_the_task() -> None:
    """The task gets Airflow's own arguments, and those for deliveries override the webhooks' keys."""
    made = workflow(BILLING, NEWS).to_dag(
        default_args={"retries": 1, "retry_delay": timedelta(seconds=3), "pool": "crm", "ordered": True}
    )
    task = only_task(made)
    assert (task.retries, task.retry_delay, task.pool) == (1, timedelta(seconds=3), "crm")
    assert [webhook.retries for webhook in task.workflow.webhooks] == [1, 1]
    assert all(webhook.ordered for webhook in task.workflow.webhooks)


def test_time_triggers_have_their_dag() -> None:
    """The task passes them to the pending DAG. Both modes have the retry DAG."""
    made = workflow(BILLING, Webhook(name="A week later", conn_id="c", after="7d", pool="slow"))
    dag, *beside = workflow_dags(made)
    task = only_task(dag)
    assert (task.pending_dag_id, task.pool) == ("new_contacts__pending", "default_pool")
    both = workflow_dags(made, mode="tasks")[1:]
    assert [each.dag_id for each in beside] == ["new_contacts__pending", "new_contacts__retry"]
    assert [sorted(each.task_dict) for each in beside] == [sorted(each.task_dict) for each in both]
    assert only_task(workflow().to_dag()).pending_dag_id is None


def test_a_receiver_that_is_none_is_found() -> None:
    """The error has the webhook's path, as in the mode ``tasks``."""
    with pytest.raises(InvalidWorkflow, match=r"webhooks\[1\]: "):
        workflow(BILLING, Webhook(name="w", uri="ftp://x.example")).to_dag()


def test_the_pool_of_its_webhooks_is_the_tasks() -> None:
    """A task has one pool, so different ones are refused. The pool overrides the pool of ``default_args``."""
    one_slot = Webhook(name="Slow", conn_id="c", pool="one_slot")
    assert only_task(workflow(one_slot).to_dag()).pool == "one_slot"
    assert only_task(workflow(one_slot, pool="crm").to_dag(default_args={"pool": "x"})).pool == "one_slot"
    assert only_task(workflow(pool="crm").to_dag()).pool == "crm"
    assert only_task(workflow(pool="crm").to_dag(default_args={"pool": "x"})).pool == "x"
    assert only_task(workflow(one_slot, BILLING, pool="one_slot").to_dag()).pool == "one_slot"
    for webhooks in ((one_slot, BILLING), (BILLING, one_slot)):
        with pytest.raises(
            InvalidWorkflow, match=r"webhooks\[1\].pool: in the mode one_task, one task sends"
        ):
            workflow(*webhooks).to_dag()
