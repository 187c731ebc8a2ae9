"""The tasks of time triggers: they schedule, store, take and wake."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from airflow.sdk import DAG, Asset
from airflow.sdk.exceptions import AirflowSkipException, DagRunTriggerException, DownstreamTasksSkipped

from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.errors import (
    InsightlyHooksError,
    InvalidCriteria,
    InvalidPayload,
    InvalidState,
)
from airflow_insightly_hooks.core.state.pending_request import request_conf
from airflow_insightly_hooks.core.state.pending_webhooks import PendingWebhook, PendingWebhooks
from airflow_insightly_hooks.hooks.api.api_errors import InsightlyAccessError, InsightlyAPIError
from airflow_insightly_hooks.hooks.assets import records_asset
from airflow_insightly_hooks.hooks.insightly import InsightlyHook
from airflow_insightly_hooks.operators import pending as module
from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.operators.pending import (
    DueWebhooksOperator,
    ScheduleWebhooksOperator,
    TimeTrigger,
    WakeUpOperator,
)
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.conftest import API_KEY, Logged, TaskInstance, run_context
from tests.core.state.test_due_once import Power, PoweredStore
from tests.core.state.test_id_set import Crash

UTC = timezone.utc
NOW = datetime(2026, 1, 10, 8, tzinfo=UTC)
CHANGED_AT = "2026-01-10T08:00:00Z"
ASSET = records_asset("insightly_default", "Contacts")
BOOK = "pending/flow/later"


def change(record_id: int, **record: Any) -> dict[str, Any]:
    return {
        "record_type": "Contacts",
        "record_id": record_id,
        "event": "updated",
        "changed_at": CHANGED_AT,
        "record": {"CONTACT_ID": record_id, "FIRST_NAME": "Zoë", **record},
    }


# --- schedule ----------------------------------------------------------------------------------------------


def scheduling(changes: list[Any], *triggers: TimeTrigger) -> tuple[dict[str, Any], BaseException]:
    """Run the task; return its context, and how it ended."""
    with DAG("dag", schedule=None):
        operator = ScheduleWebhooksOperator(
            task_id="schedule", changes=changes, time_triggers=triggers, pending_dag_id="dag__pending"
        )
    context = run_context(ti=TaskInstance(task_id="schedule"))
    with pytest.raises((DagRunTriggerException, AirflowSkipException)) as ended:
        operator.execute(context)
    return context, ended.value


def test_each_change_gets_a_time_for_each_webhook() -> None:
    """It is relative to the trigger or to a date of the record.

    Ids and times are handed over, no contents.
    """
    triggers = (
        TimeTrigger("after", after=timedelta(days=3)),
        TimeTrigger("before", before=timedelta(days=1), field="DATE_OF_BIRTH"),
    )
    context, ended = scheduling([change(1, DATE_OF_BIRTH="2026-02-01 00:00:00")], *triggers)
    at = {"record_id": 1, "event": "updated", "changed_at": CHANGED_AT}
    assert context["ti"].xcom["pending"] == {
        "after": [{**at, "due": "2026-01-13T08:00:00Z"}],
        "before": [{**at, "due": "2026-01-31T00:00:00Z"}],
    }
    assert isinstance(ended, DagRunTriggerException)
    assert (ended.trigger_dag_id, ended.run_after, ended.reset_dag_run) == ("dag__pending", None, False)
    assert ended.conf == {
        "pending_from": {"dag_id": "dag", "run_id": "scheduled__1", "task_id": "schedule", "map_index": -1}
    }


def test_a_test_schedules_nothing() -> None:
    """It logs how many changes a run would schedule."""
    operator = ScheduleWebhooksOperator(
        task_id="schedule",
        changes=[change(1)],
        time_triggers=[TimeTrigger("w", after=timedelta(0))],
        pending_dag_id="dag__pending",
    )
    run = SimpleNamespace(run_type="manual", run_id="manual__1", triggering_user_name="dag_test")
    with pytest.raises(AirflowSkipException, match="would schedule 1 change"):
        operator.execute(run_context(dag_run=run))


def test_a_retry_triggers_the_same_run() -> None:
    """The run exists once, wherever the task was stopped."""
    trigger = TimeTrigger("w", after=timedelta(0))
    (_, first), (_, second) = scheduling([change(1)], trigger), scheduling([change(1)], trigger)
    assert isinstance(first, DagRunTriggerException)
    assert isinstance(second, DagRunTriggerException)
    assert first.dag_run_id == second.dag_run_id
    assert first.skip_when_already_exists


def test_a_cleared_task_that_schedules_else_triggers_another_run() -> None:
    """Records that were left out the first time, for example by other criteria, must not be lost."""
    trigger = TimeTrigger("w", after=timedelta(0))
    (_, first), (_, second) = scheduling([change(1)], trigger), scheduling([change(1), change(2)], trigger)
    assert isinstance(first, DagRunTriggerException)
    assert isinstance(second, DagRunTriggerException)
    assert first.dag_run_id != second.dag_run_id


def test_a_record_without_a_date_is_reported(logged: Logged) -> None:
    """It has no time, and is not silently lost."""
    context, ended = scheduling([change(7, DATE_OF_BIRTH=None)], TimeTrigger("w", field="DATE_OF_BIRTH"))
    assert isinstance(ended, AirflowSkipException)
    assert context["ti"].xcom["not_sent"] == [
        {"webhook": "w", "record_id": 7, "reason": "DATE_OF_BIRTH is empty"}
    ]
    assert logged.messages("warning") == ["w: record 7 is not sent: DATE_OF_BIRTH is empty"]


def test_many_that_are_not_sent_make_a_short_log(logged: Logged) -> None:
    """The XCom lists all of them."""
    changes = [change(i) for i in range(1, 151)]
    context, _ = scheduling(changes, TimeTrigger("w", field="DATE_OF_BIRTH"))
    assert len(context["ti"].xcom["not_sent"]) == 150
    assert logged.messages("warning")[-1] == "not sent: 50 more messages; the XCom not_sent lists all"


def test_what_cannot_be_delivered_goes_to_the_other_dag_at_once() -> None:
    """It has no time, and no criteria to meet. The other DAG's deliver tasks report it."""
    bad = {**change(2), "record": {}, "undeliverable": "its time is none"}
    context, ended = scheduling([change(1), bad], TimeTrigger("w", after=timedelta(days=3)))
    scheduled = context["ti"].xcom["pending"]
    assert [one["record_id"] for one in scheduled["w"]] == [1]
    assert scheduled["undeliverable records"] == [bad]
    assert isinstance(ended, DagRunTriggerException)
    _, alone = scheduling([bad], TimeTrigger("w", field="DATE_OF_BIRTH"))
    assert isinstance(alone, DagRunTriggerException)


# --- due ---------------------------------------------------------------------------------------------------


def due_task(**arguments: Any) -> DueWebhooksOperator:
    with DAG("flow__pending", schedule=None):
        due = DueWebhooksOperator(
            task_id="due", webhook="later", workflow="flow", record_type="Contacts", **arguments
        )
        build = BuildPayloadOperator(task_id="build", changes=due.output)
        due >> [build, WakeUpOperator(task_id="wake_up")]
    return due


def due_context(
    entries: list[dict[str, Any]] | None = None,
    assets: Any = None,
    cancel: list[int] | None = None,
    run_after: datetime = NOW,
) -> dict[str, Any]:
    context = run_context(
        ti=TaskInstance("flow__pending", "due"),
        dag_run=SimpleNamespace(run_type="operator_triggered", run_after=run_after, conf={}),
        params={"cancel": cancel or []},
        **({"asset_state_store": assets} if assets is not None else {}),
    )
    if entries is not None:
        source = {"dag_id": "flow", "run_id": "r", "task_id": "schedule", "map_index": -1}
        context["dag_run"].conf = {"pending_from": source}
        context["ti"].others["schedule", "pending"] = {"later": entries, "another": [entry(99)]}
    return context


def entry(record_id: int, due: str = CHANGED_AT, changed_at: str = CHANGED_AT) -> dict[str, Any]:
    return {"record_id": record_id, "due": due, "event": "updated", "changed_at": changed_at}


def pending_in(context: dict[str, Any]) -> PendingWebhooks:
    return PendingWebhooks(context["asset_state_store"][ASSET], BOOK)


def seeded(sandbox: RunningSandbox, number: int = 3) -> list[int]:
    return [sandbox.create("Contacts", FIRST_NAME=f"Zoë {i}")["CONTACT_ID"] for i in range(number)]


FAR = "2999-01-01T00:00:00Z"


def test_what_is_due_is_read_again(insightly: RunningSandbox) -> None:
    """The record is as it is now, with the event and time of the change that triggered."""
    now_due, later = seeded(insightly, 2)
    insightly.update("Contacts", now_due, FIRST_NAME="Zoë, later")
    context = due_context([entry(now_due), entry(later, FAR)])
    (found,) = due_task().execute(context)
    assert (found["record_id"], found["event"], found["changed_at"]) == (now_due, "updated", CHANGED_AT)
    assert found["record"]["FIRST_NAME"] == "Zoë, later"
    assert [e.record_id for e in pending_in(context)] == [later]
    assert context["ti"].xcom["next_due"] == FAR
    assert context["ti"].xcom["pending"] == {"count": 1, "first": [entry(later, FAR)]}


def test_what_could_not_be_scheduled_is_handed_on_in_each_try(insightly: RunningSandbox) -> None:
    """They go to the deliver task's report, together with what is due."""
    (record_id,) = seeded(insightly, 1)
    bad = {**change(2), "record": {}, "undeliverable": "its time is none"}
    context = due_context([entry(record_id)])
    context["ti"].others["schedule", "pending"]["undeliverable records"] = [bad]
    for _ in range(2):
        found = due_task().execute(context)
        assert [one["record_id"] for one in found] == [record_id, 2]
        assert found[1] == bad


def test_no_record_is_sent_that_stands_in_a_conf(insightly: RunningSandbox) -> None:
    """A user who may trigger a run can only send records as they are in Insightly."""
    (record_id,) = seeded(insightly, 1)
    forged = {**change(2), "record": {"CONTACT_ID": 2, "FIRST_NAME": "forged"}}
    context = due_context([])
    undeliverable = [forged, {**forged, "record_id": 3, "undeliverable": "so it says"}]
    pending = {
        "later": [{**entry(record_id), "record": forged["record"]}],
        "undeliverable records": undeliverable,
    }
    context["dag_run"].conf["pending"] = pending
    found = due_task().execute(context)
    assert [one["record_id"] for one in found] == [record_id, 3]
    assert "forged" not in json.dumps(found)


@pytest.mark.parametrize("told", [[], "x", 1, {"later": 1}, {"later": [1]}, {"undeliverable records": [1]}])
def test_a_conf_that_cannot_be_read(insightly: RunningSandbox, told: Any) -> None:
    """An error says so."""
    context = due_context([])
    context["dag_run"].conf["pending"] = told
    with pytest.raises(InsightlyHooksError):
        due_task().execute(context)


def test_a_due_record_that_cannot_be_delivered_stops_only_itself(
    insightly: RunningSandbox, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    """If no body can be built when it is read again, it is passed on to be reported. The others are sent."""
    good, bad = seeded(insightly, 2)
    read = InsightlyHook.get_record
    odd = {bad: {"CUSTOMFIELDS": [None]}}
    monkeypatch.setattr(
        InsightlyHook,
        "get_record",
        lambda hook, kind, number: {**read(hook, kind, number), **odd.get(number, {})},
    )
    criteria = {"field": "FIRST_NAME", "operator": "is_not_blank"}
    found = due_task(criteria=criteria).execute(due_context([entry(good), entry(bad)]))
    assert [one["record_id"] for one in found] == [good, bad]
    assert found[1]["record"] == {}
    assert found[1]["undeliverable"] == "CUSTOMFIELDS[0]: it must be an object, not null"
    assert logged.messages("error") == [f"Contacts {bad} can't be delivered: {found[1]['undeliverable']}"]


def test_a_second_trigger_neither_moves_nor_doubles(insightly: RunningSandbox) -> None:
    """This is as in Insightly."""
    (record_id,) = seeded(insightly, 1)
    context = due_context([entry(record_id, FAR)])
    with pytest.raises(DownstreamTasksSkipped):
        due_task().execute(context)
    again = due_context([entry(record_id, CHANGED_AT, "2026-01-11T00:00:00Z")], context["asset_state_store"])
    with pytest.raises(DownstreamTasksSkipped):
        due_task().execute(again)
    assert [e.as_dict() for e in pending_in(again)] == [entry(record_id, FAR)]


def test_without_anything_due_what_follows_is_skipped_but_the_wake_up(insightly: RunningSandbox) -> None:
    """Wake-ups continue."""
    context = due_context([entry(1, FAR)])
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        due_task().execute(context)
    assert list(skipped.value.tasks) == ["build"]
    assert context["ti"].xcom["return_value"] == []
    assert insightly.configure()["requests"] == {}


def test_a_test_takes_nothing(insightly: RunningSandbox) -> None:
    """It returns what is due, and leaves it to the next run."""
    (record_id,) = seeded(insightly, 1)
    context = due_context([])
    pending_in(context).add([PendingWebhook.of(entry(record_id))])
    test = {**context, "dag_run": SimpleNamespace(**vars(context["dag_run"]))}
    test["dag_run"].run_type, test["dag_run"].triggering_user_name = "manual", "dag_test"
    assert [c["record_id"] for c in due_task().execute(test)] == [record_id]
    assert len(pending_in(context)) == 1
    real = due_context([], assets=context["asset_state_store"])
    assert [c["record_id"] for c in due_task().execute(real)] == [record_id]


def test_a_retry_takes_the_same_again(insightly: RunningSandbox) -> None:
    """It does so wherever the first try was stopped. A cleared task does the same."""
    first, second = seeded(insightly, 2)
    context = due_context([entry(first)])
    insightly.configure(no_access=["Contacts"])
    with pytest.raises(InsightlyAccessError):
        due_task().execute(context)
    assert len(pending_in(context)) == 0  # taken
    insightly.configure(no_access=[])
    assert [c["record_id"] for c in due_task().execute(context)] == [first]
    # Meanwhile the same record has triggered again, for later, and another is due: both stay.
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
    later = [entry(first, FAR), entry(second, iso_time(soon))]
    pending_in(context).add(map(PendingWebhook.of, later))
    assert [c["record_id"] for c in due_task().execute(context)] == [first]
    assert {e.record_id for e in pending_in(context)} == {first, second}


def test_a_deleted_record_is_reported(insightly: RunningSandbox, logged: Logged) -> None:
    """It is neither sent nor silently lost."""
    here, gone = seeded(insightly, 2)
    requests.delete(f"{insightly.api_url}/Contacts/{gone}", auth=(API_KEY, ""), timeout=5).raise_for_status()
    context = due_context([entry(here), entry(gone)])
    assert [c["record_id"] for c in due_task().execute(context)] == [here]
    assert context["ti"].xcom["not_sent"] == [
        {"webhook": "later", "record_id": gone, "reason": "the record is gone"}
    ]
    assert f"later: record {gone} is not sent: the record is gone" in logged.messages("warning")


def test_a_record_type_that_is_gone_is_an_error(insightly: RunningSandbox) -> None:
    """If all of the type answers 404 (a plan without it), no record is taken for deleted."""
    context = due_context([entry(1)])
    operator = due_task()
    operator.record_type = "Nothing__c"  # the sandbox's account has no such custom object
    with pytest.raises(InsightlyAccessError):
        operator.execute(context)
    assert "not_sent" not in context["ti"].xcom


def test_one_record_that_may_not_be_read_keeps_back_no_other(
    insightly: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported. Only if all of the type is forbidden is it an error."""
    first, second = seeded(insightly, 2)
    get_record = InsightlyHook.get_record

    def refused(hook: InsightlyHook, record_type: str, record_id: int) -> dict[str, Any]:
        if record_id == first:
            raise InsightlyAccessError("insightly_default", hook.base_url, f"/Contacts/{record_id}", 403)
        return get_record(hook, record_type, record_id)

    monkeypatch.setattr(InsightlyHook, "get_record", refused)
    context = due_context([entry(first), entry(second)])
    assert [c["record_id"] for c in due_task().execute(context)] == [second]
    assert context["ti"].xcom["not_sent"][0]["reason"] == "this API key's user may not read the record"


def test_an_answer_that_is_not_the_record_holds_back_no_other(
    insightly: RunningSandbox, logged: Logged
) -> None:
    """It is neither sent nor lost: it is put back, reported, and read again later."""
    odd, good = seeded(insightly, 2)
    insightly.configure(fault={"path": f"/v3.1/Contacts/{odd}", "status": 200})  # {"Message": …}
    context = due_context([entry(odd), entry(good)])
    before = datetime.now(UTC)
    for _ in range(2):  # a cleared task, too
        assert [change["record_id"] for change in due_task().execute(context)] == [good]
        assert "not_sent" not in context["ti"].xcom
        (waiting,) = pending_in(context)
        assert (waiting.record_id, waiting.changed_at) == (odd, CHANGED_AT)
        assert timedelta(minutes=15) <= waiting.due - before < timedelta(minutes=16)
    assert context["ti"].xcom["next_due"] == iso_time(waiting.due)
    (postponed,) = context["ti"].xcom["postponed"]
    assert postponed["record_id"] == odd
    assert f"a record with CONTACT_ID {odd} was expected" in postponed["reason"]
    assert any(f"record {odd} is not sent" in line for line in logged.messages("warning"))
    insightly.configure(fault=None)
    later = due_context(None, context["asset_state_store"], run_after=waiting.due)
    assert [change["record_id"] for change in due_task().execute(later)] == [odd]
    assert pending_in(context).all() == []


def test_an_api_that_answers_oddly_altogether_is_an_error(
    insightly: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task keeps what is due, and puts nothing back."""
    (record_id,) = seeded(insightly, 1)
    context = due_context([entry(record_id)])

    def odd(hook: InsightlyHook, *_: Any, **_options: Any) -> Any:
        raise InsightlyAPIError("insightly_default", "/Contacts", "something else was expected")

    with monkeypatch.context() as patch:
        patch.setattr(InsightlyHook, "get_record", odd)
        patch.setattr(InsightlyHook, "iter_records", odd)
        with pytest.raises(InsightlyAPIError):
            due_task().execute(context)
    assert pending_in(context).all() == []
    assert [change["record_id"] for change in due_task().execute(context)] == [record_id]


def test_recheck_renders_templates() -> None:
    """They are rendered as in the evaluate task with the same criteria."""
    templated = {"field": "FIRST_NAME", "operator": "equals", "value": "{{ var.value.name }}"}
    assert "criteria" in due_task(criteria=templated).template_fields


def test_recheck(insightly: RunningSandbox) -> None:
    """Only records that still meet the criteria pass. Relative dates are measured from the run's time."""
    young, old = seeded(insightly, 2)
    insightly.update("Contacts", young, DATE_OF_BIRTH="2026-01-09 12:00:00")
    insightly.update("Contacts", old, DATE_OF_BIRTH="1990-01-09 12:00:00")
    far = datetime(2999, 1, 1, tzinfo=UTC)  # ahead of the clock, so this time counts
    criteria = {"field": "DATE_OF_BIRTH", "operator": "after", "value": "now-365000d"}
    context = due_context([entry(young), entry(old)], run_after=far)
    assert [c["record_id"] for c in due_task(criteria=criteria).execute(context)] == [young]
    assert context["ti"].xcom["not_sent"][0]["reason"] == "it no longer meets the criteria"


def test_recheck_knows_multi_selects(insightly: RunningSandbox) -> None:
    """It decides by whole options, as the evaluate task did."""
    (record_id,) = seeded(insightly, 1)
    custom = [{"FIELD_NAME": "Interests__c", "FIELD_VALUE": "Music"}]
    insightly.update("Contacts", record_id, CUSTOMFIELDS=custom)
    criteria = {"field": "Interests__c", "operator": "contains", "value": "Music"}
    assert len(due_task(criteria=criteria).execute(due_context([entry(record_id)]))) == 1
    with pytest.raises(DownstreamTasksSkipped):
        due_task(criteria={**criteria, "value": "Mus"}).execute(due_context([entry(record_id)]))


def test_recheck_parses_criteria_once(insightly: RunningSandbox, parsed_criteria: list[object]) -> None:
    """They are parsed once, however many records are due."""
    criteria = {"field": "DATE_UPDATED_UTC", "operator": "before", "value": "now"}
    due = due_task(criteria=criteria)
    parsed_criteria.clear()
    entries = [entry(record_id) for record_id in seeded(insightly, 2)]
    assert len(due.execute(due_context(entries, run_after=datetime(2999, 1, 1, tzinfo=UTC)))) == 2
    assert parsed_criteria == [criteria]


def test_a_retry_decides_as_the_first_try(insightly: RunningSandbox) -> None:
    """Relative dates are measured from the first try's time, whenever the retry is."""
    (record_id,) = seeded(insightly, 1)
    insightly.update("Contacts", record_id, DATE_OF_BIRTH="2999-01-01 00:00:00")
    criteria = {"field": "DATE_OF_BIRTH", "operator": "on", "value": "today"}
    context = due_context([entry(record_id)], run_after=datetime(2999, 1, 1, 12, tzinfo=UTC))
    assert len(due_task(criteria=criteria).execute(context)) == 1
    context["dag_run"].run_after = NOW
    assert len(due_task(criteria=criteria).execute(context)) == 1


def test_cancelling(insightly: RunningSandbox, logged: Logged) -> None:
    """The run's parameter names the record. A record that isn't pending is no error."""
    first, second = seeded(insightly, 2)
    context = due_context([entry(first, FAR), entry(second, FAR)])
    with pytest.raises(DownstreamTasksSkipped):
        due_task().execute(context)
    cancelling = due_context(None, context["asset_state_store"], cancel=[first, 12345])
    with pytest.raises(DownstreamTasksSkipped):
        due_task().execute(cancelling)
    assert [e.record_id for e in pending_in(cancelling)] == [second]
    assert f"later: 1 cancelled: [{first}]" in logged.messages("info")


def test_sending_now(insightly: RunningSandbox, logged: Logged) -> None:
    """The record is read again, as at its time. The change, and so the message id, stays the same."""
    first, second, third = seeded(insightly, 3)
    context = due_context([entry(i, FAR) for i in (first, second, third)])
    with pytest.raises(DownstreamTasksSkipped):
        due_task().execute(context)
    insightly.update("Contacts", first, FIRST_NAME="Zoë, later")
    asking = due_context(None, context["asset_state_store"])
    asking["params"] = {"send_now": [second]}
    asking["dag_run"].conf = request_conf(
        "send_now",
        {"later": {first: CHANGED_AT, 12345: CHANGED_AT}, "another": {third: CHANGED_AT}},
        requested_by="anna",
        requested_at=CHANGED_AT,
    )
    for _ in range(2):  # a cleared task, too
        found = due_task().execute(asking)
        assert [(c["record_id"], c["event"], c["changed_at"]) for c in found] == [
            (first, "updated", CHANGED_AT),
            (second, "updated", CHANGED_AT),
        ]
        assert found[0]["record"]["FIRST_NAME"] == "Zoë, later"
    assert [e.as_dict() for e in pending_in(context)] == [entry(third, FAR)]
    assert asking["ti"].xcom["next_due"] == FAR
    assert f"later: 2 sent before their time: [{first}, {second}]" in logged.messages("info")
    assert any("not pending any more: [12345]" in line for line in logged.messages("info"))


def test_sending_now_rechecks(insightly: RunningSandbox) -> None:
    """A record that no longer meets the criteria is reported, and not sent."""
    (record_id,) = seeded(insightly, 1)
    criteria = {"field": "FIRST_NAME", "operator": "equals", "value": "another"}
    context = due_context([entry(record_id, FAR)])
    context["params"] = {"send_now": [record_id]}
    with pytest.raises(DownstreamTasksSkipped):
        due_task(criteria=criteria).execute(context)
    assert context["ti"].xcom["not_sent"][0]["reason"] == "it no longer meets the criteria"
    assert pending_in(context).all() == []


def test_a_request_to_cancel_is_carried_out_once(insightly: RunningSandbox) -> None:
    """A retry, or a cleared task, doesn't cancel webhooks that were scheduled since."""
    (record_id,) = seeded(insightly, 1)
    context = due_context([entry(record_id, FAR)])
    with pytest.raises(DownstreamTasksSkipped):
        due_task().execute(context)
    cancelling = due_context(None, context["asset_state_store"], cancel=[record_id])
    with pytest.raises(DownstreamTasksSkipped):
        due_task().execute(cancelling)
    again = PendingWebhook.of(entry(record_id, FAR, "2026-01-11T00:00:00Z"))
    pending_in(context).add([again])
    for _ in range(2):
        with pytest.raises(DownstreamTasksSkipped):
            due_task().execute(cancelling)
        assert pending_in(context).all() == [again]


def test_a_task_that_is_killed_sends_nothing_twice(insightly: RunningSandbox) -> None:
    """Killed at any call of a state store, its retry doesn't enter what another run has sent since."""
    (record_id,) = seeded(insightly, 1)
    for calls_left in range(200):
        power = Power()
        killed = due_context([entry(record_id, FAR)], {ASSET: PoweredStore(power)}, run_after=NOW)
        killed["task_state_store"] = PoweredStore(power)
        killed["ti"].run_id = "killed"
        power.calls_left = calls_left
        is_killed = False
        try:
            due_task().execute(killed)
        except Crash:
            is_killed = True
        except DownstreamTasksSkipped:
            pass
        power.calls_left = None
        far = datetime(2999, 1, 2, tzinfo=UTC)
        sent = []
        for context in (due_context(None, killed["asset_state_store"], run_after=far), killed, killed):
            try:
                sent += due_task().execute(context)
            except DownstreamTasksSkipped:
                continue
        last = due_context(None, killed["asset_state_store"], run_after=far)
        last["ti"].run_id = "last"
        with suppress(DownstreamTasksSkipped):
            sent += due_task().execute(last)
        assert [change["record_id"] for change in sent] == [record_id]
        if not is_killed:
            return
    raise AssertionError("it has no end")


def test_a_lost_head_is_an_error(insightly: RunningSandbox) -> None:
    """Pending webhooks aren't silently forgotten."""
    context = due_context([entry(7, FAR)])
    with pytest.raises(DownstreamTasksSkipped):
        due_task().execute(context)
    context["asset_state_store"][ASSET].delete(BOOK)
    with pytest.raises(InvalidState) as caught:
        due_task().execute(due_context([entry(8, FAR)], context["asset_state_store"]))
    assert caught.value.key == BOOK
    assert insightly.configure()["requests"] == {}


def test_the_rest_of_many_comes_in_the_next_run(
    insightly: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run takes a limited number, the earliest first."""
    monkeypatch.setattr(module, "MOST_AT_ONCE", 2)
    ids = seeded(insightly, 3)
    times = ["2026-01-03T00:00:00Z", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]
    context = due_context([entry(i, due) for i, due in zip(ids, times, strict=True)])
    assert [c["record_id"] for c in due_task().execute(context)] == [ids[1], ids[2]]
    assert context["ti"].xcom["next_due"] == times[0]
    assert len(due_task().execute(context)) == 2  # a retry doesn't take more
    following = due_context(None, context["asset_state_store"])
    assert [c["record_id"] for c in due_task().execute(following)] == [ids[0]]


def test_lost_entries_are_an_error() -> None:
    """Webhooks must not vanish because a run's XComs were deleted."""
    context = due_context([])
    context["ti"].others.clear()
    with pytest.raises(InvalidPayload, match="'schedule' of run 'r' of DAG 'flow' has no XCom"):
        due_task().execute(context)


SOURCE = {"dag_id": "flow", "run_id": "r", "task_id": "schedule", "map_index": -1}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("flow", "pending_from: an object is needed, not str"),
        (["flow"], "pending_from: an object is needed, not list"),
        (True, "pending_from: an object is needed, not bool"),
        ({}, "pending_from: dag_id must be a text"),
        ({**SOURCE, "dag_id": 5}, "pending_from: dag_id must be a text"),
        ({**SOURCE, "run_id": ""}, "pending_from: run_id must be a text"),
        ({**SOURCE, "run_id": "a\0"}, "pending_from: run_id must be a text"),
        ({**SOURCE, "task_id": ["schedule"]}, "pending_from: task_id must be a text"),
        ({**SOURCE, "task_id": "\ud800"}, "pending_from: task_id must be a text"),
        ({**SOURCE, "map_index": "1"}, "pending_from: map_index must be a whole number"),
        ({**SOURCE, "map_index": True}, "pending_from: map_index must be a whole number"),
        ({**SOURCE, "map_index": 1.5}, "pending_from: map_index must be a whole number"),
        ({**SOURCE, "map_index": -2}, "pending_from: map_index must be a whole number"),
        ({**SOURCE, "map_index": 10**30}, "pending_from: map_index must be a whole number"),
    ],
    ids=str,
)
def test_a_conf_that_is_made_by_hand(source: Any, reason: str) -> None:
    """If a conf names no task, an error says so, and nothing is entered."""
    context = due_context([])
    context["dag_run"].conf = {"pending_from": source}
    with pytest.raises(InvalidPayload) as caught:
        due_task().execute(context)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(
    ("scheduled", "reason"),
    [
        ("text", "pending webhooks: a list is needed, not str"),
        (5, "pending webhooks: a list is needed, not int"),
        ([5], "pending webhook: an object is needed, not int"),
        ([{}], "pending webhook: it lacks 'record_id', 'due', 'event', 'changed_at'"),
        ([{"record_id": "7", "due": [], "event": 1, "changed_at": None}], "pending webhook: "),
        (
            [{"record_id": 7, "due": "now", "event": "added", "changed_at": CHANGED_AT}],
            "pending webhook: due is not a time",
        ),
    ],
    ids=str,
)
def test_an_xcom_that_is_made_by_hand(scheduled: Any, reason: str) -> None:
    """If an XCom is no list of pending webhooks, an error says so."""
    context = due_context([])
    for found in context["ti"].others.values():
        found["later"] = scheduled
    with pytest.raises(InvalidPayload) as caught:
        due_task().execute(context)
    assert str(caught.value).startswith(reason)


def test_a_conf_without_a_map_index() -> None:
    """It means the task that isn't mapped."""
    context = due_context([])
    del context["dag_run"].conf["pending_from"]["map_index"]
    with pytest.raises(DownstreamTasksSkipped):
        due_task().execute(context)


def test_criteria_are_checked_when_the_dag_is_parsed() -> None:
    """They aren't first checked when a webhook is due."""
    with pytest.raises(InvalidCriteria):
        due_task(criteria={"field": "A", "operator": "equal", "value": 1})


# --- wake up -----------------------------------------------------------------------------------------------


def test_a_cleared_task_schedules_nothing_again(insightly: RunningSandbox) -> None:
    """Webhooks that a later run sent or cancelled stay so when the run that entered them is cleared."""
    (record_id,) = seeded(insightly, 1)
    context = due_context([entry(record_id, FAR)])
    with pytest.raises(DownstreamTasksSkipped):
        due_task().execute(context)
    pending_in(context).remove([record_id])
    with pytest.raises(DownstreamTasksSkipped):
        due_task().execute(context)
    assert pending_in(context).all() == []


def test_it_keeps_inlets_of_ones_own() -> None:
    """This includes a single inlet that is not in a list."""
    other = Asset(name="other", uri="x://other")
    assert due_task(inlets=other).inlets == [other, ASSET]


def waking(
    *next_due: str | None, run_after: datetime = NOW, runs: dict[str, str] | None = None
) -> BaseException:
    context = run_context(
        ti=TaskInstance("flow__pending", "wake_up"),
        dag_run=SimpleNamespace(run_type="operator_triggered", run_after=run_after),
    )
    context["ti"].runs = runs or {}
    with DAG("flow__pending", schedule=None):
        operator = WakeUpOperator(task_id="wake_up")
        for number, text in enumerate(next_due):
            webhook, task_id = f"w{number}", f"due_{number}"
            due = DueWebhooksOperator(
                task_id=task_id, webhook=webhook, workflow="flow", record_type="Contacts"
            )
            due >> operator
            if text is not None:
                context["ti"].others[task_id, "next_due"] = text
    with pytest.raises((DagRunTriggerException, AirflowSkipException, InvalidState)) as ended:
        operator.execute(context)
    return ended.value


def test_a_run_is_queued_for_the_earliest_moment() -> None:
    """The time is rounded up to ten seconds. There is one run for each time, however many ask for it."""
    ended = waking("", "2999-01-01T00:00:11.5Z", "2999-01-01T00:00:02Z", None)
    assert isinstance(ended, DagRunTriggerException)
    assert ended.run_after == datetime(2999, 1, 1, 0, 0, 10, tzinfo=UTC)
    assert ended.dag_run_id == "due__2999-01-01T00:00:10Z"
    assert (ended.trigger_dag_id, ended.skip_when_already_exists) == ("flow__pending", True)
    exact = waking("2999-01-01T00:00:10Z")
    assert isinstance(exact, DagRunTriggerException)
    assert exact.run_after == ended.run_after


def test_what_is_overdue_gets_a_run_of_its_own() -> None:
    """The run of that time is over, and its id is in use."""
    ended = waking("2020-01-01T00:00:00Z")
    assert isinstance(ended, DagRunTriggerException)
    assert ended.dag_run_id.startswith("due__2020-01-01T00:00:00Z__")


def test_the_run_of_its_own_moment_is_not_asked_for_again() -> None:
    """This worker's clock is behind the scheduler's, and there is more than one run takes."""
    ended = waking("2999-01-01T00:00:00Z", run_after=datetime(2999, 1, 1, tzinfo=UTC))
    assert isinstance(ended, DagRunTriggerException)
    assert ended.dag_run_id.startswith("due__2999-01-01T00:00:00Z__")


@pytest.mark.parametrize("state", ["running", "success", "failed"])
def test_a_run_that_has_begun_before_its_moment_takes_nothing_more(state: str) -> None:
    """A scheduler's clock was ahead, or a user ended the run by hand. What is due then needs another run."""
    moment, name = "2999-01-01T00:00:00Z", "due__2999-01-01T00:00:00Z"
    ended = waking(moment, runs={name: state})
    assert isinstance(ended, DagRunTriggerException)
    assert ended.dag_run_id.startswith(f"{name}__")
    assert ended.run_after == datetime(2999, 1, 1, tzinfo=UTC)
    queued = waking(moment, runs={name: "queued"})
    assert isinstance(queued, DagRunTriggerException)
    assert queued.dag_run_id == name


def test_what_only_talks_to_airflow_is_tried_again() -> None:
    """A short failure of Airflow must not strand pending webhooks."""
    with DAG("flow", schedule=None):
        schedule = ScheduleWebhooksOperator(task_id="s", changes=[], time_triggers=[], pending_dag_id="x")
        assert (schedule.retries, WakeUpOperator(task_id="w").retries) == (5, 5)
    assert due_task().retries == 2


def test_nothing_pending_needs_no_run() -> None:
    """Wake-ups end. The next trigger starts them again."""
    assert isinstance(waking("", ""), AirflowSkipException)


def test_what_is_not_known_is_an_error() -> None:
    """If a due task failed before it could say what is pending, wake-ups must not silently end."""
    ended = waking("", None)
    assert isinstance(ended, InvalidState)
    assert "it is missing in the XCom of due_1: clear it" in str(ended)


def test_the_last_moment_of_all_is_no_crash() -> None:
    """A date field may contain any date."""
    assert isinstance(waking("9999-12-31T23:59:59Z"), DagRunTriggerException)
