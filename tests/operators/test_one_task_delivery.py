"""The webhooks of a workflow in one task: each has its own keys, order, events and receiver."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, Asset
from airflow.serialization.serialized_objects import DagSerialization

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.core.errors import InvalidWorkflow, UndeliveredError
from airflow_insightly_hooks.hooks.webhook import WebhookHook
from airflow_insightly_hooks.operators.common import progress_timer
from airflow_insightly_hooks.operators.delivery import metrics
from airflow_insightly_hooks.operators.delivery.ledger_writer import LedgerWriter
from airflow_insightly_hooks.operators.delivery.progress import DeliveryProgress
from airflow_insightly_hooks.operators.links import DeliveriesLink, ReceiverLink, WorkflowRecordsLink
from airflow_insightly_hooks.operators.one_task.batch_delivery import BatchDelivery
from airflow_insightly_hooks.operators.one_task.delivery_settings import DeliverySettings
from airflow_insightly_hooks.operators.webhook import UndeliverableError
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.conftest import Connect, Logged, StateStore, TaskInstance, run_context
from tests.operators.test_workflow_operator import (
    WINDOW,
    add_contacts,
    ask_again,
    failed,
    flow,
    message_of,
    messages,
    record_ids,
    states,
    stored,
    task,
    update,
    workflow,
)

pytestmark = pytest.mark.usefixtures("nothing_logged")

DEAD, OTHERS = Asset("dead_letters"), Asset("others")


def webhook(name: str = "Out", **keys: Any) -> Webhook:
    return Webhook(name=name, conn_id=name.lower(), **keys)


# --- which keys count --------------------------------------------------------------------------------------


def test_each_webhook_has_its_own_keys() -> None:
    """A webhook's key comes first, then the workflow's, then the default.

    The task has the largest, and all assets.
    """
    given = workflow(
        webhook(retries=0, retry_delay="5m", undelivered_asset="others", on_undelivered="report"),
        webhook("Other", ordered=True, give_up_after=3),
        webhook("Third", on_undelivered="report"),
        retries=4,
        undelivered_asset="dead_letters",
    )
    operator = task(given)
    five = timedelta(minutes=5)
    assert operator.settings == {
        "out": DeliverySettings(
            on_undelivered="report", undelivered_asset=OTHERS, retries=0, retry_delay=five
        ),
        "other": DeliverySettings(ordered=True, retries=4, give_up_after=3),
        "third": DeliverySettings(on_undelivered="report", undelivered_asset=DEAD, retries=4),
    }
    assert (operator.retries, operator.retry_delay) == (4, five)
    assert operator.outlets == [OTHERS, DEAD]


def test_arguments_go_over_the_keys() -> None:
    """Arguments of the operator, or of its DAG's default_args, hold for all webhooks."""
    given = workflow(webhook(retries=0, retry_delay=1, ordered=False), webhook("Other", give_up_after=3))
    arguments = {
        "retries": 2,
        "retry_delay": 60,
        "ordered": True,
        "give_up_after": 7,
        "on_undelivered": "report",
    }
    with DAG("dag", schedule=None, default_args={**arguments, "undelivered_asset": DEAD}) as dag:
        by_default = task(given)
    settings = DeliverySettings(
        ordered=True, on_undelivered="report", undelivered_asset=DEAD, give_up_after=7
    )
    assert list(by_default.settings.values()) == [settings, settings]
    assert task(given, **arguments, undelivered_asset=DEAD).settings == by_default.settings
    DagSerialization.to_dict(dag)
    for wrong in ({"give_up_after": -1}, {"undelivered_asset": DEAD}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            task(given, **wrong)


def test_mapped_tasks_have_the_largest_retries_and_the_assets() -> None:
    """Airflow must know both before it maps the task."""
    given = workflow(webhook(retries=5, on_undelivered="report", undelivered_asset="dead_letters"), OTHER_ONE)
    with DAG("dag", schedule=None):
        mapped = InsightlyWorkflowOperator.partial(task_id="flow", workflow=given).expand(window=[WINDOW])
        plain = InsightlyWorkflowOperator.partial(task_id="plain", workflow=workflow()).expand(
            window=[WINDOW]
        )
    assert (mapped.retries, plain.retries) == (5, 2)
    assert mapped.outlets == [DEAD]
    partial = InsightlyWorkflowOperator.partial(task_id="flow", workflow=given, outlets=[DEAD])
    with DAG("dag", schedule=None):
        assert partial.expand(window=[WINDOW]).outlets == [DEAD]
    assert task(given, outlets=[DEAD]).outlets == [DEAD]


OTHER_ONE = webhook("Other")


def test_a_time_trigger_needs_a_dag_that_sends(crm: RunningSandbox) -> None:
    """Without it, the task is refused when its DAG is parsed. The error names the alternatives."""
    later = webhook("Later", after="1d")
    with pytest.raises(InvalidWorkflow, match=r"to_dag .*pending_dag_id"):
        task(workflow(OTHER_ONE, later))
    assert set(task(workflow(OTHER_ONE, later), pending_dag_id="p").settings) == {"other"}


# --- how each webhook ends ---------------------------------------------------------------------------------


def test_attempts_of_each_webhook(crm: RunningSandbox) -> None:
    """Each has its own number of attempts.

    The task continues for the other, and fails with the last attempt.
    """
    add_contacts(crm, 2)
    for name in ("out", "other"):
        crm.answer_with(name, status=500)
    context = run_context()
    given = workflow(webhook(retries=0), webhook("Other", retries=2))
    for posts in (2, 4):
        assert type(failed(context, given)) is UndeliveredError
        assert (len(messages(crm)), len(messages(crm, "other"))) == (2, posts)
    assert type(failed(context, given)) is UndeliverableError
    assert (len(messages(crm)), len(messages(crm, "other"))) == (2, 6)
    reports = context["ti"].xcom["return_value"]
    assert [report["attempts"] for report in reports.values()] == [2, 6]
    context["ti"].max_tries += 3  # cleared
    for name in ("out", "other"):
        crm.answer_with(name, status=200)
    assert [report["delivered"] for report in flow(context, given).values()] == [2, 2]


class Events(dict[Any, SimpleNamespace]):
    """``context["outlet_events"]``."""

    def __missing__(self, asset: Any) -> SimpleNamespace:
        return self.setdefault(asset, SimpleNamespace(extra={}))


def emitted(given: Workflow, context: dict[str, Any]) -> dict[str, Any]:
    """Run the task to its end; return the events of the assets on its outlets."""
    events = context["outlet_events"] = Events()
    operator = task(given)
    operator.execute(context)
    assert all(asset in operator.outlets for asset in events)
    return {asset.name: events[asset].extra for asset in operator.outlets if isinstance(asset, Asset)}


def test_each_webhook_tells_its_own_asset(crm: RunningSandbox) -> None:
    """The asset of a webhook with undelivered payloads gets that webhook's report.

    The other asset gets no event.
    """
    ids = add_contacts(crm, 2)
    given = workflow(
        webhook(on_undelivered="report", undelivered_asset="dead_letters"),
        webhook("Other", on_undelivered="report", undelivered_asset="others"),
    )
    crm.answer_with("out", status=410, match=f'"CONTACT_ID":{ids[0]},')
    extras = emitted(given, context := run_context())
    assert set(extras) == {"dead_letters"}
    extra = extras["dead_letters"]
    assert (extra["total"], extra["delivered"], extra["webhooks"]) == (2, 1, ["out"])
    assert [item["record_id"] for item in extra["undelivered"]] == ids[:1]
    crm.answer_with("out", status=200)
    context["ti"].max_tries += 3
    assert emitted(given, context) == {}
    assert emitted(workflow(*given.webhooks, dry_run=True), run_context()) == {}


def test_webhooks_with_one_asset_make_one_event(crm: RunningSandbox) -> None:
    """Its event has the sum of the reports of webhooks with undelivered payloads."""
    add_contacts(crm, 2)
    names = ("out", "other", "third")
    given = workflow(
        *(Webhook(name=name, conn_id="other" if name == "third" else name) for name in names),
        on_undelivered="report",
        undelivered_asset="dead_letters",
    )
    crm.answer_with("other", status=410)
    extra = emitted(given, run_context())["dead_letters"]
    assert (extra["total"], extra["delivered"], extra["webhooks"]) == (4, 0, ["other", "third"])
    assert len(extra["undelivered"]) == 4


def test_the_task_fails_for_the_webhook_that_says_so(crm: RunningSandbox) -> None:
    """With "report" alone, the task succeeds. With both, it fails, in whatever order they come."""
    add_contacts(crm, 1)
    reported, must = webhook(on_undelivered="report"), webhook("Other")
    crm.answer_with("out", status=410)
    reports = flow(run_context(), workflow(reported, must))
    assert [report["delivered"] for report in reports.values()] == [0, 1]
    crm.answer_with("other", status=410)
    assert type(failed(run_context(), workflow(reported, must))) is UndeliverableError


def test_a_webhook_with_report_is_tried_to_its_end(crm: RunningSandbox) -> None:
    """Before the last attempt the task fails, so that Airflow tries it again."""
    add_contacts(crm, 1)
    crm.answer_with("out", status=500)
    context = run_context()
    context["ti"].try_number = 1
    given = workflow(webhook(on_undelivered="report", retries=1))
    failed(context, given)
    context["ti"].try_number = 2
    assert flow(context, given)["delivered"] == 0
    assert len(messages(crm)) == 2


def test_each_receiver_is_given_up_by_itself(crm: RunningSandbox, connect: Connect, logged: Logged) -> None:
    """A receiver that can't be reached so many times in a row is given up. The other one is not."""
    add_contacts(crm, 12)
    connect("out", host="http://127.0.0.1:9")
    context = run_context()
    error = failed(context, workflow(webhook(give_up_after=4, concurrency=1), OTHER_ONE), batch_size=6)
    assert (error.report["total"], error.report["delivered"]) == (24, 12)
    assert "couldn't be reached 4 times in a row" in error.report["undelivered"][-1]["error"]
    assert any("Out: nothing could be sent many times" in line for line in logged.messages("warning"))
    outcomes = [message.outcomes[-1].error for message in stored(context)]
    assert len([text for text in outcomes if text and "4 times in a row" in text]) == 8


def test_headers_of_each_webhook(crm: RunningSandbox) -> None:
    """Each receiver gets its own."""
    add_contacts(crm, 1)
    flow(run_context(), workflow(webhook(headers={"X-Team": "a"}), webhook("Other", headers={"X-Team": "b"})))
    found = [crm.received(name)[0]["headers"]["x-team"] for name in ("out", "other")]
    assert found == ["a", "b"]


# --- order -------------------------------------------------------------------------------------------------


def change(record_id: int, minute: int, **more: Any) -> Any:
    return {
        "record_type": "Contacts",
        "record_id": record_id,
        "event": "updated",
        "changed_at": f"2024-05-01T08:{minute:02}:00Z",
        "record": {"CONTACT_ID": record_id, "MINUTE": minute},
        **more,
    }


def batches(store: StateStore, *given: list[Any], max_tries: int = 2, ordered: bool = True) -> Any:
    """Deliver batches in one try; return what it stores, with its report under ``report``."""
    ti = TaskInstance()
    ti.max_tries = max_tries
    delivery = BatchDelivery(
        webhook(),
        DeliverySettings(ordered=ordered),
        "flow/Out",
        "Contacts",
        WebhookHook("out"),
        LedgerWriter(store, ti, 2, "out/"),
        dict,
        progress=DeliveryProgress(SimpleNamespace(info=lambda *_: None)),
        is_stopped=lambda: False,
        log=task(workflow()).log,
        ti=ti,
    )
    for batch in given:
        delivery.expect(batch)
        delivery.deliver(batch)
    report = delivery.report(is_read=True, report_count=1)
    return SimpleNamespace(may_go_on=delivery.may_go_on(), report=report)


def minutes(crm: RunningSandbox) -> list[tuple[int, int]]:
    """Return the received messages, as record and minute, in order."""
    entities = [json.loads(body)["entity"] for _, body in messages(crm)]
    return [(entity["CONTACT_ID"], entity["MINUTE"]) for entity in entities]


def reasons(outcome: Any) -> dict[int, str]:
    return {item["record_id"]: item["error"] for item in outcome.report["undelivered"]}


@pytest.mark.parametrize("size", [1, 2, 4])
def test_order_over_batches(crm: RunningSandbox, size: int) -> None:
    """A record's later change waits for its earlier one, from the same batch or an earlier one."""
    crm.answer_with("out", status=500, match='"MINUTE":1', times=1)
    changes = [change(1, 1), change(2, 5), change(1, 2), change(2, 6)]
    parts = [changes[start : start + size] for start in range(0, 4, size)]
    store = StateStore()
    first = batches(store, *parts)
    assert sorted(minutes(crm)) == [(1, 1), (2, 5), (2, 6)]
    assert [item["error"] for item in first.report["undelivered"]] == [
        "answered 500",
        "not sent: an earlier change of the same record is undelivered",
    ]
    assert first.may_go_on
    second = batches(store, *parts)
    assert minutes(crm)[3:] == [(1, 1), (1, 2)]
    assert (second.report["delivered"], second.report["attempts"]) == (4, 5)


def test_what_can_not_be_sent_holds_back_for_good(crm: RunningSandbox) -> None:
    """If a change is gone or can never be sent, no later change of its record is sent: no retry helps."""
    crm.answer_with("out", status=410, match='"MINUTE":1')
    store = StateStore()
    outcome = batches(store, [change(1, 1)], [change(1, 2)])
    assert minutes(crm) == [(1, 1)]
    assert not outcome.may_go_on
    crm.answer_with("out", status=500)
    batches(store, [change(3, 1)])
    crm.answer_with("out", status=200)
    # Its record has another change by the retry, like one that became visible late.
    again = batches(store, [change(1, 1)], [change(1, 2)], [change(3, 4)])
    assert minutes(crm) == [(1, 1), (3, 1)]
    assert not again.may_go_on
    assert "left the window" in next(
        item["error"] for item in again.report["undelivered"] if item["record_id"] == 3
    )
    unordered = batches(store, [change(1, 1)], [change(1, 2)], [change(3, 4)], ordered=False)
    assert minutes(crm)[2:] == [(1, 2), (3, 4)]
    assert unordered.report["delivered"] == 2


# --- log and report ----------------------------------------------------------------------------------------


def test_progress(crm: RunningSandbox, logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line counts the messages of all webhooks."""
    monkeypatch.setattr(progress_timer, "PROGRESS_INTERVAL", 0.0)
    add_contacts(crm, 6)
    flow(run_context(), workflow(webhook(), OTHER_ONE), batch_size=3)
    lines = [line for line in logged.messages("info") if "payloads sent to 2 receivers so far" in line]
    assert lines
    assert lines[-1].startswith("12 payloads sent to 2 receivers so far, 12 acknowledged, 0 failing, ")


def test_failures_are_listed(crm: RunningSandbox, logged: Logged) -> None:
    """The log has, for each webhook, what was sent and a table of failures."""
    ids = add_contacts(crm, 3)
    crm.answer_with("other", status=503)
    failed(run_context(), workflow(webhook(), OTHER_ONE))
    (delivered,) = [line for line in logged.messages("info") if line.startswith("Delivered: ")]
    assert all(f"Contacts {record_id} (" in delivered for record_id in ids)
    assert "3  answered 503" in logged.text


def test_metrics(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each webhook's deliveries are counted, as in a deliver task."""
    counts: Counter[str] = Counter()
    timed: list[str] = []
    monkeypatch.setattr(metrics.stats, "incr", lambda name, count=1, *, tags: counts.update({name: count}))
    monkeypatch.setattr(metrics.stats, "timing", lambda name, dt, *, tags: timed.append(name))
    add_contacts(crm, 3)
    crm.answer_with("other", status=503)
    failed(run_context(), workflow(webhook(), OTHER_ONE))
    assert counts == {
        "insightly_webhook.delivered": 3,
        "insightly_webhook.undelivered": 3,
        "insightly_webhook.attempts": 6,
    }
    assert timed == ["insightly_webhook.latency"] * 6


def test_a_request_for_a_record_that_has_left_the_window(crm: RunningSandbox) -> None:
    """It can't be built again. The task reports it and fails, even with "report".

    So does the delivery record.
    """
    left, there = add_contacts(crm, 2, DATE_CREATED_UTC="2024-01-01 00:00:00")
    given = workflow(webhook(on_undelivered="report"), OTHER_ONE)
    context = run_context()
    flow(context, given)
    update(crm, left, "2024-05-03")
    ask_again(context, {"out/": {**message_of(context, left), **message_of(context, there)}})
    error = failed(context, given)
    assert type(error) is UndeliverableError
    (item,) = error.report["undelivered"]
    assert (item["record_id"], item["attempts"]) == (left, 0)
    assert "its record has left the window" in item["error"]
    assert record_ids(crm)[2:] == [there]
    assert len(messages(crm, "other")) == 2
    assert states(context) == {left: "unsent", there: "delivered"}
    (message,) = [m for m in stored(context) if m.about is not None and m.about.record_id == left]
    assert "left the window" in (message.outcomes[-1].error or "")


def test_links(crm: RunningSandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are links to the records, to the page of a single receiver, and to the task's deliveries."""
    connect("out", host="https://receiver.example.com", extra={"web_url": "https://receiver.example.com/p"})
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com/base/")
    connect("insightly_default", "insightly", host="na1", password="a-made-up-key")
    key: Any = SimpleNamespace(dag_id="d", run_id="manual__1+2", task_id="flow", map_index=3)
    one = task(workflow(webhook(), webhook("Later", after="1d")), pending_dag_id="p")
    assert WorkflowRecordsLink().get_link(one, ti_key=key) == "https://crm.na1.insightly.com/list/Contact/"
    assert ReceiverLink().get_link(one, ti_key=key) == "https://receiver.example.com/p"
    assert ReceiverLink().get_link(task(workflow(webhook(), OTHER_ONE)), ti_key=key) == ""
    assert DeliveriesLink().get_link(one, ti_key=key) == (
        "/base/insightly/deliveries?dag_id=d&run_id=manual__1%2B2&task_id=flow&map_index=3"
    )
    with DAG("dag", schedule=None) as dag:
        task(workflow())
    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert again.get_task("flow").extra_links == ["Deliveries", "Receiver", "Records in Insightly"]
