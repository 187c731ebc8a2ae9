"""Webhooks with a time trigger in one task: each record is handed over once, wherever the task stops."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ErrorResponse, OKResponse

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.core.errors import InvalidState, NewerState, StoppedError
from airflow_insightly_hooks.core.exact_json import loads
from airflow_insightly_hooks.core.state import id_set
from airflow_insightly_hooks.core.state.id_set import IdSet
from airflow_insightly_hooks.hooks.insightly import InsightlyHook
from airflow_insightly_hooks.operators.common.triggered_runs import start_run
from airflow_insightly_hooks.operators.one_task import batch_reading, batch_scheduling
from airflow_insightly_hooks.operators.pending import (
    DueWebhooksOperator,
    ScheduleWebhooksOperator,
    TimeTrigger,
)
from airflow_insightly_hooks.operators.webhook import UndeliverableError
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.conftest import AssetStateStores, Logged, StateStore, TaskInstance, run_context
from tests.core.state.test_due_once import Power, PoweredStore
from tests.core.state.test_id_set import Crash
from tests.deliveries import CANARY
from tests.operators.test_workflow_operator import (
    WINDOW,
    add_contacts,
    failed,
    flow,
    messages,
    task,
    update,
    workflow,
)

pytestmark = pytest.mark.usefixtures("nothing_logged")

PENDING_DAG = "new_contacts__pending"
NOW = Webhook(name="Out", conn_id="out", concurrency=1)
LATER = Webhook(name="Later", conn_id="out", after="3d")
BIRTHDAY = Webhook(name="Birthday", conn_id="other", before="1d", field="DATE_OF_BIRTH")
BORN = "2030-06-01 00:00:00"


class Runs:
    """The runs of the pending DAG, as Airflow keeps them: each id once.

    :ivar confs: their confs, by id.
    :ivar refuses: whether Airflow refuses to make any.
    """

    def __init__(self) -> None:
        self.confs: dict[str, Any] = {}
        self.power = Power()
        self.refuses = False

    def start(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> bool:
        assert dag_id == PENDING_DAG
        self.power.spend()
        if self.refuses:
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR))
        is_new = run_id not in self.confs
        self.confs.setdefault(run_id, conf)
        self.power.spend()
        return is_new

    def entries(self) -> dict[str, list[dict[str, Any]]]:
        """Return the entries of all runs, by webhook."""
        found: dict[str, list[dict[str, Any]]] = {}
        for conf in self.confs.values():
            for webhook, entries in conf["pending"].items():
                found.setdefault(webhook, []).extend(entries)
        return found

    def records(self, webhook: str = "later") -> Counter[int]:
        return Counter(entry["record_id"] for entry in self.entries().get(webhook, ()))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """The runs to which the task hands over."""
    there = Runs()
    monkeypatch.setattr(batch_scheduling, "start_run", there.start)
    return there


def timed(context: dict[str, Any], given: Workflow, **arguments: Any) -> Any:
    return flow(context, given, pending_dag_id=PENDING_DAG, **arguments)


# --- what is handed over -----------------------------------------------------------------------------------


def test_the_same_times_as_by_the_tasks(crm: RunningSandbox, runs: Runs) -> None:
    """Each record gets the same times as from ScheduleWebhooksOperator.

    Records without a date are reported.
    """
    dated, dateless = add_contacts(crm, 3, DATE_OF_BIRTH=BORN), add_contacts(crm, 2, DATE_OF_BIRTH=None)
    context = run_context()
    report = timed(context, workflow(NOW, LATER, BIRTHDAY), batch_size=2)
    assert (report["total"], report["delivered"]) == (5, 5)  # of the webhook that is sent at once
    assert len(runs.confs) == 3
    assert all(
        conf["pending_from"]
        == {"dag_id": "dag", "run_id": "scheduled__1", "task_id": "task", "map_index": -1}
        for conf in runs.confs.values()
    )
    changes = [
        {
            "record_type": "Contacts",
            "record_id": record["CONTACT_ID"],
            "event": "added",
            "changed_at": record["DATE_CREATED_UTC"].replace(" ", "T") + "Z",
            "record": record,
        }
        for record in (InsightlyHook().get_record("Contacts", i) for i in (*dated, *dateless))
    ]
    operator = ScheduleWebhooksOperator(
        task_id="schedule",
        changes=changes,
        time_triggers=[
            TimeTrigger("later", after=timedelta(days=3)),
            TimeTrigger("birthday", before=timedelta(days=1), field="DATE_OF_BIRTH"),
        ],
        pending_dag_id=PENDING_DAG,
    )
    by_task = run_context()
    with pytest.raises(Exception):  # noqa: B017, PT011 — how it ends, another test tells
        operator.execute(by_task)
    assert {name: sorted_(entries) for name, entries in runs.entries().items()} == {
        name: sorted_(entries) for name, entries in by_task["ti"].xcom["pending"].items()
    }
    assert context["ti"].xcom["not_sent"] == by_task["ti"].xcom["not_sent"]
    assert CANARY not in str(runs.confs)


def sorted_(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(entries, key=lambda entry: entry["record_id"])


def test_the_pending_dag_takes_it_from_the_conf(crm: RunningSandbox, runs: Runs) -> None:
    """It needs no XCom, which Airflow would delete with the task's next try."""
    ids = add_contacts(crm, 2)
    timed(run_context(), workflow(Webhook(name="Later", conn_id="out", after="0s")))
    ((run_id, conf),) = runs.confs.items()
    with DAG(PENDING_DAG, schedule=None):
        due = DueWebhooksOperator(
            task_id="due", webhook="later", workflow="new_contacts", record_type="Contacts"
        )
    run = SimpleNamespace(
        run_type="operator_triggered", run_after=datetime.now(timezone.utc), conf=conf, run_id=run_id
    )
    context = run_context(ti=TaskInstance(PENDING_DAG, "due", run_id), dag_run=run)
    assert [found["record_id"] for found in due.execute(context)] == ids
    assert context["ti"].xcom["pending"]["count"] == 0


def test_only_webhooks_with_a_time_trigger(crm: RunningSandbox, runs: Runs) -> None:
    """Nothing is sent at once, and the reports are empty."""
    ids = add_contacts(crm, 3)
    assert timed(run_context(), workflow(LATER)) == {}
    assert runs.records() == Counter(ids)
    assert messages(crm) == []


def test_many_at_once(crm: RunningSandbox, runs: Runs) -> None:
    """A run gets at most 1,000 records. What is stored of a batch fits into the store."""
    ids = add_contacts(crm, 2_300)
    context = run_context()
    timed(context, workflow(LATER, BIRTHDAY), batch_size=10_000)
    assert [len(conf["pending"]["later"]) for conf in runs.confs.values()] == [1_000, 1_000, 300]
    assert runs.records() == Counter(ids)
    assert not any(key.startswith("to_schedule") for key in context["task_state_store"].values)
    assert len(context["ti"].xcom["not_sent"]) == 1_000
    writes = [key for key in context["task_state_store"].writes if key.startswith(("to_sch", "scheduled"))]
    assert len(writes) < 30, writes


def test_what_can_not_be_delivered_is_reported_there(
    crm: RunningSandbox, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is handed to the other DAG unchanged, once."""
    (good, bad) = add_contacts(crm, 2)
    crm.update("Contacts", bad, DETAILS=loads("[" * 200 + "]" * 200), DATE_UPDATED_UTC="2024-05-01 13:00:00")
    context = run_context()
    for _ in range(2):
        timed(context, workflow(LATER))
    (one,) = runs.entries()["undeliverable records"]
    assert (one["record_id"], one["record"]) == (bad, {})
    assert runs.records() == {good: 1}


def test_a_dry_run_and_a_test_hand_over_nothing(crm: RunningSandbox, runs: Runs, logged: Logged) -> None:
    """They log how many there would be. A later run hands them over."""
    ids = add_contacts(crm, 3)
    context = run_context()
    timed(context, workflow(NOW, LATER, BIRTHDAY, dry_run=True))
    assert "Dry run: 3 webhooks would be scheduled" in logged.messages("info")
    tested = run_context(dag_run=SimpleNamespace(run_type="manual", triggering_user_name="dag_test"))
    timed(tested, workflow(LATER))
    assert "A test schedules nothing. A run would schedule 3 webhooks" in logged.messages("info")
    assert (runs.confs, messages(crm)) == ({}, [])
    timed(context, workflow(NOW, LATER))
    assert runs.records() == Counter(ids)


def test_an_inactive_workflow_schedules_nothing(crm: RunningSandbox, runs: Runs) -> None:
    """It ignores its changes."""
    add_contacts(crm, 3)
    timed(run_context(), workflow(NOW, LATER, active=False))
    assert runs.confs == {}


def test_until_triggered(crm: RunningSandbox, runs: Runs) -> None:
    """A record is handed over once in all runs."""
    ids = add_contacts(crm, 3)
    context = run_context()
    given = workflow(NOW, LATER, evaluate="until_triggered")
    timed(context, given)
    update(crm, ids[0], "2024-05-02")
    following = {"start": WINDOW["end"], "end": "2024-05-03T00:00:00Z"}
    again = run_context(
        ti=TaskInstance(run_id="scheduled__2"), asset_state_store=context["asset_state_store"]
    )
    timed(again, given, window=following)
    assert runs.records() == Counter(ids)


# --- several tries -----------------------------------------------------------------------------------------


def test_a_receiver_that_is_down_holds_back_nothing(crm: RunningSandbox, runs: Runs) -> None:
    """Webhooks for later are handed over in the first try, once. A cleared task adds new ones."""
    ids = add_contacts(crm, 3)
    crm.answer_with("out", status=500)
    context = run_context()
    given = workflow(NOW, LATER)
    for _ in range(3):
        failed(context, given, pending_dag_id=PENDING_DAG, batch_size=2)
        assert runs.records() == Counter(ids)
        update(crm, ids[0], "2024-05-03")  # the retry has different batches
    context["ti"].max_tries += 3
    ids += add_contacts(crm, 1)
    failed(context, given, pending_dag_id=PENDING_DAG, batch_size=2)
    assert runs.records() == Counter(ids)


def test_a_task_that_is_told_to_end(crm: RunningSandbox, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hands over no further batch. Its next try does, each once."""
    ids = add_contacts(crm, 6)
    context = run_context()
    operator = task(workflow(NOW, LATER), pending_dag_id=PENDING_DAG, batch_size=2)
    start = runs.start

    def stopping(*arguments: Any) -> bool:
        operator.on_kill()
        return start(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(batch_scheduling, "start_run", stopping)
        with pytest.raises(StoppedError):
            operator.execute(context)
    assert runs.records() == Counter(ids[:2])
    assert messages(crm) == []
    assert timed(context, workflow(NOW, LATER), batch_size=2)["delivered"] == 6
    assert runs.records() == Counter(ids)


def test_a_retry_lists_all_without_a_date(
    crm: RunningSandbox, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow deletes the first try's list, so the retry reads those records again."""
    monkeypatch.setattr(batch_reading, "PAGE", 10)
    ids = add_contacts(crm, 30, DATE_OF_BIRTH=None)
    context = run_context()
    note = batch_reading.Reading.note

    def killed(self: batch_reading.Reading, met: int, **named: Any) -> None:
        note(self, met, **named)
        if self.met >= 20:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(batch_reading.Reading, "note", killed)
        with pytest.raises(KeyboardInterrupt):
            timed(context, workflow(BIRTHDAY), batch_size=10)
    context["ti"].xcom.clear()
    timed(context, workflow(BIRTHDAY), batch_size=10)
    assert sorted(item["record_id"] for item in context["ti"].xcom["not_sent"]) == ids


def test_airflow_refuses(crm: RunningSandbox, runs: Runs) -> None:
    """The task fails. The next try hands over what was stored, even if the record has left the window."""
    (record_id,) = add_contacts(crm, 1, DATE_CREATED_UTC="2024-01-01 00:00:00")
    context = run_context()
    runs.refuses = True
    given = workflow(LATER, evaluate="until_triggered")
    with pytest.raises(AirflowRuntimeError):
        timed(context, given)
    update(crm, record_id, "2024-05-03")
    runs.refuses = False
    timed(context, given)
    assert runs.records() == {record_id: 1}
    assert timed(context, given) == {}
    assert runs.records() == {record_id: 1}


@pytest.mark.parametrize("evaluate", ["created_and_edited", "until_triggered"])
@pytest.mark.parametrize("at_once", [(), (NOW,)])
def test_a_kill_at_any_moment(
    crm: RunningSandbox, runs: Runs, evaluate: str, at_once: tuple[Webhook, ...]
) -> None:
    """Triggered records are handed over once, wherever it is killed, even if they have left the window."""
    ids = add_contacts(crm, 5, DATE_CREATED_UTC="2024-01-01 00:00:00")
    given = workflow(*at_once, LATER, evaluate=evaluate)
    for calls in range(1, 400, 4 if at_once else 1):
        runs.confs.clear()
        power = runs.power
        stores = {"task_state_store": PoweredStore(power), "asset_state_store": PoweredAssets(power)}
        context = run_context(**stores)
        for record_id in ids:
            update(crm, record_id, "2024-05-01")
        power.calls_left = calls
        try:
            timed(context, given, batch_size=2)
            break
        except Crash:
            pass
        finally:
            power.calls_left = None
        gone = ids[calls % len(ids)]
        update(crm, gone, "2024-05-03")
        with suppress(UndeliverableError):  # records that have left the window are reported
            timed(context, given, batch_size=2)
        counts = runs.records()
        assert set(counts.values()) <= {1}, calls
        assert set(counts) | {gone} == set(ids), calls
        if evaluate == "until_triggered" and gone not in counts:
            (memory,) = (store for store in context["asset_state_store"].values() if store.values)
            assert not IdSet(memory, "triggered/new_contacts").known([gone]), calls
    else:
        pytest.fail("it never came to the end")
    assert calls > 20
    assert runs.records() == Counter(ids)


def test_a_kill_while_it_remembers(crm: RunningSandbox, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remembering many records takes several writes. A part of them makes no second run."""
    monkeypatch.setattr(id_set, "LEAF_IDS", 8)
    ids = add_contacts(crm, 12, DATE_CREATED_UTC="2024-01-01 00:00:00")
    new = [ids[1], ids[10]]  # at the end, one in each of two leaves
    for record_id in new:
        update(crm, record_id, "2024-05-03")
    power, given = Power(), workflow(LATER)
    store = PoweredStore(power)
    context = run_context(task_state_store=store)
    for record_id in set(ids) - set(new):
        update(crm, record_id, "2024-05-01")
    timed(context, given, batch_size=12)
    assert runs.records() == Counter(set(ids) - set(new))
    for record_id in new:
        update(crm, record_id, "2024-05-01")
    values, confs = dict(store.values), dict(runs.confs)
    for calls in range(1, 200):
        store.values, runs.confs = dict(values), dict(confs)
        power.calls_left = calls
        try:
            timed(context, given, batch_size=12)
            break
        except Crash:
            power.calls_left = None
        timed(context, given, batch_size=12)
        assert runs.records() == Counter(ids), calls
    assert 20 < calls < 199


class PoweredAssets(AssetStateStores):
    """A store for each asset. All stores share one Power."""

    def __init__(self, power: Power) -> None:
        super().__init__()
        self._power = power

    def __missing__(self, asset: Any) -> StateStore:
        return self.setdefault(asset, PoweredStore(self._power))


def test_a_note_that_can_not_be_read(crm: RunningSandbox, runs: Runs) -> None:
    """The error says what to do. Nothing is handed over until that is done."""
    ids = add_contacts(crm, 2)
    for note in ({"groups": 1}, {"groups": [1]}, []):
        store = StateStore()
        store.set("to_schedule", note)
        with pytest.raises(InvalidState, match="Delete 'to_schedule' from the task's state"):
            timed(run_context(task_state_store=store), workflow(LATER))
    assert runs.confs == {}
    store.delete("to_schedule")
    timed(run_context(task_state_store=store), workflow(LATER))
    assert runs.records() == Counter(ids)


@pytest.mark.parametrize("key", ["to_schedule", "scheduled_records", "scheduled_records/kept"])
def test_state_of_a_newer_release(crm: RunningSandbox, runs: Runs, key: str) -> None:
    """Nothing is handed over, and nothing is sent."""
    add_contacts(crm, 2)
    store = StateStore()
    store.set(key, {"version": 99})
    with pytest.raises(InvalidState, match=key.partition("/")[0]) as caught:
        timed(run_context(task_state_store=store), workflow(LATER))
    assert isinstance(caught.value, NewerState) == ("/" not in key)
    assert runs.confs == {}
    assert store.get(key) == {"version": 99}


# --- Airflow's answers -------------------------------------------------------------------------------------


def test_start_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """An existing run is left as it is. Another refusal is an error."""
    sent: list[Any] = []
    answers: list[Any] = [
        OKResponse(ok=True),
        ErrorResponse(error=ErrorType.DAGRUN_ALREADY_EXISTS),
        ErrorResponse(error=ErrorType.API_SERVER_ERROR),
    ]

    def send(message: Any) -> Any:
        sent.append(message)
        return answers.pop(0)

    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", SimpleNamespace(send=send), raising=False)
    assert start_run("flow__pending", "from__1", {"a": 1})
    assert not start_run("flow__pending", "from__1", {"a": 1})
    with pytest.raises(AirflowRuntimeError):
        start_run("flow__pending", "from__1", {"a": 1})
    assert (sent[0].dag_id, sent[0].run_id, sent[0].conf) == ("flow__pending", "from__1", {"a": 1})
    assert not sent[0].reset_dag_run
