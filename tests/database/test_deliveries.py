"""The search over delivery records, and sending again, on Airflow's own tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.models import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.task_state_store import TaskStateStoreModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.sdk import DAG
from airflow.utils.state import DagRunState, TaskInstanceState
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.core.delivery.delivery_record import PostOutcome
from airflow_insightly_hooks.core.delivery.ledger import Ledger
from airflow_insightly_hooks.core.delivery.ledger_store import LedgerStore
from airflow_insightly_hooks.core.delivery.resend_requests import LedgerRequest, read_requests
from airflow_insightly_hooks.database import deliveries as module
from airflow_insightly_hooks.database.deliveries import (
    UNDELIVERED,
    Delivery,
    DeliveryFilter,
    TaskKey,
    WantedTasks,
    search_deliveries,
)
from airflow_insightly_hooks.database.resend import Resend, latest_of_each, refusals, resend
from airflow_insightly_hooks.database.state import DatabaseStateStore
from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator
from tests.ledgers import START, add_flow, add_run, at, write
from tests.metadata_database import add_dag, fill, metadata_database


@pytest.fixture
def session() -> Iterator[Session]:
    """A database with a DAG that delivers, and one that is paused."""
    with metadata_database() as sessions, sessions() as session:
        fill(session, _add_flows)
        yield session


def _add_flows(session: Session) -> None:
    add_flow(session, "flow")
    add_flow(session, "paused", is_paused=True)


def found(session: Session, *, limit: int = 100, offset: int = 0, **wanted: Any) -> list[str]:
    page = search_deliveries(session, DeliveryFilter(**wanted), limit=limit, offset=offset)
    assert page.unreadable == 0
    return [row.message.message_id for row in page.rows]


def test_a_delivery_says_what_became_of_a_message(session: Session) -> None:
    """It has record, event, receiver, state, attempts, outcome and task, but no contents."""
    key = add_run(session, "one")
    write(session, key, {"a": (7, "F", 1)})
    (row,) = search_deliveries(session, DeliveryFilter()).rows
    assert (row.key, row.conn_id, row.receiver) == (key, "billing", "https://billing.example.com/in")
    assert (row.message.message_id, row.message.state, row.message.attempts) == ("a", "failed", 1)
    assert row.message.about == ("Contacts", 7, "updated", "2026-01-31T08:00:00Z")
    assert row.last == PostOutcome(at(1), 0.1, 503, "answered 503")


def test_newest_first_across_tasks_that_overlap(session: Session) -> None:
    """The order is by the end of each message's POST, not by the time its ledger was written."""
    write(session, add_run(session, "one"), {"a": (1, "A", 1), "d": (4, "A", 9)})
    write(session, add_run(session, "two"), {"b": (2, "A", 2), "c": (3, "A", 8)})
    assert found(session) == ["d", "c", "b", "a"]
    assert [found(session, limit=1, offset=number) for number in range(5)] == [["d"], ["c"], ["b"], ["a"], []]
    assert search_deliveries(session, DeliveryFilter(), limit=3).has_more
    assert not search_deliveries(session, DeliveryFilter(), limit=4).has_more


LEDGERS = st.lists(
    st.dictionaries(
        st.integers(0, 10**6).map(lambda number: f"m{number}"),
        st.tuples(st.integers(0, 3), st.sampled_from("AFGDU"), st.integers(0, 30)),
        min_size=1,
        max_size=3,
    ),
    max_size=6,
)
SHOWN = {"A": "delivered", "F": "failed", "G": "gone", "D": "in doubt", "U": "unsent"}


def test_a_search_finds_what_matches(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search returns exactly the matching messages, newest first, in any number of steps."""
    monkeypatch.setattr(module, "CHUNKS", (1, 2))
    keys = [add_run(session, f"run_{number}") for number in range(6)]

    @given(
        ledgers=LEDGERS,
        state=st.sampled_from([None, UNDELIVERED, "delivered", "failed", "unsent"]),
        records=st.none() | st.sets(st.integers(0, 3)),
        since=st.none() | st.integers(0, 30),
    )
    @settings(max_examples=60, deadline=None)
    def check(
        ledgers: list[dict[str, tuple[int, str, int]]],
        state: str | None,
        records: set[int] | None,
        since: int | None,
    ) -> None:
        session.query(TaskStateStoreModel).delete()
        expected = []
        for key, messages in zip(keys, ledgers, strict=False):
            write(session, key, messages, written=31)
            for message, (of, letter, minute) in messages.items():
                is_state = state in (None, SHOWN[letter]) or (state == UNDELIVERED and letter != "A")
                time = minute if letter in "AFG" else 31
                if is_state and (records is None or of in records) and (since is None or time >= since):
                    expected.append((time, message))
        wanted = DeliveryFilter(
            state=state,
            records=None if records is None else {(None, record) for record in records},
            since=None if since is None else at(since),
        )
        rows = search_deliveries(session, wanted).rows
        got = [(round((row.at - START).total_seconds() / 60), row.message.message_id) for row in rows]
        assert sorted(got) == sorted(expected)
        assert [time for time, _ in got] == sorted((time for time, _ in got), reverse=True)

    check()


def test_filters(session: Session) -> None:
    """There are filters for DAG, run, task, receiver, message, record type and period."""
    one, two = add_run(session, "one"), add_run(session, "two", "paused")
    write(session, one, {"msg_a": (1, "A", 1)})
    write(session, two, {"msg_b": (1, "F", 2)}, conn_id="erp", receiver="https://erp.example.com/")
    assert found(session, dag_ids=["flow"]) == ["msg_a"]
    assert found(session, tasks=WantedTasks("paused", "two")) == ["msg_b"]
    assert found(session, tasks=WantedTasks("paused", "two", "build")) == []
    assert found(session, tasks=WantedTasks("flow", task_id="deliver")) == ["msg_a"]
    assert found(session, tasks=WantedTasks("flow", "one", "deliver", -1)) == ["msg_a"]
    assert found(session, tasks=WantedTasks("flow", "one", "deliver", 0)) == []
    assert found(session, receiver="erp") == ["msg_b"]
    assert found(session, receiver="billing.example") == ["msg_a"]
    assert found(session, message_ids=["msg_a", "msg_c"]) == ["msg_a"]
    assert found(session, message_ids=["msgxa"]) == []
    assert found(session, records=[("Leads", 1)]) == []
    assert found(session, records=[("Contacts", 1)]) == ["msg_b", "msg_a"]
    many = [("Leads", number) for number in range(100)]
    assert found(session, records=many) == []
    assert found(session, records=[*many, (None, 1)]) == ["msg_b", "msg_a"]
    assert found(session, since=at(2)) == ["msg_b"]
    assert found(session, until=at(2)) == ["msg_a"]


def test_runs_of_after_a_period_are_not_opened(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only runs that were due by the period's end are read, even if later ledgers were written since."""
    month = 30 * 24 * 60
    before, after = add_run(session, "before"), add_run(session, "after")
    session.execute(update(DagRun).where(DagRun.run_id == "after").values(run_after=at(month)))
    write(session, before, {"msg_a": (1, "A", 1)}, written=2 * month)
    write(session, after, {"msg_b": (1, "A", month + 1)})
    opened: list[str] = []
    ledgers = module._Search._ledgers
    monkeypatch.setattr(
        module._Search,
        "_ledgers",
        lambda self, heads: opened.extend(head.key.run_id for head in heads) or ledgers(self, heads),
    )
    assert found(session, until=at(2)) == ["msg_a"]
    assert opened == ["before"]


def test_a_task_with_several_receivers(session: Session) -> None:
    """If a task delivers several webhooks, each has its own ledger, whatever its name."""
    key = add_run(session, "one")
    for prefix in ("", "erp/", "delivery/", "delivery_2/"):
        write(session, key._replace(prefix=prefix), {f"to {prefix}": (1, "A", 1)})
    assert sorted(found(session)) == ["to ", "to delivery/", "to delivery_2/", "to erp/"]


def test_what_a_later_try_has_taken_over(session: Session) -> None:
    """The current ledger is shown once. A ledger that a killed try has left is not shown."""
    key = add_run(session, "one")
    write(session, key, {"a": (1, "F", 1)})
    rows = {
        row.key: row.value
        for row in session.scalars(select(TaskStateStoreModel))
        if row.key.startswith("delivery/")
    }
    write(session, key, {"a": (1, "A", 2)}, token="2-0000000b")
    store = DatabaseStateStore(session, key)
    for name, value in rows.items():  # as if it could not be deleted
        store.set(name, json.loads(value))
    session.commit()
    page = search_deliveries(session, DeliveryFilter())
    assert [(row.message.state, len(row.message.outcomes)) for row in page.rows] == [("delivered", 2)]


@pytest.mark.parametrize("value", [{"version": 3}, "x", {"__airflow_ref__": "s3://x"}])
def test_a_ledger_that_cannot_be_read_is_counted(session: Session, value: Any) -> None:
    """The other ledgers are shown all the same."""
    write(session, add_run(session, "one"), {"a": (1, "A", 1)})
    key = add_run(session, "two")
    write(session, key, {"b": (2, "A", 2)})
    DatabaseStateStore(session, key).set("delivery", value)
    session.commit()
    page = search_deliveries(session, DeliveryFilter())
    assert [row.message.message_id for row in page.rows] == ["a"]
    assert page.unreadable == 1


def test_what_is_left_to_a_retry_dag_is_not_undelivered(session: Session) -> None:
    """The retry DAG's entry counts for the message, and is the one to send again."""
    write(session, add_run(session, "one"), {"a": (1, "F", 3)}, left_to="flow__retry")
    write(session, add_run(session, "two", "paused"), {"a": (1, "F", 2)})
    assert found(session, state="left") == ["a"]
    rows = search_deliveries(session, DeliveryFilter(state=UNDELIVERED)).rows
    assert [row.key.run_id for row in rows] == ["two"]
    latest = latest_of_each(search_deliveries(session, DeliveryFilter()).rows)
    assert [row.key.run_id for row in latest] == ["two"]


# --- sending again ---------------------------------------------------------------------------------------


def ask(session: Session, **wanted: Any) -> list[Resend]:
    rows = search_deliveries(session, DeliveryFilter(**wanted)).rows
    return list(resend(session, rows, by="ada", what="a test"))


def asked_of(session: Session, key: TaskKey) -> list[LedgerRequest]:
    requests = read_requests(DatabaseStateStore(session, key._replace(prefix="")))
    return [request.of_ledger(key.prefix) for request in requests]


def next_try(session: Session, key: TaskKey, generation: int) -> Ledger:
    """Return the ledger as the task's next try will read it."""
    store = LedgerStore(DatabaseStateStore(session, key), "4-0000000c")
    return store.open(generation, 3, asked_of(session, key))


def task(session: Session, run_id: str) -> TaskInstance:
    session.expire_all()
    return session.scalars(
        select(TaskInstance).where(TaskInstance.run_id == run_id, TaskInstance.task_id == "deliver")
    ).one()


@pytest.mark.parametrize("state", ["success", "failed", "skipped", "upstream_failed"])
def test_a_task_that_has_ended_is_cleared(session: Session, state: str) -> None:
    """Its run is queued again. The request and the audit log name the messages and the user."""
    key = add_run(session, "one", state=state)
    write(session, key, {"a": (1, "A", 1), "b": (2, "F", 1)})
    (result,) = ask(session, message_ids=["a"])
    assert (result.key, result.messages, result.outcome, result.reason) == (key, 1, "cleared", "")
    cleared = task(session, "one")
    assert (cleared.state, cleared.max_tries) == (None, 3 + 2)
    assert session.scalar(select(DagRun.state).where(DagRun.run_id == "one")) == DagRunState.QUEUED
    (request,) = read_requests(DatabaseStateStore(session, key))
    assert (request.by, request.clears) == ("ada", True)
    assert request.messages == {"": {"a": "Contacts 1 updated 2026-01-31T08:00:00Z"}}
    (log,) = session.scalars(select(Log).where(Log.event == "insightly_resend"))
    assert (log.owner, log.dag_id, log.run_id, log.task_id) == ("ada", "flow", "one", "deliver")
    expected = {"request": request.id, "what": "a test", "messages": 1, "outcome": "cleared"}
    assert json.loads(log.extra or "") == expected
    ledger = next_try(session, key, 5)
    assert [message for message in "ab" if not ledger.is_settled(message)] == ["a"]


@pytest.mark.parametrize(
    "state", [None, "scheduled", "queued", "up_for_retry", "up_for_reschedule", "deferred"]
)
def test_a_task_that_is_to_begin_takes_the_request_along(session: Session, state: str | None) -> None:
    """It is not cleared a second time, and sends all its other messages, too."""
    key = add_run(session, "one")
    session.execute(update(TaskInstance).where(TaskInstance.task_id == "deliver").values(state=state))
    session.execute(update(DagRun).values(state="running"))
    write(session, key, {"a": (1, "A", 1), "b": (2, "F", 1)})
    (result,) = ask(session, message_ids=["a"])
    assert (result.outcome, task(session, "one").state) == ("joined", state)
    assert result.reason == ("sent with the task's retry" if state == "up_for_retry" else "")
    ledger = next_try(session, key, 2)
    assert [message for message in "ab" if not ledger.is_settled(message)] == ["a", "b"]


def test_a_task_that_a_run_has_left_behind_is_cleared(session: Session) -> None:
    """Airflow looks at a task without a state in an ended run only if the run is queued again."""
    key = add_run(session, "one")
    session.execute(update(TaskInstance).where(TaskInstance.task_id == "deliver").values(state=None))
    write(session, key, {"a": (1, "A", 1)})
    assert [result.outcome for result in ask(session)] == ["cleared"]
    assert session.scalar(select(DagRun.state)) == DagRunState.QUEUED
    assert [result.outcome for result in ask(session)] == ["joined"]


def test_the_same_request_twice(session: Session) -> None:
    """A repeated request does nothing, but messages that the task has refused may be accepted then."""
    key = add_run(session, "one")
    write(session, key, {"a": (1, "A", 1)})
    rows = search_deliveries(session, DeliveryFilter()).rows

    def ask_once() -> str:
        (result,) = resend(session, rows, by="ada", what="a test", request_id="0123456789ab")
        return result.outcome

    session.execute(update(TaskInstance).where(TaskInstance.task_id == "deliver").values(state="running"))
    session.commit()
    assert refusals(session, rows, at_most=1) == {key: "the task is running: try again when it has ended"}
    assert ask_once() == "refused"
    session.execute(update(TaskInstance).where(TaskInstance.task_id == "deliver").values(state="failed"))
    session.commit()
    assert refusals(session, rows, at_most=1) == {}
    assert [ask_once() for _ in range(3)] == ["cleared", "repeated", "repeated"]
    assert [request.id for request in read_requests(DatabaseStateStore(session, key))] == ["0123456789ab"]
    logs = session.scalars(select(Log).where(Log.event == "insightly_resend").order_by(Log.id))
    assert [json.loads(log.extra or "")["outcome"] for log in logs] == ["refused", "cleared"]
    assert ask(session)[0].outcome == "joined"


def test_a_message_to_two_receivers(session: Session) -> None:
    """Both receivers get it again, although it has one id."""
    write(session, add_run(session, "one"), {"a": (1, "A", 1)})
    write(session, add_run(session, "two", "paused"), {"a": (1, "A", 2)}, conn_id="erp")
    latest = latest_of_each(search_deliveries(session, DeliveryFilter()).rows)
    assert [row.key.run_id for row in latest] == ["two", "one"]


def test_a_dry_run_is_not_sent_again(session: Session) -> None:
    """A cleared dry run would be a dry run again. A real delivery of the same message is used instead."""
    write(session, add_run(session, "one"), {"a": (1, "A", 1)})
    write(session, add_run(session, "two"), {"a": (1, "U", 2), "b": (2, "U", 2)}, dry_run="yes")
    rows = latest_of_each(search_deliveries(session, DeliveryFilter()).rows)
    results = list(resend(session, rows, by="ada", what="a test"))
    assert [(result.key.run_id, result.outcome) for result in results] == [
        ("one", "cleared"),
        ("two", "refused"),
    ]
    assert results[1].reason.startswith("it was a dry run: turn off the workflow's dry run and clear")


def test_a_dag_that_is_gone_is_told_of(session: Session) -> None:
    """The answer says so. The task is cleared, and sends when the DAG is back."""
    write(session, add_run(session, "one"), {"a": (1, "A", 1)})
    session.execute(update(DagModel).values(is_stale=True))
    (result,) = ask(session)
    assert result.reason == "the DAG's file is gone or broken: the messages are sent once it is restored"


def test_two_requests_at_once(session: Session) -> None:
    """The first request clears the task, and the second joins it. Both are carried out."""
    key = add_run(session, "one")
    write(session, key, {"a": (1, "A", 1), "b": (2, "A", 1), "c": (3, "F", 1)})
    assert [ask(session, message_ids=[message])[0].outcome for message in "ab"] == ["cleared", "joined"]
    ledger = next_try(session, key, 5)
    assert [message for message in "abc" if not ledger.is_settled(message)] == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (update(TaskInstance).values(state="running"), "the task is running: try again when it has ended"),
        (update(TaskInstance).values(state="restarting"), "the task is running: try again"),
        (update(TaskInstance).values(state="removed"), "the run no longer has this task: clear the run's"),
        (update(TaskInstance).values(task_id="gone"), "the run no longer has this task: clear the run's"),
    ],
)
def test_what_cannot_be_sent_again(session: Session, change: Any, reason: str) -> None:
    """The answer says so, and what to do. Nothing is written or cleared; other tasks' messages are sent."""
    key = add_run(session, "one")
    write(session, key, {"a": (1, "A", 1)})
    session.execute(change.where(TaskInstance.task_id == "deliver"))
    session.commit()
    other = add_run(session, "two")
    write(session, other, {"b": (1, "A", 1)})
    refused, asked = ask(session)
    assert (refused.outcome, asked.outcome) == ("refused", "cleared")
    assert refused.reason.startswith(reason)
    assert read_requests(DatabaseStateStore(session, key)) == []
    assert len(read_requests(DatabaseStateStore(session, other))) == 1


def test_payloads_that_are_gone(session: Session) -> None:
    """If the earlier task's XCom is deleted, a cleared task would send nothing. The answer says so."""
    write(session, add_run(session, "one"), {"a": (1, "A", 1)})
    session.query(XComModel).delete()
    session.commit()
    (result,) = ask(session)
    assert result.outcome == "refused"
    assert result.reason.startswith("its payloads are gone from XCom: clear the run's first task")
    assert task(session, "one").state == TaskInstanceState.FAILED


def test_a_task_that_reads_its_records_itself_needs_no_xcom(session: Session) -> None:
    """An example is a workflow in one task, even with tasks before it."""
    with DAG("whole", schedule=None) as dag:
        before = BuildPayloadOperator(task_id="build", changes=[])
        whole = Workflow(name="w", record_type="Contacts", webhooks=[Webhook(name="billing", conn_id="b")])
        before >> InsightlyWorkflowOperator(task_id="deliver", workflow=whole)
    add_dag(session, dag)
    write(session, add_run(session, "one", "whole")._replace(prefix="billing/"), {"a": (1, "A", 1)})
    session.query(XComModel).delete()
    session.commit()
    (result,) = ask(session)
    assert (result.outcome, result.messages) == ("cleared", 1)


def test_a_paused_dag_is_told_of(session: Session) -> None:
    """The answer says so. The task is cleared, and sends when the DAG is unpaused."""
    write(session, add_run(session, "one", "paused"), {"a": (1, "A", 1)})
    (result,) = ask(session)
    assert (result.outcome, result.reason) == ("cleared", "the DAG is paused: unpause it")


def test_a_dag_that_may_have_no_run_more_is_told_of(session: Session) -> None:
    """If one run may be active and it waits for a change, the cleared run waits for its end."""
    write(session, add_run(session, "one"), {"a": (1, "F", 1)})
    add_run(session, "waits")
    session.execute(update(DagRun).where(DagRun.run_id == "waits").values(state=DagRunState.RUNNING))
    session.execute(update(DagModel).where(DagModel.dag_id == "flow").values(max_active_runs=1))
    session.commit()
    (result,) = ask(session)
    assert result.outcome == "cleared"
    assert result.reason.startswith("the DAG has its greatest number of active runs (max_active_runs: 1)")
    session.execute(update(DagModel).where(DagModel.dag_id == "flow").values(max_active_runs=2))
    session.commit()
    (result,) = ask(session)
    assert (result.outcome, result.reason) == ("joined", "")


def test_a_task_that_was_cleared_for_one_receiver_leaves_the_others(session: Session) -> None:
    """Undelivered messages of the task's other webhooks stay undelivered until they are asked for."""
    key = add_run(session, "one")
    erp = key._replace(prefix="erp/")
    write(session, key, {"a": (1, "A", 1)})
    write(session, erp, {"b": (1, "F", 1)})
    (result,) = ask(session, message_ids=["a"])
    assert result.messages == 1
    ledgers = [next_try(session, of, 5) for of in (key, erp)]
    assert [ledger.is_settled(message) for ledger, message in zip(ledgers, "ab", strict=True)] == [
        False,
        True,
    ]


def test_too_many_requests(session: Session) -> None:
    """A task that never begins keeps 50 requests. Requests that it has begun make room for new ones."""
    key = add_run(session, "one")
    write(session, key, {"a": (1, "A", 1)})
    outcomes = [ask(session)[0].outcome for _ in range(51)]
    assert outcomes == ["cleared", *["joined"] * 49, "refused"]
    writer = LedgerStore(DatabaseStateStore(session, key), "4-0000000c")
    writer.write(writer.open(5, 3, asked_of(session, key)))
    session.commit()
    assert ask(session)[0].outcome == "joined"
    assert len(read_requests(DatabaseStateStore(session, key))) == 50


def test_many_messages_of_one_request(session: Session) -> None:
    """Each stored value stays below a state store's limit, for any number of messages."""
    key = add_run(session, "one")
    write(session, key, {f"msg_{number:024}": (number, "A", 1) for number in range(2_000)})
    rows: list[Delivery] = search_deliveries(session, DeliveryFilter(), limit=5_000).rows
    (result,) = resend(session, rows, by="ada", what="all")
    assert (result.messages, result.outcome) == (2_000, "cleared")
    assert max(len(row.value) for row in session.scalars(select(TaskStateStoreModel))) < 60_000
    (request,) = read_requests(DatabaseStateStore(session, key))
    assert len(request.messages[""]) == 2_000
