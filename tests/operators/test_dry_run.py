"""A dry run does everything but POST, and doesn't remember records that have triggered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.sdk import Asset, Param
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import AirflowSkipException, DagRunTriggerException

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.core.delivery.stored_deliveries import StoredLedger, StoredMessage
from airflow_insightly_hooks.core.errors import InvalidConnection
from airflow_insightly_hooks.operators.criteria import EvaluateCriteriaOperator
from airflow_insightly_hooks.operators.pending import ScheduleWebhooksOperator, TimeTrigger
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator
from airflow_insightly_hooks.runs.airflow_runs import is_dry_run
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.conftest import Connect, Logged, TaskInstance, run_context
from tests.deliveries import CANARY, ask_again, deliver, payloads, undelivered

WINDOW = {"start": "2024-05-01T00:00:00Z", "end": "2024-05-02T00:00:00Z"}
DRY = {"params": {"dry_run": True}}


@pytest.fixture(autouse=True)
def _no_contents_logged(logged: Logged) -> Iterator[None]:
    yield
    assert CANARY not in logged.text


@pytest.fixture
def receiver(insightly: RunningSandbox, connect: Connect) -> RunningSandbox:
    """The sandbox, as the account and as the receiver ``out``, to which ``webhook_default`` leads, too."""
    for name in ("webhook_default", "out"):
        connect(name, host=insightly.bin_url("out"), extra={"timeout": 2})
    return insightly


def kept(context: dict[str, Any], prefix: str = "") -> list[StoredMessage]:
    """Return the states in the delivery record."""

    def get(key: str) -> Any:
        return context["task_state_store"].get(prefix + key)

    ledger = StoredLedger.find(get)
    assert ledger is not None
    return list(ledger.messages(get))


def counts(report: Any) -> tuple[Any, ...]:
    return tuple(report.get(key) for key in ("dry_run", "would_send", "total", "delivered", "attempts"))


@pytest.mark.parametrize(
    ("argument", "params", "expected"),
    [
        (False, None, False),
        (True, None, True),
        (True, {"dry_run": False}, True),
        (False, {"dry_run": True}, True),
        (False, {"dry_run": "true"}, True),
        (False, {"dry_run": "false"}, False),
        (False, {"dry_run": 1}, False),
        (False, {"other": True}, False),
    ],
)
def test_what_makes_a_dry_run(argument: bool, params: Any, expected: bool) -> None:
    """The task's argument makes one, or the run's param, which may be text."""
    assert is_dry_run(run_context(params=params), argument) is expected


# --- the deliver task --------------------------------------------------------------------------------------


def test_a_dry_run_sends_nothing(receiver: RunningSandbox, logged: Logged) -> None:
    """Log and ledger name records and receiver. If the task is cleared without the dry run, it sends."""
    context = run_context()
    report = deliver(context, payloads(25), is_dry_run=True)
    assert counts(report) == (True, 25, 25, 0, 0)
    assert report["undelivered"] == []
    assert receiver.received("out") == []
    (message, *_) = kept(context)
    assert (message.state, message.about) == ("dry run", ("Contacts", 0, "added", "2017-03-10T08:00:00Z"))
    assert [outcome.error for outcome in message.outcomes] == ["not sent: this is a dry run"]
    (line,) = [m for m in logged.messages("info") if "Dry run" in m]
    assert line.startswith("Dry run: 25 of 25 payloads would go to http://127.0.0.1:")
    assert line.endswith("Contacts 19 added, and 5 more")
    report = deliver(context, payloads(25))
    assert (report["delivered"], report["attempts"]) == (25, 25)
    assert "dry_run" not in report
    assert {message.state for message in kept(context)} == {"delivered"}


def test_a_dry_run_begins_no_request_to_send_again(receiver: RunningSandbox) -> None:
    """The request stays open until a real run."""
    context = run_context()
    deliver(context, payloads(2))
    ask_again(context, 1)
    assert deliver(context, payloads(2), is_dry_run=True)["would_send"] == 1
    assert len(receiver.received("out")) == 2
    deliver(context, payloads(2))
    assert [one["headers"]["webhook-id"] for one in receiver.received("out")[2:]] == ["msg_1"]


def test_a_dry_run_of_what_is_partly_delivered(receiver: RunningSandbox) -> None:
    """Acknowledged messages would not be sent again, and stay acknowledged."""
    context = run_context()
    receiver.answer_with("out", status=503, times=1)
    undelivered(context, payloads(3), concurrency=1)
    before = dict(context["task_state_store"].values)
    assert counts(deliver({**context, **DRY}, payloads(3))) == (True, 1, 3, 2, 0)
    assert context["task_state_store"].values == before
    assert deliver(context, payloads(3))["delivered"] == 3


def test_a_payload_that_has_no_body_is_told_of(receiver: RunningSandbox) -> None:
    """It is reported as undelivered."""
    bad = {**payloads(1)[0], "body": "", "undeliverable": "no body"}
    report = deliver(run_context(**DRY), [bad, *payloads(1, first=1)])
    assert counts(report) == (True, 1, 2, 0, 0)
    assert [item["record_id"] for item in report["undelivered"]] == [0]


def test_a_dry_run_checks_the_receiver(connect: Connect) -> None:
    """An unusable connection fails a dry run, too."""
    connect("webhook_default", host="ftp://receiver.example.com")
    with pytest.raises(InvalidConnection):
        deliver(run_context(**DRY), payloads(1))


@pytest.mark.usefixtures("receiver")
def test_a_dry_run_emits_no_event() -> None:
    """The asset is removed from the outlets."""
    asset = Asset(name="undelivered")
    operator = WebhookOperator(
        task_id="deliver", payloads=payloads(1), on_undelivered="report", undelivered_asset=asset
    )
    operator.execute(run_context(**DRY))
    assert asset not in operator.outlets


# --- what has triggered ------------------------------------------------------------------------------------


def change(record_id: int = 1) -> dict[str, Any]:
    return {
        "record_type": "Contacts",
        "record_id": record_id,
        "event": "updated",
        "changed_at": "2024-05-01T12:00:00Z",
        "record": {"CONTACT_ID": record_id, "FIRST_NAME": CANARY},
    }


def test_a_dry_run_remembers_nothing() -> None:
    """With ``until_triggered``, the same record triggers in the next run."""
    operator = EvaluateCriteriaOperator(
        task_id="evaluate", changes=[change()], until_triggered=True, record_type="Contacts"
    )
    context = run_context()
    assert len(operator.execute({**context, **DRY})) == 1
    assert not any(store.values for store in context["asset_state_store"].values())
    assert context["task_state_store"].values == {}
    assert len(operator.execute({**context, "ti": TaskInstance(run_id="next")})) == 1


def test_a_dry_run_schedules_nothing() -> None:
    """The log shows what would be sent and when."""
    operator = ScheduleWebhooksOperator(
        task_id="schedule",
        changes=[change(7)],
        time_triggers=[TimeTrigger("later", after=timedelta(days=1))],
        pending_dag_id="dag__pending",
    )
    context = run_context(**DRY)
    with pytest.raises(
        AirflowSkipException, match="Dry run: 1 webhook would be scheduled; see the XCom 'pending'"
    ):
        operator.execute(context)
    ((entry,),) = context["ti"].xcom["pending"].values()
    assert (entry["record_id"], entry["due"]) == (7, "2024-05-02T12:00:00Z")
    with pytest.raises(DagRunTriggerException):
        operator.execute(run_context())


# --- a workflow --------------------------------------------------------------------------------------------


def workflow(**arguments: Any) -> Workflow:
    webhooks = [Webhook(name="Out", conn_id="out")]
    return Workflow(name="w", record_type="Contacts", settle=0, webhooks=webhooks, **arguments)


def test_a_workflow_that_is_a_dry_run_says_so_to_its_tasks() -> None:
    """All tasks of its three DAGs are dry runs. Without it, a run's param decides."""
    later = Webhook(name="Later", conn_id="out", after="1d")
    made = workflow(dry_run=True).model_copy(update={"webhooks": [*workflow().webhooks, later]})
    dag = made.to_dag(params={"mine": 1})
    for name in ("evaluate", "schedule", "deliver_out"):
        assert dag.get_task(name).is_dry_run, name
    assert set(dag.params) == {"mine"}
    given = ParamsDict({"mine": Param(1, type="integer")})
    dag = workflow().to_dag(params=given)
    assert not dag.get_task("deliver").is_dry_run
    assert dag.params.get_param("mine").schema == {"type": "integer"}
    assert dag.params["dry_run"] is False
    assert workflow().to_dag(params={"dry_run": True}).params["dry_run"] is True


def test_a_workflow_in_one_task(receiver: RunningSandbox, logged: Logged) -> None:
    """It sends, records and remembers nothing, and moves the cursor. If it is cleared, it sends."""
    noon = datetime(2024, 5, 1, 12, tzinfo=timezone.utc)
    times = [f"{noon + timedelta(seconds=n):%Y-%m-%d %H:%M:%S}" for n in range(5)]
    receiver.create_many(
        "Contacts", [{"FIRST_NAME": CANARY, "DATE_CREATED_UTC": t, "DATE_UPDATED_UTC": t} for t in times]
    )
    context = run_context()
    arguments = {"workflow": workflow(evaluate="until_triggered"), "window": WINDOW, "batch_size": 2}
    dry = InsightlyWorkflowOperator(task_id="flow", **arguments)
    report = dry.execute({**context, **DRY})
    assert counts(report) == (True, 5, 5, 0, 0)
    assert receiver.received("out") == []
    assert "Dry run: Out: 2 payloads would go out: Contacts " in logged.text
    assert {message.state for message in kept(context, "out/")} == {"dry run"}
    assert "triggered" not in json.dumps([dict(s.values) for s in context["asset_state_store"].values()])
    report = InsightlyWorkflowOperator(task_id="flow", **arguments).execute(context)
    assert report["delivered"] == len(receiver.received("out")) == 5


@pytest.mark.usefixtures("receiver")
def test_the_cursor_moves() -> None:
    """The run after a dry run continues at its end."""
    context = run_context()
    operator = InsightlyWorkflowOperator(task_id="flow", workflow=workflow(dry_run=True))
    report: Any = operator.execute(context)
    assert report["dry_run"] is True
    (store,) = context["asset_state_store"].values()
    assert any("cursor" in key for key in store.values)
