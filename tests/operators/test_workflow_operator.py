"""A workflow in one task: the same messages as from its DAG, each acknowledged once, or reported."""

from __future__ import annotations

import json
import multiprocessing
import os
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, CronTriggerTimetable, task_group
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import TaskDeferred
from airflow.serialization.serialized_objects import DagSerialization

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.delivery.delivery_record import about_of
from airflow_insightly_hooks.core.delivery.report_types import Report
from airflow_insightly_hooks.core.delivery.resend_requests import ResendRequest, add_request
from airflow_insightly_hooks.core.delivery.stored_deliveries import StoredLedger, StoredMessage
from airflow_insightly_hooks.core.errors import (
    InvalidConnection,
    InvalidWindow,
    InvalidWorkflow,
    LostCursor,
    StoppedError,
    SupersededError,
    UndeliveredError,
)
from airflow_insightly_hooks.core.exact_json import loads
from airflow_insightly_hooks.hooks.api.api_errors import InsightlyAPIError
from airflow_insightly_hooks.hooks.api.client import Answer, Client
from airflow_insightly_hooks.hooks.insightly import InsightlyHook, SearchPage
from airflow_insightly_hooks.hooks.webhook import WebhookHook
from airflow_insightly_hooks.operators.delivery.concurrent_posts import ConcurrentPosts
from airflow_insightly_hooks.operators.delivery.outcome import MissingPayloadsError
from airflow_insightly_hooks.operators.one_task import batch_reading as reading
from airflow_insightly_hooks.operators.retry import RetryAfterPolicy
from airflow_insightly_hooks.operators.webhook import UndeliverableError
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.conftest import Connect, Logged, StateStore, TaskInstance, ended, run_context
from tests.deliveries import CANARY
from tests.operators.conftest import PASSWORD

pytestmark = pytest.mark.usefixtures("nothing_logged")

START = datetime(2024, 5, 1, tzinfo=timezone.utc)
WINDOW = {"start": "2024-05-01T00:00:00Z", "end": "2024-05-02T00:00:00Z"}
FRANCE = {"field": "ADDRESS_MAIL_COUNTRY", "operator": "equals", "value": "France"}
OUT = Webhook(name="Out", conn_id="out")
OTHER = Webhook(
    name="Other one", conn_id="other", fields=["CONTACT_ID", "DATE_UPDATED_UTC"], date_format="iso8601"
)


def workflow(*webhooks: Webhook, **arguments: Any) -> Workflow:
    arguments = {"name": "New contacts", "record_type": "Contacts", "settle": 0, **arguments}
    return Workflow(webhooks=list(webhooks or [OUT]), **arguments)


def add_contacts(crm: RunningSandbox, count: int, **fields: Any) -> list[int]:
    """Add contacts a second apart, from noon of the window's day on; return their ids."""
    noon = START + timedelta(hours=12)
    times = [f"{noon + timedelta(seconds=i):%Y-%m-%d %H:%M:%S}" for i in range(count)]
    return crm.create_many(
        "Contacts",
        [
            {"FIRST_NAME": CANARY, "DATE_CREATED_UTC": time, "DATE_UPDATED_UTC": time, **fields}
            for time in times
        ],
    )


def update(crm: RunningSandbox, record_id: int, day: str) -> None:
    crm.update("Contacts", record_id, DATE_UPDATED_UTC=f"{day} 13:00:00")


def task(given: Workflow, **arguments: Any) -> InsightlyWorkflowOperator:
    return InsightlyWorkflowOperator(task_id="flow", workflow=given, **{"window": WINDOW, **arguments})


def flow(context: dict[str, Any], given: Workflow, **arguments: Any) -> Any:
    """Run the task; return its report."""
    return task(given, **arguments).execute(context)


def failed(context: dict[str, Any], given: Workflow, **arguments: Any) -> UndeliveredError:
    """Run a task that leaves something undelivered; return its error."""
    with pytest.raises(UndeliveredError) as caught:
        flow(context, given, **arguments)
    assert CANARY not in str(caught.value) + json.dumps(context["ti"].xcom)
    return caught.value


def messages(crm: RunningSandbox, name: str = "out") -> list[tuple[str, str]]:
    """Return the messages in a bin: ids and bodies."""
    return [(kept["headers"]["webhook-id"], kept["body"]) for kept in crm.received(name)]


def record_ids(crm: RunningSandbox, name: str = "out") -> list[int]:
    return [json.loads(body)["entity"]["CONTACT_ID"] for _, body in messages(crm, name)]


def run_the_dag(given: Workflow) -> None:
    """Run the tasks of the workflow's own DAG, one after another, over the same window."""
    dag = given.to_dag(auto_register=False)
    results: dict[str, Any] = {}
    for name in sorted(
        dag.task_dict, key=lambda name: ("detect", "evaluate", "build", "deliver").index(name.split("_")[0])
    ):
        operator = dag.task_dict[name]
        context = run_context(ti=TaskInstance(given.dag_id, name))
        context["ti"].others["detect", "window"] = WINDOW
        if name == "detect":
            operator.window = WINDOW
        elif name == "evaluate":
            operator.changes = results["detect"]
        elif name.startswith("build"):
            operator.changes = results["evaluate"]
        else:
            operator.payloads = results[name.replace("deliver", "build")]
        # As through XCom's database.
        results[name] = json.loads(json.dumps(operator.execute(context)))


# --- arguments -------------------------------------------------------------------------------------------


def test_arguments() -> None:
    """Invalid arguments are refused when the DAG is parsed, with their place. A URI's text is never shown."""
    for wrong in ({"batch_size": 0}, {"batch_size": 10_001}, {"on_undelivered": "ignore"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            task(workflow(), **wrong)
    with pytest.raises(ValueError, match="Workflow"):
        task({"name": "New contacts"})  # type: ignore[arg-type]
    later = Webhook(name="Later", conn_id="out", after="1d")
    bad = Webhook(name="Bad", uri=f"ftp://receiver.example.com/?token={PASSWORD}")
    with pytest.raises(InvalidWorkflow, match="to_dag") as caught:
        task(workflow(OUT, later, bad))
    assert [path for path, _ in caught.value.problems] == ["webhooks[1]", "webhooks[2]"]
    assert PASSWORD not in str(caught.value)


def test_defaults() -> None:
    """There are three attempts, as in WebhookOperator; the DAG's setting counts. Two fields are rendered."""
    operator = task(workflow())
    assert (operator.retries, operator.retry_delay) == (2, timedelta(seconds=60))
    assert isinstance(operator.retry_policy, RetryAfterPolicy)
    assert InsightlyWorkflowOperator.template_fields == ("window", "cursor")
    with DAG("dag", schedule=None, default_args={"retries": 5, "retry_policy": None}) as dag:
        operator = task(workflow(evaluate="until_triggered", criteria=FRANCE), doc_yaml=None)
    assert (operator.retries, operator.retry_policy, operator.max_active_tis_per_dag) == (5, None, 1)
    assert "France" not in json.dumps(DagSerialization.to_dict(dag))
    assert dag.partial_subset("flow").get_task("flow").workflow == operator.workflow  # it can be copied


# --- one try ---------------------------------------------------------------------------------------------


def test_same_messages_as_the_dag(crm: RunningSandbox) -> None:
    """For each webhook, receivers get the same ids and bodies as from the workflow's own DAG."""
    add_contacts(crm, 4, ADDRESS_MAIL_COUNTRY="France")
    add_contacts(crm, 2, ADDRESS_MAIL_COUNTRY="Spain")
    old = crm.create("Contacts", DATE_CREATED_UTC="2024-01-01 00:00:00", ADDRESS_MAIL_COUNTRY="france")
    update(crm, old["CONTACT_ID"], "2024-05-01")
    given = workflow(
        OUT,
        OTHER,
        criteria={"all": [FRANCE, {"field": "DATE_UPDATED_UTC", "operator": "after", "value": "now-1d"}]},
    )
    run_the_dag(given)
    names = ("out", "other")
    by_dag = {name: sorted(messages(crm, name)) for name in names}
    assert len(by_dag["out"]) == 5
    reports = flow(run_context(), given, batch_size=2)
    assert {name: sorted(messages(crm, name)[5:]) for name in names} == by_dag
    assert list(reports) == ["out", "other_one"]
    assert [(r["total"], r["delivered"], r["attempts"]) for r in reports.values()] == [(5, 5, 5)] * 2


def test_custom_fields_as_in_the_dag(crm: RunningSandbox) -> None:
    """Multi-selects and custom dates work as in the DAG. Insightly is asked for them once."""
    fields = {field["FIELD_TYPE"]: field for field in InsightlyHook().custom_fields("Contacts")}
    several, date = fields["MULTISELECT"], fields["DATE"]["FIELD_NAME"]
    name = several["FIELD_NAME"]
    one, two = (option["OPTION_VALUE"] for option in several["CUSTOM_FIELD_OPTIONS"][:2])
    add_contacts(crm, 1)
    for value in (f"{one};{two}", one, two):
        custom = {name: value, date: "2024-05-01 00:00:00"}
        add_contacts(crm, 1, CUSTOMFIELDS=[{"FIELD_NAME": n, "FIELD_VALUE": v} for n, v in custom.items()])
    whole = workflow(criteria={"field": name, "operator": "contains", "value": two})
    part = workflow(criteria={"field": name, "operator": "contains", "value": two[:-1]})
    run_the_dag(whole)
    by_dag = sorted(messages(crm))
    assert len(by_dag) == 2
    assert all("Date(1714" in body for _, body in by_dag)
    asked = crm.configure()["requests"]["GET /v3.1/CustomFields/Contacts"]
    flow(run_context(), whole, batch_size=1)
    assert sorted(messages(crm)[2:]) == by_dag
    assert crm.configure()["requests"]["GET /v3.1/CustomFields/Contacts"] == asked + 1
    assert flow(run_context(), part)["total"] == 0


def test_criteria_are_parsed_once(
    crm: RunningSandbox, parsed_criteria: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are parsed once for all pages, though a page's multi-selects may need another compilation."""
    monkeypatch.setattr(reading, "PAGE", 2)
    add_contacts(crm, 2)
    add_contacts(crm, 1, CUSTOMFIELDS=[{"FIELD_NAME": "Interests__c", "FIELD_VALUE": "Music"}])
    option = {"field": "Interests__c", "operator": "not_contains", "value": "Music"}
    criteria = {"all": [option, {"field": "DATE_CREATED_UTC", "operator": "before", "value": "now"}]}
    operator = task(workflow(criteria=criteria), batch_size=1)
    parsed_criteria.clear()
    assert operator.execute(run_context())["total"] == 2
    assert parsed_criteria == [criteria]


def test_templates_are_rendered(crm: RunningSandbox) -> None:
    """Templates in criteria and receivers are rendered as in the DAG's tasks. No operator shows them."""
    wanted, _ = add_contacts(crm, 1, LAST_NAME="Wanted"), add_contacts(crm, 1, LAST_NAME="Unwanted")
    given = workflow(
        Webhook(name="Out", uri="http://{{ params.host }}/bin/out"),
        criteria={"field": "LAST_NAME", "operator": "equals", "value": "{{ params.last_name }}"},
    )
    host = crm.url.removeprefix("http://")
    flow(run_context(params={"host": host, "last_name": "Wanted"}), given)
    assert record_ids(crm) == wanted


def test_report(crm: RunningSandbox, logged: Logged) -> None:
    """The report has WebhookOperator's form. The window goes to XCom; counts and ids go to the log."""
    add_contacts(crm, 3)
    context = run_context()
    report = flow(context, workflow())
    assert set(report) == set(Report.__annotations__) - {"undelivered_count", "left", "dry_run", "would_send"}
    assert (report["total"], report["delivered"], report["undelivered"]) == (3, 3, [])
    assert context["ti"].xcom == {"window": WINDOW}
    assert len(logged.messages("info")) == 3
    assert "3 records read" in logged.text


def test_the_delivery_record(crm: RunningSandbox) -> None:
    """It has each message of all batches and tries once, although acknowledged ones leave the ledger."""
    contacts = add_contacts(crm, 7)
    context = run_context()
    crm.answer_with("out", status=500, match=f'"CONTACT_ID":{contacts[3]},')
    with pytest.raises(UndeliveredError):
        flow(context, workflow(), batch_size=2)
    assert states(context) == {**dict.fromkeys(contacts, "delivered"), contacts[3]: "failed"}
    crm.answer_with("out", status=200)
    flow(context, workflow(), batch_size=2)
    assert states(context) == dict.fromkeys(contacts, "delivered")
    ask_again(context, {"out/": message_of(context, contacts[0])})
    before = len(messages(crm))
    crm.answer_with("out", status=500, times=1)
    with pytest.raises(UndeliveredError) as caught:
        flow(context, workflow(), batch_size=2)
    assert (caught.value.report["total"], caught.value.report["delivered"]) == (7, 6)
    report = flow(context, workflow(), batch_size=2)
    assert record_ids(crm)[before:] == [contacts[0]] * 2
    assert (report["total"], report["delivered"]) == (7, 7)
    assert states(context) == dict.fromkeys(contacts, "delivered")


def test_a_request_when_the_webhooks_have_changed(crm: RunningSandbox) -> None:
    """A new webhook sends nothing unasked. A request for a removed webhook fails the task."""
    contacts = add_contacts(crm, 3)
    context = run_context()
    flow(context, workflow())
    ask_again(context, {"out/": message_of(context, contacts[0])})
    flow(context, workflow(OUT, Webhook(name="Other", conn_id="other")), on_undelivered="report")
    assert record_ids(crm)[3:] == [contacts[0]]
    assert messages(crm, "other") == []
    ask_again(context, {"out/": message_of(context, contacts[1])}, "a2")
    with pytest.raises(MissingPayloadsError):
        flow(context, workflow(Webhook(name="Other", conn_id="other")))
    assert messages(crm, "other") == []


def stored(context: dict[str, Any]) -> list[StoredMessage]:
    def get(key: str) -> Any:
        return context["task_state_store"].get(f"out/{key}")

    ledger = StoredLedger.find(get)
    assert ledger is not None
    return list(ledger.messages(get))


def states(context: dict[str, Any]) -> dict[int, str]:
    found = [(m.about.record_id, m.state) for m in stored(context) if m.about is not None]
    assert len(dict(found)) == len(found)
    return dict(found)


def message_of(context: dict[str, Any], record_id: int) -> dict[str, str]:
    of_record = [m for m in stored(context) if m.about is not None and m.about.record_id == record_id]
    return {m.message_id: about_of(*m.about) for m in of_record if m.about is not None}


def ask_again(context: dict[str, Any], messages: dict[str, dict[str, str]], request_id: str = "a1") -> None:
    request = ResendRequest(request_id, "somebody", "2026-01-01T00:00:00Z", True, messages)
    assert add_request(context["task_state_store"], request, begun=())
    context["ti"].max_tries += 3


def test_nothing_changed(crm: RunningSandbox) -> None:
    """Without changes, or if it isn't active, the task succeeds with an empty report."""
    assert flow(run_context(), workflow())["total"] == 0
    add_contacts(crm, 3)
    report = flow(run_context(), workflow(active=False))
    assert (report["total"], messages(crm)) == (0, [])


def test_unknown_fields(crm: RunningSandbox, logged: Logged) -> None:
    """A field that no record has is logged once, with a suggestion."""
    add_contacts(crm, 3)
    criteria = {"field": "FRIST_NAME", "operator": "is_blank"}
    unchecked = workflow().model_copy(update={"criteria": criteria})  # as a template may render
    flow(run_context(), unchecked, batch_size=1)
    assert logged.messages("warning") == [
        "No record of Contacts has a field FRIST_NAME: it counts as blank; did you mean 'FIRST_NAME'?"
    ]


def test_receivers_are_checked_first(crm: RunningSandbox) -> None:
    """If one receiver is unusable, nothing is sent to any."""
    add_contacts(crm, 1)
    with pytest.raises(InvalidConnection):
        flow(
            run_context(params={"host": "x.example"}),
            workflow(OUT, Webhook(name="Bad", uri="ftp://{{ params.host }}")),
        )
    assert messages(crm) == []


# --- several tries ---------------------------------------------------------------------------------------


def test_retry_sends_what_is_missing(crm: RunningSandbox) -> None:
    """A retry POSTs only what is not acknowledged, under the same id. A third try POSTs nothing."""
    ids = add_contacts(crm, 7)
    crm.answer_with(
        "out", status=503, match=f'"CONTACT_ID":{ids[3]},', times=1, headers={"Retry-After": "77"}
    )
    context = run_context()
    error = failed(context, workflow(), batch_size=2)
    assert (error.report["total"], error.report["delivered"], error.retry_after) == (7, 6, 77)
    (item,) = error.report["undelivered"]
    assert (item["record_id"], item["event"], item["status"], item["attempts"]) == (ids[3], "added", 503, 1)
    assert context["ti"].xcom["return_value"] == error.report
    report = flow(context, workflow(), batch_size=2)
    assert record_ids(crm)[7:] == [ids[3]]
    assert len({message for message, _ in messages(crm)}) == 7
    assert (report["total"], report["delivered"], report["attempts"]) == (7, 7, 8)
    assert flow(context, workflow(), batch_size=3)["attempts"] == 8
    assert len(messages(crm)) == 8


@pytest.mark.parametrize("retries", [0, 1, 2, 5])
def test_attempts(crm: RunningSandbox, retries: int) -> None:
    """A message has ``1 + retries`` attempts. Then nothing is retried until the task is cleared."""
    add_contacts(crm, 2)
    crm.answer_with("out", status=500)
    context = run_context()
    for _ in range(retries):
        assert type(failed(context, workflow(), retries=retries)) is UndeliveredError
    error = failed(context, workflow(), retries=retries)
    assert type(error) is UndeliverableError
    assert error.report["attempts"] == 2 * (1 + retries)
    failed(context, workflow(), retries=retries)
    assert len(messages(crm)) == 2 * (1 + retries)
    context["ti"].max_tries = 9
    crm.answer_with("out", status=200)
    assert flow(context, workflow(), retries=retries)["delivered"] == 2


def test_one_of_two_webhooks_fails(crm: RunningSandbox) -> None:
    """Each webhook is reported and retried separately."""
    add_contacts(crm, 3)
    crm.answer_with("other", status=410, times=1)
    context = run_context()
    error = failed(context, workflow(OUT, OTHER))
    assert type(error) is UndeliverableError
    assert (error.report["total"], error.report["delivered"]) == (6, 5)
    reports = context["ti"].xcom["return_value"]
    assert [(r["total"], r["delivered"]) for r in reports.values()] == [(3, 3), (3, 2)]
    reports = flow(context, workflow(OUT, OTHER), on_undelivered="report")
    assert reports["other_one"]["undelivered"][0]["error"].startswith("the receiver said in an earlier try")
    assert (len(messages(crm)), len(messages(crm, "other"))) == (3, 3)


def test_receiver_that_cannot_be_reached(crm: RunningSandbox, connect: Connect) -> None:
    """After 20 failures in a row it is given up. The rest is counted, and the retry sends it."""
    add_contacts(crm, 60)
    connect("out", host="http://127.0.0.1:9")
    context = run_context()
    error = failed(context, workflow(), batch_size=30)
    assert (error.report["total"], error.report["delivered"], error.report["attempts"]) == (60, 0, 0)
    assert "couldn't be reached" in error.report["undelivered"][-1]["error"]
    connect("out", host=crm.bin_url("out"))
    assert flow(context, workflow(), batch_size=30)["delivered"] == 60
    assert len(messages(crm)) == 60


def test_record_that_left_the_window(crm: RunningSandbox) -> None:
    """A failed message whose record has left the window by the retry is reported. Others are delivered."""
    failing, arrived = add_contacts(crm, 2, DATE_CREATED_UTC="2024-01-01 00:00:00")
    crm.answer_with("out", status=503, match=f'"CONTACT_ID":{failing},')
    context = run_context()
    failed(context, workflow())
    update(crm, failing, "2024-05-03")
    update(crm, arrived, "2024-05-03")
    crm.answer_with("out", status=200)
    error = failed(context, workflow())
    assert type(error) is UndeliverableError
    assert (error.report["total"], error.report["delivered"]) == (2, 1)
    (item,) = error.report["undelivered"]
    assert (item["record_id"], item["event"], item["attempts"]) == (failing, "updated", 1)
    assert "left the window" in item["error"]
    assert len(messages(crm)) == 2


ODD = {
    "null": {"CUSTOMFIELDS": [None]},
    "text": {"CUSTOMFIELDS": [CANARY]},
    "object": {"CUSTOMFIELDS": {CANARY: 1}},
    "name": {"CUSTOMFIELDS": [{"FIELD_NAME": {CANARY: 1}}]},
    "dates": {"DATES": [None]},
    "deep": {"DETAILS": loads("[" * 950 + "]" * 950)},
    "NaN": {"DETAILS": float("nan")},
    "time": {"DATE_UPDATED_UTC": CANARY},
    "id": {"CONTACT_ID": CANARY},
}


@pytest.mark.parametrize("evaluate", ["created_and_edited", "until_triggered"])
def test_bad_records_stop_only_themselves(
    crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch, logged: Logged, evaluate: str
) -> None:
    """The others are delivered in each try.

    Bad records are reported with ids and reasons, without contents.
    """
    added = add_contacts(crm, len(ODD) + 2, ADDRESS_MAIL_COUNTRY="France")
    odd = dict(zip(added[1:], ODD.values(), strict=False))
    get = Client.get

    def with_odd(*arguments: Any, **named: Any) -> Answer:
        answer = get(*arguments, **named)
        if not isinstance(answer.content, list):
            return answer
        return replace(answer, content=[{**r, **odd.get(r.get("CONTACT_ID"), {})} for r in answer.content])

    monkeypatch.setattr(Client, "get", with_odd)
    given = workflow(OUT, criteria=FRANCE, evaluate=evaluate)
    context = run_context(ti=TaskInstance())
    for _ in range(2):
        error = failed(context, given, batch_size=3)
        assert isinstance(error, UndeliverableError)
        assert sorted(record_ids(crm)) == [added[0], added[-1]]
        report = error.report
        assert (report["total"], report["delivered"]) == (len(ODD) + 2, 2)
        missing = {item["record_id"]: item["error"] for item in report["undelivered"]}
        assert set(missing) == {*added[1:-2], 0}
        assert all(item["attempts"] == 0 for item in report["undelivered"])
        assert missing[0] == "no body can be built: 1 record has no usable CONTACT_ID"
        assert missing[added[1]] == "no body can be built: CUSTOMFIELDS[0]: it must be an object, not null"
    assert len(logged.messages("error")) == 2 * len(ODD)


def test_numbers_are_sent_as_the_api_writes_them(crm: RunningSandbox) -> None:
    """This holds for the task in the same way as for the DAG."""
    (added,) = add_contacts(crm, 1)
    numbers = '{"A":1234567890123456.78,"B":1.10,"C":1E2,"D":1e400,"E":18446744073709551616,"F":-0.0}'
    crm.update("Contacts", added, NUMBERS=loads(numbers), DATE_UPDATED_UTC="2024-05-01 12:00:00")
    flow(run_context(), workflow(OUT))
    run_the_dag(workflow(OUT))
    (_, one), (_, other) = messages(crm)
    assert numbers in one
    assert one == other


def test_until_triggered(crm: RunningSandbox) -> None:
    """A record triggers once in all runs. A retry passes on the same records."""
    first = add_contacts(crm, 5)
    given = workflow(evaluate="until_triggered")
    context = run_context()
    crm.answer_with("out", status=503, match=f'"CONTACT_ID":{first[0]},', times=1)
    failed(context, given, batch_size=2)
    assert flow(context, given, batch_size=2)["delivered"] == 5
    for record_id in first[:2]:
        update(crm, record_id, "2024-05-02")
    next_day = "2024-05-02 12:00:00"
    (second,) = add_contacts(crm, 1, DATE_CREATED_UTC=next_day, DATE_UPDATED_UTC=next_day)
    again = {
        "task_state_store": StateStore(),
        "ti": TaskInstance(run_id="scheduled__2"),
        "asset_state_store": context["asset_state_store"],
    }
    following = {"start": WINDOW["end"], "end": "2024-05-03T00:00:00Z"}
    report = flow(run_context(**again), given, window=following)
    assert (report["total"], report["delivered"], record_ids(crm)[-1]) == (1, 1, second)
    assert any(store.get("triggered/new_contacts") for store in context["asset_state_store"].values())


def test_until_triggered_and_gone(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that was passed on but not sent before a crash, and has left the window since, is reported."""
    (record_id,) = add_contacts(crm, 1, DATE_CREATED_UTC="2024-01-01 00:00:00")
    given = workflow(evaluate="until_triggered")
    context = run_context()
    with monkeypatch.context() as patch:
        patch.setattr(ConcurrentPosts, "run", raising(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            flow(context, given)
    update(crm, record_id, "2024-05-03")
    error = failed(context, given)
    assert [item["record_id"] for item in error.report["undelivered"]] == [record_id]


def raising(error: type[BaseException] | BaseException) -> Callable[..., Any]:
    def fail(*_args: Any, **_named: Any) -> Any:
        raise error

    return fail


# --- how much it takes -----------------------------------------------------------------------------------


def peak_memory(count: int, connections: dict[str, str], results: Any) -> None:
    """Deliver so many changes in a separate process; return its peak memory in bytes."""
    from airflow_insightly_hooks.hooks.webhook import PostResult

    os.environ.update(connections)
    ExecutorSafeguard.test_mode = True
    # The task is measured, not a receiver's speed.
    WebhookHook.send = lambda *_, **__: PostResult(acknowledged=True, status=200, elapsed=0.0)  # type: ignore[method-assign]
    given = workflow(criteria={"field": "LAST_NAME", "operator": "equals", "value": f"{count}"})
    store = StateStore()
    context = run_context(task_state_store=store)
    flow(run_context(), workflow(), window={"start": WINDOW["end"], "end": "2024-05-02T00:00:01Z"})
    tracemalloc.start()
    report = flow(context, given, batch_size=200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    again = flow(context, given, batch_size=200)
    results.put((report, again, peak, len(json.dumps(context["ti"].xcom)), len(store.values)))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_memory_is_constant(crm: RunningSandbox) -> None:
    """Three times as many changes take little more memory, since only ids are kept. A retry POSTs nothing."""
    spawn = multiprocessing.get_context("spawn")
    connections = {name: value for name, value in os.environ.items() if name.startswith("AIRFLOW_CONN_")}
    peaks = {}
    for count in (2_000, 6_000):
        crm.create_many(
            "Contacts",
            (
                {
                    "LAST_NAME": str(count),
                    "BACKGROUND": "x" * 1_000,
                    "DATE_CREATED_UTC": "2024-05-01 12:00:00",
                    "DATE_UPDATED_UTC": "2024-05-01 12:00:00",
                }
                for _ in range(count)
            ),
        )
        results = spawn.Queue()
        process = spawn.Process(target=peak_memory, args=(count, connections, results))
        process.start()
        report, again, peaks[count], xcom, values = results.get(timeout=150)
        process.join()
        assert (report["total"], report["delivered"], report["attempts"]) == (count, count, count)
        assert (again["delivered"], again["attempts"]) == (count, count)
        assert xcom < 1_000
        assert values < 20 + count / 200
    # In bytes, with the store in this process; a change takes some 3,000. By chance, a whole batch of
    # 1,000 was read ahead at the peak, or none.
    assert peaks[6_000] - peaks[2_000] < 750 * 4_000 + 3_000 * 1_000, peaks


# --- what stops it ---------------------------------------------------------------------------------------


class Crashing(StateStore):
    """A store that fails from its n-th write on, as when the task is killed."""

    def __init__(self, values: dict[str, str], writes_left: int) -> None:
        super().__init__()
        self.values, self.writes_left = values, writes_left

    def set(self, key: str, value: Any, **how: Any) -> None:
        if self.writes_left == 0:
            raise KeyboardInterrupt
        self.writes_left -= 1
        super().set(key, value, **how)

    def delete(self, key: str) -> None:
        if self.writes_left == 0:
            raise KeyboardInterrupt
        self.writes_left -= 1
        super().delete(key)


@pytest.mark.parametrize("evaluate", ["created", "until_triggered"])
def test_crash_at_any_write(crm: RunningSandbox, evaluate: str) -> None:
    """Whichever write fails, the retry delivers all, and acknowledged messages aren't sent again."""
    count, batch = 9, 3
    add_contacts(crm, count)
    given = workflow(Webhook(name="Out", conn_id="out", concurrency=1), evaluate=evaluate)
    for crash in range(2, 80):
        values: dict[str, str] = {}
        context = run_context(task_state_store=Crashing(values, crash))
        before = len(messages(crm))
        try:
            flow(context, given, batch_size=batch)
            break
        except KeyboardInterrupt:
            pass
        sent = [message for message, _ in messages(crm)[before:]]
        context["task_state_store"] = Crashing(values, 10_000)
        report = flow(context, given, batch_size=batch)
        assert (report["total"], report["delivered"]) == (count, count), crash
        all_sent = [message for message, _ in messages(crm)[before:]]
        assert len(set(all_sent)) == count
        # At most the last batch's running POSTs since the last write are in doubt.
        assert len(all_sent) <= count + batch, (crash, len(sent))
    else:
        pytest.fail("it never came to the end")
    assert crash > 10


def test_reading_fails_half_way(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes read before the failure are delivered once. The retry delivers the rest; the cursor waits."""
    monkeypatch.setattr(reading, "PAGE", 2)
    ids = add_contacts(crm, 6)
    read_pages = InsightlyHook.read_pages

    def broken(self: InsightlyHook, *args: Any, **named: Any) -> Iterator[SearchPage]:
        for page in read_pages(self, *args, **named):
            if ids[4] in [record["CONTACT_ID"] for record in page.records]:
                raise InsightlyAPIError("insightly_default", "/Contacts", "half-way")
            yield page

    interval = {"data_interval_start": START, "data_interval_end": START + timedelta(days=1)}
    context = run_context(**interval)
    with monkeypatch.context() as patch:
        patch.setattr(InsightlyHook, "read_pages", broken)
        with pytest.raises(InsightlyAPIError):
            flow(context, workflow(), window=None, batch_size=2)
    assert len(messages(crm)) == 4
    assert not any(store.values for store in context["asset_state_store"].values())
    assert flow(context, workflow(), window=None, batch_size=2)["delivered"] == 6
    assert len(messages(crm)) == 6
    assert any(
        store.get("cursor/dag/task") == WINDOW["end"] for store in context["asset_state_store"].values()
    )


def test_stop(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped task sends nothing more, fails, and continues in its next try."""
    add_contacts(crm, 6)
    context = run_context()
    operator = task(workflow(), batch_size=2)
    send = WebhookHook.send

    def stopping(self: WebhookHook, *args: Any, **named: Any) -> Any:
        operator.on_kill()
        return send(self, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(WebhookHook, "send", stopping)
        with pytest.raises(StoppedError):
            operator.execute(context)
    assert len(messages(crm)) <= 2
    assert flow(context, workflow(), batch_size=2)["delivered"] == 6
    assert len(messages(crm)) == 6


def test_a_later_try_takes_over(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A try that is still running when the next one begins sends and reports nothing more."""
    add_contacts(crm, 4)
    context = run_context()
    run = ConcurrentPosts.run

    def overtaken(self: ConcurrentPosts) -> None:
        run(self)
        monkeypatch.setattr(ConcurrentPosts, "run", run)
        flow({**context, "ti": TaskInstance()}, workflow(), batch_size=2)

    monkeypatch.setattr(ConcurrentPosts, "run", overtaken)
    with pytest.raises(SupersededError):
        flow(context, workflow(), batch_size=2)
    assert len(messages(crm)) == 4
    assert "return_value" not in context["ti"].xcom


# --- its window ------------------------------------------------------------------------------------------


def test_cursor(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first run begins now. The next one continues there, and its retry reads the same window."""
    store = run_context()
    flow(store, workflow(), window=None)
    crm.configure(clock_offset=60)
    (record_id,) = crm.create_many("Contacts", [{"FIRST_NAME": CANARY}])
    crm.configure(clock_offset=120)
    context = run_context(asset_state_store=store["asset_state_store"])
    crm.answer_with("out", status=503, times=1)
    failed(context, workflow(), window=None)
    window = context["ti"].xcom["window"]
    context["ti"].xcom.clear()  # as Airflow does before a retry
    with monkeypatch.context() as patch:
        patch.setattr(InsightlyHook, "server_time", raising(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            flow(context, workflow(), window=None)
    assert context["ti"].xcom["window"] == window  # the cursor is after it
    crm.configure(clock_offset=180)
    report = flow(context, workflow(), window=None)
    assert (report["delivered"], record_ids(crm)) == (1, [record_id, record_id])
    assert context["ti"].xcom["window"] == window
    following = run_context(asset_state_store=store["asset_state_store"])
    flow(following, workflow(), window=None)
    assert following["ti"].xcom["window"]["start"] == window["end"]


@pytest.mark.parametrize(
    ("of_workflow", "of_task", "cursor"),
    [(None, None, "dag/task"), ("contacts", None, "contacts"), ("contacts", "own", "own")],
)
def test_name_of_the_cursor(
    crm: RunningSandbox, of_workflow: str | None, of_task: str | None, cursor: str
) -> None:
    """The argument's name comes first, then the workflow's, then the task's ids."""
    context = run_context()
    flow(context, workflow(cursor=of_workflow), window=None, cursor=of_task)
    (store,) = context["asset_state_store"].values()
    keys = [key for key in store.values if key.startswith("cursor/")]
    assert keys == [f"cursor/{cursor}", f"cursor/{cursor}~a"]


def test_failed_try_fixes_the_window(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a run fails while it reads, its retry has the same window, and the cursor stays."""
    first = run_context()
    flow(first, workflow(), window=None)
    crm.configure(clock_offset=60)
    context = run_context(asset_state_store=first["asset_state_store"])
    with monkeypatch.context() as patch:
        failure = InsightlyAPIError("insightly_default", "/Contacts", "it failed")
        patch.setattr(InsightlyHook, "read_pages", raising(failure))
        with pytest.raises(InsightlyAPIError):
            flow(context, workflow(), window=None)
    window = context["ti"].xcom["window"]
    crm.configure(clock_offset=120)
    other = run_context(asset_state_store=first["asset_state_store"])
    flow(other, workflow(), window=None)
    assert other["ti"].xcom["window"]["start"] == window["start"]  # the next run covers it, too
    flow(context, workflow(), window=None)
    assert context["ti"].xcom["window"] == window


def test_lost_cursor(crm: RunningSandbox) -> None:
    """A lost cursor is an error."""
    context = run_context()
    context["ti"].previous["success"] = [ended("scheduled__0", START)]
    with pytest.raises(LostCursor):
        flow(context, workflow(), window=None)


def test_settling(crm: RunningSandbox) -> None:
    """The task waits for a window that settles within seconds. Otherwise it is deferred until then."""
    given = workflow(settle=3, criteria={"field": "FIRST_NAME", "operator": "equals", "value": CANARY})
    crm.create("Contacts", FIRST_NAME=CANARY)
    now = datetime.now(timezone.utc)
    start = (now - timedelta(seconds=30)).isoformat()
    report = flow(run_context(), given, window={"start": start, "end": now.isoformat()})
    assert report["delivered"] == 1
    assert (datetime.now(timezone.utc) - now).total_seconds() > 2
    later = {"start": start, "end": (now + timedelta(seconds=300)).isoformat()}
    operator = task(given, window=later)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(run_context())
    assert deferred.value.method_name == "execute_complete"
    look_at = datetime.fromisoformat(deferred.value.trigger.look_at.replace("Z", "+00:00"))
    assert 290 < (look_at - now).total_seconds() < 310
    crm.configure(clock_offset=305)
    assert task(given, window=later).execute_complete(run_context(), {"reason": "settled"})["total"] == 1


def test_what_woke_it_settles_first(crm: RunningSandbox, logged: Logged) -> None:
    """A run that a watcher has woken reads at least up to the changes that its events announce."""
    now = datetime.now(timezone.utc).replace(microsecond=0)
    until = now + timedelta(seconds=4)
    event = SimpleNamespace(extra={"payload": {"since": now.isoformat(), "until": until.isoformat()}})
    woken = {"triggering_asset_events": {Asset(name="changes", uri="x://changes"): [event]}}
    context = run_context(**woken)
    crm.create("Contacts", FIRST_NAME=CANARY)
    given = workflow(settle=0, criteria={"field": "FIRST_NAME", "operator": "equals", "value": CANARY})
    assert flow(context, given, window=None)["delivered"] == 1
    assert "The change that woke this run settles in" in logged.text
    assert api_time(context["ti"].xcom["window"]["end"]) >= until


def test_gap_is_told(crm: RunningSandbox, logged: Logged) -> None:
    """If no run has read the time before a scheduled interval, the log warns of it."""
    context = run_context(
        data_interval_start=START + timedelta(hours=1), data_interval_end=START + timedelta(hours=2)
    )
    flow(context, workflow(), window=None)
    assert logged.messages("warning") == []
    late = context | {
        "ti": TaskInstance(),
        "task_state_store": StateStore(),
        "data_interval_start": START + timedelta(hours=3),
        "data_interval_end": START + timedelta(hours=4),
    }
    flow(late, workflow(), window=None)
    warning, *_ = logged.messages("warning")
    assert warning.startswith("No run has read [2024-05-01T02:00:00Z, 2024-05-01T03:00:00Z)")


def test_map_indexes_that_would_share_a_cursor_are_refused() -> None:
    """They are refused when the DAG is parsed. A cursor for each of them works."""
    for cursor, is_fine in ((None, False), ("shared", False), ("{{ ti.map_index }}", True)):
        with DAG("dag", schedule=None):

            @task_group
            def of_city(city: Any, cursor: str | None = cursor) -> None:
                task(workflow(), cursor=cursor, window=None)

            if is_fine:
                of_city.expand(city=["Berlin", "Paris"])
            else:
                with pytest.raises(ValueError, match="would share"):
                    of_city.expand(city=["Berlin", "Paris"])


def test_a_backfill_of_a_plain_schedule_reads_up_to_its_own_time(crm: RunningSandbox) -> None:
    """It reads from the schedule's previous time on. If that is unknown, nothing is read."""
    add_contacts(crm, 1)
    noon = START + timedelta(hours=12)
    run = SimpleNamespace(run_type="backfill", logical_date=noon + timedelta(hours=1))
    dag = SimpleNamespace(timetable=CronTriggerTimetable("0 * * * *", timezone="UTC"))
    report = flow(run_context(dag_run=run, dag=dag), workflow(), window=None)
    assert report["total"] == 1
    before = crm.configure()["requests"]
    with pytest.raises(InvalidWindow, match="backfill"):
        flow(run_context(dag_run=run), workflow(), window=None)
    assert crm.configure()["requests"] == before
