"""What runs of DAGs come to: tests that test_pytest_plugin.py runs, in a pytest session of its own."""

from __future__ import annotations

import json
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, CronDataIntervalTimetable, task

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.core.dates import format_ms_date
from airflow_insightly_hooks.core.errors import InvalidWorkflowFile, UndeliveredError
from airflow_insightly_hooks.core.exact_json import ExactNumber
from airflow_insightly_hooks.core.incoming.kept_entity import KeptEntity, KeptName
from airflow_insightly_hooks.hooks.entity_store import EntityStore
from airflow_insightly_hooks.operators.criteria import EvaluateCriteriaOperator
from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from airflow_insightly_hooks.runs.received_changes import (
    MissingInletError,
    received_changes,
    received_changes_asset,
)
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor

HERE = Path(__file__).parent


def pipeline(dag_id="single_tasks", schedule="*/5 * * * *", *, deferrable=True, **sensor):
    with DAG(dag_id, schedule=schedule, start_date=datetime(2025, 1, 1, tzinfo=timezone.utc)) as dag:
        changes = InsightlyRecordChangeSensor(
            task_id="detect", record_type="Tasks", deferrable=deferrable, **sensor
        )
        matching = EvaluateCriteriaOperator(
            task_id="evaluate",
            changes=changes.output,
            criteria={"field": "TITLE", "operator": "starts_with", "value": "Call"},
        )
        payloads = BuildPayloadOperator(task_id="build", changes=matching.output, chunk_size=1)
        WebhookOperator.partial(task_id="deliver", webhook_conn_id="chat_webhook").expand(
            payloads=payloads.output
        )
    return dag


def titles(requests, field="TITLE"):
    return sorted(json.loads(request["body"])["entity"][field] for request in requests)


def test_a_dag_of_single_tasks(insightly_sandbox, run_dag):
    """Mapped tasks are named by their map indexes; XComs and windows can be read."""
    for title in ("Call Ada", "Call Bob", "Write"):
        insightly_sandbox.create("Tasks", TITLE=title)
    outcome = run_dag(pipeline())
    assert outcome.state == "success"
    assert outcome.tasks["deliver[0]"] == outcome.tasks["deliver[1]"] == "success"
    assert titles(outcome.requests["chat_webhook"]) == ["Call Ada", "Call Bob"]
    assert len(outcome.xcom("detect")) == 3
    assert outcome.xcom("detect", "window")["start"] < outcome.xcom("detect", "window")["end"]
    assert outcome.xcom("deliver[0]")["delivered"] == 1


def test_runs_go_on_from_one_another(insightly_sandbox, run_dag):
    """A second run reads what has changed since the first; where nothing has, it skips."""
    dag = pipeline()
    insightly_sandbox.create("Tasks", TITLE="Call Ada")
    assert titles(run_dag(dag).requests["chat_webhook"]) == ["Call Ada"]
    assert run_dag(dag).tasks["detect"] == "skipped"
    insightly_sandbox.create("Tasks", TITLE="Call Bob")
    assert titles(run_dag(dag).requests["chat_webhook"]) == ["Call Bob"]


def test_each_test_begins_anew(insightly_sandbox, run_dag):
    """Neither records nor cursors of other tests are left."""
    insightly_sandbox.create("Tasks", TITLE="Call Cleo")
    assert titles(run_dag(pipeline()).requests["chat_webhook"]) == ["Call Cleo"]


def test_a_dag_with_data_intervals(insightly_sandbox, run_dag):
    """The interval is the time since the test began, or since the last run; or the one that is given."""
    dag = pipeline("intervals", CronDataIntervalTimetable("0 * * * *", timezone="UTC"))
    insightly_sandbox.create("Tasks", TITLE="Call Ada")
    first = run_dag(dag)
    assert titles(first.requests["chat_webhook"]) == ["Call Ada"]
    insightly_sandbox.create("Tasks", TITLE="Call Bob")
    second = run_dag(dag)
    assert titles(second.requests["chat_webhook"]) == ["Call Bob"]
    assert second.xcom("detect", "window")["start"] == first.xcom("detect", "window")["end"]
    noon = datetime(2025, 6, 1, 12, tzinfo=timezone.utc)
    insightly_sandbox.create("Tasks", TITLE="Call Cleo", DATE_CREATED_UTC="2025-06-01 12:30:00")
    past = run_dag(dag, data_interval=(noon, noon + timedelta(hours=1)))
    assert titles(past.requests["chat_webhook"]) == ["Call Cleo"]


def test_a_task_that_fails_to_the_end(insightly_sandbox, insightly_connections, run_dag):
    """Retries take no time; the outcome has the error, and the DAG's callback is called."""
    chat = insightly_connections.receiver("chat_webhook")
    chat.answer_with(status=503)
    called = []
    workflow = Workflow(
        name="Chat", record_type="Tasks", webhooks=[Webhook(name="Chat", conn_id="chat_webhook")]
    )
    dag = workflow.to_dag(on_failure_callback=lambda context: called.append(context["dag_run"].dag_id))
    insightly_sandbox.create("Tasks", TITLE="Call Ada")
    outcome = run_dag(dag)
    assert (outcome.state, outcome.tasks["deliver"], outcome.tries["deliver"]) == ("failed", "failed", 3)
    assert isinstance(outcome.errors["deliver"], UndeliveredError)
    assert [delay >= timedelta(seconds=60) for delay in outcome.retry_delays["deliver"]] == [True, True]
    assert called == ["chat"]
    assert chat.bodies == []
    assert len(chat.requests) == 3


def test_a_fault_of_the_api(insightly_sandbox, run_dag):
    """What goes wrong in the CRM is retried, too."""
    insightly_sandbox.create("Tasks", TITLE="Call Ada")
    insightly_sandbox.configure(fault={"path": "/v3.1/Tasks/Search", "status": 400, "times": 1})
    outcome = run_dag(pipeline())
    assert outcome.tries["detect"] == 2
    assert titles(outcome.requests["chat_webhook"]) == ["Call Ada"]


@pytest.mark.parametrize("way", [{"deferrable": True}, {"deferrable": False, "mode": "reschedule"}])
def test_a_sensor_that_waits(insightly_sandbox, run_dag, way):
    """A deferred sensor's trigger runs in the process; a sensor in mode reschedule is run again."""
    later = threading.Timer(2, insightly_sandbox.create, ["Tasks"], {"TITLE": "Call Ada"})
    later.start()
    dag = pipeline("waits", on_empty="wait", settle=1, poke_interval=1, **way)
    outcome = run_dag(dag, timeout=30)
    later.join()
    assert titles(outcome.requests["chat_webhook"]) == ["Call Ada"]


def test_a_sensor_that_waits_in_vain(run_dag):
    """The time limit says which task waits."""
    with pytest.raises(TimeoutError, match="waits: detect still waits after 10 s"):
        run_dag(pipeline("waits", on_empty="wait"), timeout=10)


def test_a_workflow_file(insightly_sandbox, insightly_connections, run_dag):
    """One of its workflows is run, with what waits for its time; what has triggered is remembered."""
    chat, later = map(insightly_connections.receiver, ("chat_webhook", "later_webhook"))
    task = insightly_sandbox.create("Tasks", TITLE="Call Ada")
    outcome = run_dag(HERE / "workflows.yaml", dag_id="call_back")
    assert titles(outcome.requests["chat_webhook"]) == ["Call Ada"]
    assert [(run.dag_id, run.state) for run in outcome.started] == [("call_back__pending", "success")]
    insightly_sandbox.update("Tasks", task["TASK_ID"], TITLE="Call Ada again")
    assert run_dag(HERE / "workflows.yaml", dag_id="call_back").tasks["evaluate"] == "success"
    assert len(chat.requests) == 1
    insightly_sandbox.advance(minutes=30)
    assert run_dag.due() == []
    insightly_sandbox.advance(minutes=30)
    (sent,) = run_dag.due()
    assert titles(sent.requests["later_webhook"]) == ["Call Ada again"]
    assert (len(later.bodies), run_dag.queued) == (1, [])


@pytest.fixture
def earlier(insightly_sandbox):
    insightly_sandbox.create("Tasks", TITLE="Call Ada")
    insightly_sandbox.advance(days=2)


def test_what_another_fixture_has_done(earlier, run_dag):
    """A run reads it, however long ago it was; and what is due by then is sent at once."""
    outcome = run_dag(HERE / "workflows.yaml", dag_id="call_back")
    assert titles(outcome.requests["chat_webhook"]) == ["Call Ada"]
    assert titles(outcome.requests["later_webhook"]) == ["Call Ada"]
    assert outcome.queued == []


def test_a_run_that_goes_on_and_on(run_dag):
    """The time limit holds for tasks that are always ready, too; here one that is tried again and again."""
    with DAG("again", schedule=None) as dag:
        PythonOperator(task_id="fails", python_callable=lambda: 1 / 0, retries=1_000_000)
    with pytest.raises(TimeoutError, match="again has not ended after 2 s"):
        run_dag(dag, timeout=2)


def test_a_deleted_record_is_not_sent_later(insightly_sandbox, run_dag):
    """At its time, the record is read again."""
    task = insightly_sandbox.create("Tasks", TITLE="Call Ada")
    run_dag(HERE / "workflows.yaml", dag_id="call_back")
    insightly_sandbox.delete("Tasks", task["TASK_ID"])
    insightly_sandbox.advance(hours=1)
    (outcome,) = run_dag.due()
    assert [entry["record_id"] for entry in outcome.xcom("due_later", "not_sent")] == [task["TASK_ID"]]
    assert outcome.requests["later_webhook"] == []


def test_a_workflow_with_data_intervals(insightly_sandbox, run_dag):
    """So does a file's workflow that has them, after days have passed, too."""
    insightly_sandbox.advance(days=2)
    insightly_sandbox.create("Leads", LAST_NAME="Lovelace")
    outcome = run_dag(HERE / "workflows.yaml", dag_id="new_leads")
    assert titles(outcome.requests["chat_webhook"], "LAST_NAME") == ["Lovelace"]


def test_a_mistake_in_a_workflow_file(tmp_path, run_dag):
    """It is named with its line."""
    file = tmp_path / "wrong.yaml"
    file.write_text("name: Wrong\nrecord_type: Taskss\nwebhooks:\n  - {name: Chat, conn_id: chat_webhook}\n")
    with pytest.raises(InvalidWorkflowFile, match=r"wrong\.yaml:2: record_type"):
        run_dag(file)


def test_a_dag_file(insightly_sandbox, run_dag):
    """A file's DAGs are those that Airflow finds in it."""
    insightly_sandbox.create("Leads", LAST_NAME="Lovelace")
    outcome = run_dag(HERE / "dag_file.py", dag_id="one_task")
    assert titles(outcome.requests["leads_webhook"], "LAST_NAME") == ["Lovelace"]
    with pytest.raises(LookupError, match="contacts, one_task: choose one"):
        run_dag(HERE / "dag_file.py")
    insightly_sandbox.create("Contacts", FIRST_NAME="Ada")
    assert [run.dag_id for run in run_dag(HERE / "dag_file.py", dag_id="contacts").queued] == [
        "contacts__pending"
    ]


def test_a_dag_file_that_breaks(tmp_path, run_dag):
    """Its error is the test's."""
    file = tmp_path / "broken.py"
    file.write_text("from airflow.sdk import DAG\nraise RuntimeError('on purpose')\n")
    with pytest.raises(ImportError, match="on purpose"):
        run_dag(file)
    with pytest.raises(FileNotFoundError, match="is not a file: give the path of a DAG file"):
        run_dag(tmp_path / "missing.py")
    file.write_text("from airflow_insightly_hooks import load_workflows\nload_workflows('workflows')\n")
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "wrong.yaml").write_text("name: Wrong\n")
    with pytest.raises(Exception, match=r"wrong\.yaml:1"):
        run_dag(file)


def test_any_dag(run_dag):
    """A DAG without a schedule, and without a task of this package, is a manual run; conf reaches it."""
    with DAG("empty", schedule=None, params={"name": "Ada"}) as dag:
        EmptyOperator(task_id="nothing")
    outcome = run_dag(dag, conf={"name": "Bob"})
    assert (outcome.state, outcome.tasks, outcome.run_id[:6]) == ("success", {"nothing": "success"}, "manual")


def test_credentials(insightly_sandbox, insightly_connections, run_dag):
    """A receiver that asks for credentials gets those of its connection."""
    chat = insightly_connections.receiver("chat_webhook", username="crm", password="secret", timeout=5)
    insightly_sandbox.create("Tasks", TITLE="Call Ada")
    run_dag(pipeline())
    assert [(kept["username"], kept["acknowledged_with"]) for kept in chat.requests] == [("crm", 200)]


def test_received_changes(monkeypatch, tmp_path, run_dag, capfd, caplog):
    """A task reads what webhooks have brought, each once, by Airflow's state stores. No log has them."""
    extra = {"accept": "entity", "entity_path": f"file://{tmp_path}/kept"}
    connection = {"conn_type": "insightly_incoming", "login": "i", "password": "p", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_INSIGHTLY_INCOMING", json.dumps(connection))
    store = EntityStore(extra["entity_path"], "insightly_default")
    tries = []

    with DAG("received", schedule=None) as dag:

        @task(inlets=[received_changes_asset("Tasks")], retries=1, retry_delay=timedelta(seconds=0))
        def read():
            changes = received_changes("Tasks", incoming_conn_id="insightly_incoming")
            tries.append([change["record_id"] for change in changes])
            if len(tries) == 2:
                receive(3)
                raise RuntimeError("tried again")
            return changes

        @task
        def read_without_inlet():
            with pytest.raises(MissingInletError, match=r"received_changes_asset\('Tasks', "):
                received_changes("Tasks", incoming_conn_id="insightly_incoming")

        read_without_inlet()
        payloads = BuildPayloadOperator(task_id="build", changes=read())
        WebhookOperator(task_id="deliver", webhook_conn_id="chat_webhook", payloads=payloads.output)

    def receive(number):
        now = datetime.now(timezone.utc)
        date = format_ms_date(now)
        record = {"TASK_ID": number, "TITLE": "Zoé", "AMOUNT": ExactNumber("1E2"), "DATE_UPDATED_UTC": date}
        entity = KeptEntity(now, "Tasks", number, record)
        store.keep(KeptName.of_message(now, number, f"{number}"), entity)

    assert run_dag(dag).state == "success"
    receive(1)
    receive(2)
    outcome = run_dag(dag)
    assert (outcome.state, outcome.tries["read"]) == ("success", 2)
    assert sorted(titles(outcome.requests["chat_webhook"], "TASK_ID")) == [1, 2]
    assert '"AMOUNT":1E2,"DATE_UPDATED_UTC":"\\/Date(' in outcome.requests["chat_webhook"][0]["body"]
    run_dag(dag)
    assert tries == [[], [1, 2], [1, 2], [3]]
    logged = "".join(capfd.readouterr()) + caplog.text
    assert "Returned value not shown" in logged
    assert "Zo" not in logged
