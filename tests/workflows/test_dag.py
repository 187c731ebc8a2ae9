"""Workflows as DAGs: their tasks, their schedules, and the settings that a DAG may override."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import ModuleType
from typing import Any

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import (
    DAG,
    Asset,
    CronDataIntervalTimetable,
    CronTriggerTimetable,
    DeltaDataIntervalTimetable,
    DeltaTriggerTimetable,
    TaskGroup,
)
from airflow.sdk import task as airflow_task
from airflow.sdk.definitions._internal.contextmanager import DagContext
from airflow.serialization.serialized_objects import DagSerialization
from sqlalchemy import select

from airflow_insightly_hooks import Schedule, Webhook, Workflow
from airflow_insightly_hooks.core.errors import InvalidWorkflow
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.triggers.record_change import changes_asset
from tests.ledgers import add_run
from tests.metadata_database import add_dag, metadata_database

BILLING = Webhook(name="Billing", conn_id="billing_webhook")
LATER = Webhook(name="A week later", conn_id="billing_webhook", after="7d", recheck=True)
IN_FRANCE = {"field": "ADDRESS_MAIL_COUNTRY", "operator": "equals", "value": "France"}


def workflow(*webhooks: Webhook, **arguments: Any) -> Workflow:
    arguments = {"name": "New contacts", "record_type": "Contacts", "criteria": IN_FRANCE, **arguments}
    return Workflow(webhooks=list(webhooks or [BILLING]), **arguments)


def edges(dag: DAG) -> dict[str, set[str]]:
    return {task.task_id: task.downstream_task_ids for task in dag.tasks}


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, DAG]:
    """The DAGs that Airflow finds in a DAG file, by DAG id."""
    module = ModuleType("a_dag_file")
    monkeypatch.setitem(__import__("sys").modules, "a_dag_file", module)
    monkeypatch.setattr(DagContext, "current_autoregister_module_name", "a_dag_file")
    found: set[Any] = set()
    monkeypatch.setattr(DagContext, "autoregistered_dags", found)

    class Found(dict[str, DAG]):
        def __missing__(self, dag_id: str) -> DAG:
            return {dag.dag_id: dag for dag, _ in found}[dag_id]

        def ids(self) -> set[str]:
            return {dag.dag_id for dag, _ in found}

    return Found()


def test_the_four_tasks_are_visible() -> None:
    """With one webhook, the tasks' ids don't contain its name."""
    dag = workflow().to_dag()
    assert edges(dag) == {
        "detect": {"evaluate"},
        "evaluate": {"build"},
        "build": {"deliver"},
        "deliver": set(),
    }
    assert (dag.dag_id, dag.dag_display_name, dag.catchup, dag.max_active_runs, dag.tags) == (
        "new_contacts",
        "New contacts",
        False,
        16,
        {"insightly"},
    )


def test_each_webhook_has_its_own_tasks() -> None:
    """A dead receiver delays no other. Each receiver's messages have their own ids."""
    other = Webhook(
        name="News letter",
        uri="https://x.example",
        fields=["CONTACT_ID"],
        headers={"X-A": "b"},
        concurrency=2,
    )
    dag = workflow(BILLING, other).to_dag()
    assert edges(dag) == {
        "detect": {"evaluate"},
        "evaluate": {"build_billing", "build_news_letter"},
        "build_billing": {"deliver_billing"},
        "deliver_billing": set(),
        "build_news_letter": {"deliver_news_letter"},
        "deliver_news_letter": set(),
    }
    build, deliver = dag.get_task("build_news_letter"), dag.get_task("deliver_news_letter")
    assert (build.workflow, build.fields) == ("new_contacts/News letter", ["CONTACT_ID"])
    assert (deliver.headers, deliver.concurrency, deliver.retries) == ({"X-A": "b"}, 2, 2)


def test_what_a_workflow_says_reaches_its_tasks() -> None:
    """The tasks get events, criteria, memory, switch, account and settling."""
    dag = workflow(
        evaluate="until_triggered", active=False, insightly_conn_id="crm", settle=7, lookback=60
    ).to_dag()
    detect, evaluate = dag.get_task("detect"), dag.get_task("evaluate")
    assert (
        detect.record_type,
        detect.events,
        detect.settle,
        detect.lookback,
        detect.insightly_conn_id,
        detect.deferrable,
    ) == (
        "Contacts",
        ("added", "updated"),
        7,
        60,
        "crm",
        True,
    )
    assert (evaluate.criteria, evaluate.until_triggered, evaluate.active, evaluate.workflow) == (
        IN_FRANCE,
        True,
        False,
        "new_contacts",
    )
    assert workflow(evaluate="created").to_dag().get_task("detect").events == ("added",)


def test_the_name_of_a_cursor_reaches_the_sensor() -> None:
    """Without a name, the sensor's cursor is named after its DAG and task."""
    assert workflow(cursor="old/detect").to_dag().get_task("detect").cursor == "old/detect"
    assert workflow().to_dag().get_task("detect").cursor is None


@pytest.mark.parametrize("argument", ["depends_on_past", "wait_for_downstream"])
def test_a_run_that_failed_keeps_back_nothing(registered: Any, argument: str) -> None:
    """Due and waiting messages go with the next run, whatever the workflow's own runs wait for."""
    dag = workflow(BILLING, LATER).to_dag(default_args={argument: True})
    assert dag.get_task("deliver_billing").depends_on_past
    for suffix in ("pending", "retry"):
        assert not any(task.depends_on_past for task in registered[f"new_contacts__{suffix}"].tasks)


@pytest.mark.parametrize("rule", [None, "downstream"])
def test_what_has_begun_goes_first(registered: Any, rule: str | None) -> None:
    """If slots are scarce, deliveries run before other runs' detection, unless the DAG changes that."""
    dag = workflow(BILLING, LATER).to_dag(**({} if rule is None else {"default_args": {"weight_rule": rule}}))
    beside = [registered[f"new_contacts__{suffix}"] for suffix in ("pending", "retry")]
    tasks = [task for made in (dag, *beside) for task in made.tasks]
    assert {str(task.weight_rule) for task in tasks} == {rule or "upstream"}
    with DAG("mine", schedule=None, default_args={"weight_rule": "absolute"}) as mine:
        workflow().task_group()
    assert {str(task.weight_rule) for task in mine.tasks} == {"absolute"}


def test_the_order_in_which_the_scheduler_takes_tasks() -> None:
    """It takes tasks of the largest weight first: the tasks at the end of a run."""
    with metadata_database() as sessions, sessions() as session:
        add_dag(session, workflow(dag_id="w").to_dag())
        add_run(session, "manual__1", "w")
        found = session.scalars(select(TaskInstance)).all()
        weights = {ti.task_id: ti.priority_weight for ti in found}
    assert weights == {"detect": 1, "evaluate": 2, "build": 3, "deliver": 4}


def test_a_task_groups_retry_dag_tells_of_failures(registered: Any) -> None:
    """A group's undelivered messages are reported as in a workflow's own DAG."""
    made = Workflow(
        name="Calls",
        record_type="Contacts",
        webhooks=[Webhook(name="w", conn_id="c")],
        on_failure="builtins.print",
    )
    with DAG("mine", schedule=None):
        made.task_group()
    assert registered["calls__retry"].on_failure_callback is not None


def test_time_triggers_get_a_second_dag(registered: Any) -> None:
    """The second DAG is unpaused, has manual runs only, one at a time, and can cancel."""
    dag = workflow(BILLING, LATER).to_dag(
        default_args={"retry_delay": timedelta(seconds=3), "depends_on_past": True}
    )
    assert registered.ids() == {"new_contacts", "new_contacts__pending", "new_contacts__retry"}
    assert edges(dag)["evaluate"] == {"build_billing", "schedule"}
    assert dag.get_task("schedule").pending_dag_id == "new_contacts__pending"
    pending = registered["new_contacts__pending"]
    assert edges(pending) == {
        "due_a_week_later": {"build_a_week_later", "wake_up"},
        "build_a_week_later": {"deliver_a_week_later"},
        "deliver_a_week_later": set(),
        "wake_up": set(),
    }
    assert pending.is_paused_upon_creation is False
    assert pending.get_task("due_a_week_later").max_active_tis_per_dag == 1
    assert pending.get_task("due_a_week_later").webhook == "a_week_later"
    assert not pending.get_task("due_a_week_later").depends_on_past
    assert pending.get_task("due_a_week_later").criteria == IN_FRANCE
    assert pending.get_task("wake_up").trigger_rule == "all_done"
    assert pending.get_task("deliver_a_week_later").retry_delay == timedelta(seconds=3)
    assert dict(pending.params) == {"cancel": [], "send_now": [], "webhooks": []}
    assert pending.params.get_param("webhooks").schema["examples"] == ["a_week_later"]
    assert "send_now" in str(DagSerialization.to_dict(pending))


def test_without_recheck_nothing_is_asked_at_its_time(registered: Any) -> None:
    """Insightly documents no second check."""
    workflow(Webhook(name="w", conn_id="x", after="1h")).to_dag()
    assert registered["new_contacts__pending"].get_task("due").criteria is None


@pytest.mark.parametrize(
    ("schedule", "kind", "zone"),
    [
        (Schedule(cron="0 6 * * *"), CronTriggerTimetable, "UTC"),
        (Schedule(cron="0 6 * * *", timezone="Europe/Paris"), CronTriggerTimetable, "Europe/Paris"),
        (Schedule(every="15m"), DeltaTriggerTimetable, "900"),
    ],
)
def test_a_schedule_without_intervals(schedule: Schedule, kind: type, zone: str) -> None:
    """Each run continues where the last one ended."""
    made = workflow(schedule=schedule).to_dag()
    assert isinstance(made.timetable, kind)
    assert zone in str(DagSerialization.to_dict(made)["dag"]["timetable"])
    assert not made.catchup


def test_a_cron_line_is_airflows_to_read() -> None:
    """Airflow reads presets such as ``@daily``, too. Runs have no intervals, whatever Airflow's settings."""
    for line in ("@daily", "*/5 * * * *"):
        assert isinstance(workflow(schedule=line).to_dag().timetable, CronTriggerTimetable)
    assert workflow(schedule="@once").to_dag().schedule == "@once"


@pytest.mark.parametrize(
    ("schedule", "kind"),
    [
        (Schedule(cron="0 * * * *", data_interval=True), CronDataIntervalTimetable),
        (Schedule(every="15m", data_interval=True), DeltaDataIntervalTimetable),
    ],
)
def test_a_schedule_with_intervals(schedule: Any, kind: type) -> None:
    """Past intervals are run, too, since an interval without a run is not read."""
    made = workflow(schedule=schedule, start_date="2026-01-01").to_dag()
    assert isinstance(made.timetable, kind)
    assert made.catchup
    assert made.start_date == datetime(2026, 1, 1, tzinfo=timezone.utc)


def test_a_schedule_by_changes() -> None:
    """Its own asset, whose watcher knows the cursor, triggers it. It also runs once when first unpaused."""
    arguments = {"insightly_conn_id": "crm", "settle": "2m", "lookback": "1h"}
    made = workflow(schedule=Schedule(watch="30s"), **arguments).to_dag()
    (asset,) = made.timetable.asset_condition.objects
    expected = changes_asset(
        "Contacts",
        insightly_conn_id="crm",
        poll_interval=30,
        settle=120,
        lookback=3600,
        cursor=f"{made.dag_id}/detect",
    )
    assert (asset.name, asset.uri) == (expected.name, expected.uri)
    assert asset.watchers[0].trigger.serialize() == expected.watchers[0].trigger.serialize()
    assert type(made.timetable.timetable).__name__ == "OnceTimetable"
    assert not made.catchup


def test_a_schedule_by_changes_knows_the_cursors_name() -> None:
    """It is the given name, or the name by the DAG as it is made."""
    for made, cursor in (
        (workflow(schedule="on_change", cursor="old/detect").to_dag(), "old/detect"),
        (workflow(schedule="on_change").to_dag(dag_id="other"), "other/detect"),
    ):
        (asset,) = made.timetable.asset_condition.objects
        assert asset.watchers[0].trigger.cursor == cursor


def test_on_change() -> None:
    """``on_change`` means a watch every 15 s. It can be set in the workflow, or when its DAG is made."""
    for made in (workflow(schedule="on_change").to_dag(), workflow().to_dag(schedule="on_change")):
        expected = changes_asset("Contacts", poll_interval=15, settle=5, cursor=f"{made.dag_id}/detect")
        (asset,) = made.timetable.asset_condition.objects
        assert asset.name == expected.name


@pytest.mark.parametrize(("watch", "seconds"), [(None, 900), ("30m", 1800)])
def test_a_schedule_by_webhooks(watch: Any, seconds: float) -> None:
    """Its asset's watcher only looks for changes without a webhook. It also runs once at first."""
    made = workflow(schedule=Schedule(on_change="push", watch=watch)).to_dag()
    (asset,) = made.timetable.asset_condition.objects
    expected = changes_asset("Contacts", push=True, poll_interval=seconds, cursor=f"{made.dag_id}/detect")
    assert (asset.name, asset.uri) == (expected.name, expected.uri)
    assert asset.watchers[0].trigger.serialize() == expected.watchers[0].trigger.serialize()
    assert type(made.timetable.timetable).__name__ == "OnceTimetable"


def test_no_schedule() -> None:
    """Runs are manual only."""
    assert workflow(schedule=None).to_dag().schedule is None


def test_arguments_go_over_what_the_workflow_says() -> None:
    """All arguments of Airflow's ``DAG`` can be given."""
    dag = workflow().to_dag(
        dag_id="other", schedule=[Asset(name="x", uri="x://y")], tags=["mine"], default_args={"owner": "me"}
    )
    assert (dag.dag_id, dag.tags, dag.get_task("detect").owner) == ("other", {"mine"}, "me")
    assert dag.get_task("build").workflow == "other/Billing"


@pytest.mark.parametrize("schedule", ["every day", "99 * * * *", Schedule(cron="* * * * * * * *")])
def test_a_cron_line_that_is_none_is_found(schedule: Any) -> None:
    """The mistake is found when the DAG is made, like any other."""
    with pytest.raises(InvalidWorkflow, match="schedule: Airflow refuses it"):
        workflow(schedule=schedule).to_dag()


def test_runs_may_overlap_and_what_remembers_does_not() -> None:
    """Backfills run beside the schedule. The memory has one writer at a time."""
    dag = workflow(evaluate="until_triggered").to_dag(max_active_runs=3)
    assert dag.max_active_runs == 3
    assert dag.get_task("evaluate").max_active_tis_per_dag == 1
    assert workflow().to_dag().get_task("evaluate").max_active_tis_per_dag is None
    assert workflow().to_dag().get_task("detect").max_active_tis_per_dag == 1


def test_what_waits_for_a_receiver_has_a_dag_of_its_own(registered: Any) -> None:
    """One DAG for all webhooks, with and without a time, keeps and sends the messages that tasks left."""
    dag = workflow(BILLING, LATER).to_dag(default_args={"retry_delay": timedelta(seconds=3)})
    retry = registered["new_contacts__retry"]
    assert edges(retry) == {
        "collect": {"deliver_a_week_later", "deliver_billing", "wake_up"},
        "deliver_billing": set(),
        "deliver_a_week_later": set(),
        "wake_up": set(),
    }
    assert (retry.is_paused_upon_creation, retry.max_active_runs) == (False, 16)
    assert retry.get_task("collect").max_active_tis_per_dag == 1
    pending = registered["new_contacts__pending"]
    for slug, first in (("billing", dag), ("a_week_later", pending)):
        left, sent = first.get_task(f"deliver_{slug}"), retry.get_task(f"deliver_{slug}")
        assert left.retry_dag_id == "new_contacts__retry"
        assert left.payloads_task_id == f"build_{slug}"
        assert left.webhook == sent.webhook == f"new_contacts/{slug}"
        assert (sent.retry_delay, sent.webhook_conn_id) == (timedelta(seconds=3), left.webhook_conn_id)


def test_a_task_group(registered: Any) -> None:
    """The tasks are in the user's DAG and group. The second DAG is a separate DAG."""
    with DAG("own", schedule=None) as dag, TaskGroup("outer"):
        group = workflow(BILLING, LATER).task_group(tooltip="t")

        @airflow_task
        def afterwards() -> None: ...

        group >> afterwards()
    assert {task.task_id for task in dag.tasks} == {
        "outer.new_contacts.detect",
        "outer.new_contacts.evaluate",
        "outer.new_contacts.build_billing",
        "outer.new_contacts.deliver_billing",
        "outer.new_contacts.schedule",
        "outer.afterwards",
    }
    assert group.tooltip == "t"
    assert set(edges(registered["new_contacts__pending"])) == {
        "due_a_week_later",
        "build_a_week_later",
        "deliver_a_week_later",
        "wake_up",
    }


def test_a_task_group_of_another_name() -> None:
    """It is the given name, or the workflow's name, or its DAG's id if the name has no letters."""
    with DAG("own", schedule=None) as dag:
        workflow().task_group("second")
        workflow(name="???", dag_id="third").task_group()
    assert {"second.detect", "third.detect"} <= {task.task_id for task in dag.tasks}


def test_every_dag_can_be_serialized(registered: Any) -> None:
    """Airflow can store it, and it holds no part of a URI's query."""
    secrets = [
        Webhook(name=name, uri="https://x.example/h?token=s3cret", after=after)
        for name, after in (("now", None), ("later", "1d"))
    ]
    workflow(*secrets, evaluate="until_triggered").to_dag()
    for dag_id in ("new_contacts", "new_contacts__pending", "new_contacts__retry"):
        text = str(DagSerialization.to_dict(registered[dag_id]))
        assert "s3cret" not in text
        assert "x.example" in text


@pytest.mark.parametrize("record_type", [*RECORD_TYPES, "Invoice__c"])
def test_every_record_type_has_workflows(record_type: str) -> None:
    """This includes custom objects. Types without an update time have workflows for new records only."""
    evaluate = "created_and_edited" if RECORD_TYPES[record_type].has_updates else "created"
    dag = workflow(record_type=record_type, evaluate=evaluate, criteria=None).to_dag()
    assert dag.get_task("detect").record_type == record_type


def test_the_second_dag_is_told_of_failures_as_the_first(registered: Any) -> None:
    """Its callback reports undelivered webhooks."""

    def callback(_context: Any) -> None: ...

    workflow(LATER).to_dag(tags=["mine"], on_failure_callback=callback, default_args={"retries": 9})
    pending = registered["new_contacts__pending"]
    assert (pending.tags, pending.on_failure_callback) == ({"mine"}, callback)
    assert pending.get_task("due").retries == 9


def test_what_is_pending_is_sent_while_inactive(registered: Any) -> None:
    """The switch belongs to the evaluate task. The second DAG has no switch."""
    workflow(LATER, active=False).to_dag()
    pending = registered["new_contacts__pending"]
    assert not any(hasattr(task, "active") for task in pending.tasks)


def test_a_start_is_needed_for_intervals() -> None:
    """This also holds if ``to_dag`` sets the schedule."""
    with pytest.raises(InvalidWorkflow, match="start_date: a schedule with data intervals needs it"):
        workflow().to_dag(schedule=Schedule(every="1h", data_interval=True))


def test_a_receiver_that_is_none_is_found() -> None:
    """The error names the webhook's place."""
    wrong = Webhook(name="w", uri="nonsense")
    with pytest.raises(InvalidWorkflow) as caught:
        workflow(BILLING, wrong).to_dag()
    assert caught.value.problems[0][0] == "webhooks[1]"


def test_the_dags_page_describes_the_workflow() -> None:
    """The description is in words and as YAML, as the workflow runs. A given text replaces it."""
    text = workflow(name="<b>New</b>").to_dag(dag_id="other", schedule="@daily").doc_md
    assert text is not None
    assert "- Watches `Contacts`: a record that is created or edited, each time.\n" in text
    assert "- It runs at `@daily` (UTC).\n" in text
    assert "```yaml\nname: <b>New</b>\ndag_id: other\n" in text
    assert "The DAG file sets when it runs." in str(workflow().to_dag(schedule=[Asset(name="x")]).doc_md)
    assert workflow().to_dag(doc_md="Mine.").doc_md == "Mine."
    assert workflow().to_dag(doc_md=None).doc_md is None
