"""Pending webhooks in the metadata database, and requests to cancel them or to send them now."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.models import DagModel, DagRun
from airflow.sdk import DAG
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.core.state.pending_request import request_in
from airflow_insightly_hooks.core.state.pending_webhooks import PendingWebhook, PendingWebhooks, pending_key
from airflow_insightly_hooks.database import pending as module
from airflow_insightly_hooks.database.pending import (
    PendingDag,
    PendingDagNotFound,
    PendingRow,
    cancel,
    pending_webhooks,
    send_now,
)
from airflow_insightly_hooks.hooks.assets import records_asset
from airflow_insightly_hooks.operators.pending import DueWebhooksOperator
from airflow_insightly_hooks.workflows.dag import _pending_dag
from tests.metadata_database import AssetState, add_dag, asset_of

NOON = datetime(2026, 1, 10, 12, tzinfo=timezone.utc)
CHANGED_AT = "2026-01-09T12:00:00Z"
LATER = {"after": timedelta(days=3)}


def add_workflow(session: Session, name: str, *webhooks: str, record_type: str = "Contacts") -> DAG:
    """Have Airflow know the DAG that sends a workflow's pending webhooks."""
    workflow = Workflow(
        name=name,
        record_type=record_type,
        webhooks=[Webhook(name=webhook, conn_id="c", **LATER) for webhook in webhooks],
    )
    dag = _pending_dag(workflow)
    assert dag is not None
    add_dag(session, dag)
    return dag


def book(
    session: Session, workflow: str, webhook: str, record_type: str = "Contacts", writer: str | None = None
) -> PendingWebhooks:
    asset_id = asset_of(session, records_asset("insightly_default", record_type))
    return PendingWebhooks(AssetState(session, asset_id, writer), pending_key(workflow, webhook))


def entry(record_id: int, hours: int = 0, changed_at: str = CHANGED_AT) -> PendingWebhook:
    return PendingWebhook(record_id, NOON + timedelta(hours=hours), "added", changed_at)


def row(record_id: int, hours: int = 0, **other: Any) -> PendingRow:
    return PendingRow(
        NOON + timedelta(hours=hours),
        "won",
        "check",
        "Contacts",
        record_id,
        "added",
        CHANGED_AT,
        "won__pending",
    )._replace(**other)


def queued(session: Session, dag_id: str) -> list[DagRun]:
    return list(session.scalars(select(DagRun).where(DagRun.dag_id == dag_id).order_by(DagRun.id)))


def add_run(session: Session, dag_id: str, run_id: str, state: str) -> None:
    session.add(DagRun(dag_id=dag_id, run_id=run_id, run_type=DagRunType.MANUAL, state=state))
    session.commit()


# --- what is pending ---------------------------------------------------------------------------------------


def test_the_webhooks_of_all_workflows_by_their_time(session: Session) -> None:
    """Each has its workflow, webhook, record and change. A part of them can be asked for."""
    add_workflow(session, "Won", "Check", "Survey")
    add_workflow(session, "Lost", "Ask why", record_type="Opportunities")
    book(session, "won", "check").add([entry(1, 5), entry(2, 1)])
    book(session, "won", "survey").add([entry(1, 3)])
    book(session, "lost", "ask_why", "Opportunities").add([entry(9, 2)])
    rows = [
        row(2, 1),
        row(
            9,
            2,
            dag_id="lost",
            webhook="ask_why",
            record_type="Opportunities",
            pending_dag_id="lost__pending",
        ),
        row(1, 3, webhook="survey"),
        row(1, 5),
    ]
    page = pending_webhooks(session)
    assert page == (
        rows,
        4,
        [PendingDag("lost__pending", False, 0), PendingDag("won__pending", False, 0)],
        [],
    )
    assert pending_webhooks(session, limit=2, offset=1)[:2] == (rows[1:3], 4)
    assert pending_webhooks(session, limit=2, offset=9)[:2] == ([], 4)
    assert pending_webhooks(session, dag_ids=["won"]).rows == [rows[0], *rows[2:]]
    assert pending_webhooks(session, dag_ids=["lost", "nothing"]).rows == rows[1:2]
    assert pending_webhooks(session, webhooks=["check", "ask_why"]).rows == [rows[0], rows[1], rows[3]]
    assert pending_webhooks(session, record_ids=[1, 9]).rows == rows[1:]
    assert pending_webhooks(session, dag_ids=["won"], webhooks=["check"], record_ids=[1]).rows == rows[3:]


def test_a_name_is_no_pattern(session: Session) -> None:
    """``a_b`` is not ``axb``, although SQL's LIKE takes it so; nor is it the beginning of ``a_b_c``."""
    for name in ("a_b", "axb", "a_b_c"):
        book(session, name, "later").add([entry(1)])
    assert [found.dag_id for found in pending_webhooks(session, dag_ids=["a_b"]).rows] == ["a_b"]


def test_many_workflows(session: Session) -> None:
    """More workflows than a query can name: still, only those that were asked for are listed."""
    for name in ("won", "lost"):
        book(session, name, "check").add([entry(1)])
    names = ["won", *(f"other{number}" for number in range(2_000))]
    assert [found.dag_id for found in pending_webhooks(session, dag_ids=names).rows] == ["won"]


@pytest.mark.parametrize("webhook", ["0", "kept"])
def test_webhooks_whose_names_look_like_blocks(session: Session, webhook: str) -> None:
    """Heads are distinguished from blocks by their contents."""
    book(session, "won", webhook).add([entry(1)])
    page = pending_webhooks(session)
    assert [(found.dag_id, found.webhook) for found in page.rows] == [("won", webhook)]
    assert page.unreadable == []


def test_what_a_run_has_taken_is_not_pending(session: Session) -> None:
    """A taken webhook is about to be sent."""
    book(session, "won", "check").add([entry(1), entry(2)])
    book(session, "won", "check").decide("run", take=lambda waiting: waiting[:1])
    assert [found.record_id for found in pending_webhooks(session).rows] == [2]


def test_state_that_cannot_be_read_hides_no_other(session: Session) -> None:
    """A lost head, and values that workers keep elsewhere, are named."""
    for name in ("lost", "elsewhere", "won"):
        book(session, name, "check").add([entry(1)])
    state = AssetState(session, asset_of(session, records_asset("insightly_default", "Contacts")))
    state.delete("pending/lost/check")
    for key in ("pending/elsewhere/check", "pending/elsewhere/check/0", "pending/elsewhere/check/kept"):
        state.set(key, {"__airflow_state_ref__": "s3://bucket/1"})
    page = pending_webhooks(session)
    assert [found.dag_id for found in page.rows] == ["won"]
    assert [error.key for error in page.unreadable] == ["pending/elsewhere/check", "pending/lost/check"]
    assert "[workers] state_store_backend" in str(page.unreadable[0])


def test_the_dag_that_sends_is_told(session: Session) -> None:
    """It may be a user's DAG. No DAG is named if it is gone, or now reads another record type."""
    with DAG("mine", schedule=None) as own:
        DueWebhooksOperator(task_id="due", webhook="check", workflow="flow", record_type="Contacts")
    add_dag(session, own)
    add_workflow(session, "Moved", "Check", record_type="Leads")
    add_workflow(session, "Stale", "Check")
    session.execute(update(DagModel).where(DagModel.dag_id == "stale__pending").values(is_stale=True))
    book(session, "flow", "check", writer="mine").add([entry(1)])
    for name in ("moved", "stale", "gone"):
        book(session, name, "check").add([entry(1)])
    senders = {found.dag_id: found.pending_dag_id for found in pending_webhooks(session).rows}
    assert senders == {"flow": "mine", "moved": None, "stale": None, "gone": None}


def test_paused_dags_and_what_they_have_not_entered(session: Session) -> None:
    """A paused DAG has not entered its webhooks in the state yet, so its queued runs are counted."""
    add_workflow(session, "Won", "Check")
    add_workflow(session, "Idle", "Check")
    session.execute(update(DagModel).where(DagModel.dag_id == "won__pending").values(is_paused=True))
    add_run(session, "won__pending", "from__1", DagRunState.QUEUED)
    add_run(session, "won__pending", "from__2", DagRunState.SUCCESS)
    add_run(session, "won__pending", "due__2026", DagRunState.QUEUED)
    page = pending_webhooks(session)
    assert (page.rows, page.dags) == ([], [PendingDag("won__pending", True, 1)])
    assert pending_webhooks(session, dag_ids=["idle"]).dags == []
    assert pending_webhooks(session, dag_ids=["won"]).dags == page.dags


# --- requests ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ask", "action"), [(cancel, "cancel"), (send_now, "send_now")])
def test_a_request_is_a_run_that_names_the_entries(session: Session, ask: Any, action: str) -> None:
    """Each DAG gets one run with the user's name. It names the seen entries, and no others of the records."""
    add_workflow(session, "Won", "Check", "Survey")
    add_workflow(session, "Lost", "Check")
    session.execute(update(DagModel).where(DagModel.dag_id == "lost__pending").values(is_paused=True))
    for name, webhook in (("won", "check"), ("won", "survey"), ("lost", "check")):
        book(session, name, webhook).add([entry(1), entry(2)])
    rows = pending_webhooks(session, record_ids=[1]).rows
    runs = ask(session, rows, who="anna")
    session.commit()
    assert sorted((run.dag_id, run.entries, run.is_paused) for run in runs) == [
        ("lost__pending", 1, True),
        ("won__pending", 2, False),
    ]
    (run,) = queued(session, "won__pending")
    assert run.run_id == next(asked.run_id for asked in runs if asked.dag_id == "won__pending")
    assert (run.state, run.run_type, run.triggering_user_name) == ("queued", "manual", "anna")
    assert run.triggered_by == DagRunTriggeredByType.CLI
    assert run.note == f"2 pending webhooks: {action.replace('_', ' ')}, requested by anna"
    assert (run.conf["pending_request"]["action"], run.conf["pending_request"]["requested_by"]) == (
        action,
        "anna",
    )
    assert run.conf["pending_request"]["entries"] == {"check": {"1": CHANGED_AT}, "survey": {"1": CHANGED_AT}}
    asked_for = request_in({}, run.conf, "survey")
    meant = asked_for.cancels if action == "cancel" else asked_for.sends_now
    again = "2026-01-11T00:00:00Z"
    assert [meant(e) for e in (entry(1), entry(2), entry(1, changed_at=again))] == [True, False, False]
    assert [len(found) for found in (pending_webhooks(session).rows,)] == [6]  # only a due task writes


def test_a_large_request_is_several_runs(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run has a part of the entries, so that its conf stays small."""
    monkeypatch.setattr(module, "ENTRIES_IN_RUN", 2)
    add_workflow(session, "Won", "Check")
    book(session, "won", "check").add([entry(record_id) for record_id in range(1, 6)])
    runs = send_now(session, pending_webhooks(session).rows, who="anna")
    assert [run.entries for run in runs] == [2, 2, 1]
    found = [run.conf["pending_request"]["entries"]["check"] for run in queued(session, "won__pending")]
    assert sorted(int(record_id) for part in found for record_id in part) == [1, 2, 3, 4, 5]


def test_two_users_who_ask_at_once_both_get_their_runs(session: Session) -> None:
    """The second run finds nothing to do, and its log says so."""
    add_workflow(session, "Won", "Check")
    book(session, "won", "check").add([entry(1)])
    rows = pending_webhooks(session).rows
    for who in ("anna", "ben"):
        cancel(session, rows, who=who, triggered_by=DagRunTriggeredByType.UI)
    assert [run.triggering_user_name for run in queued(session, "won__pending")] == ["anna", "ben"]


def test_what_no_dag_sends_is_refused_before_anything_is_asked(session: Session) -> None:
    """This also holds if the DAG has gone since the rows were read."""
    add_workflow(session, "Won", "Check")
    add_workflow(session, "Lost", "Check")
    for name in ("won", "lost"):
        book(session, name, "check").add([entry(1)])
    rows = pending_webhooks(session, dag_ids=["won", "lost"]).rows
    session.execute(update(DagModel).where(DagModel.dag_id == "lost__pending").values(is_stale=True))
    for asked in (rows, [row(1), row(1, dag_id="gone", pending_dag_id=None)]):
        with pytest.raises(
            PendingDagNotFound, match=r"no DAG sends the pending entries of (lost|gone)/check"
        ):
            cancel(session, asked, who="anna")
    assert queued(session, "won__pending") == []


def test_ten_thousand_entries(session: Session) -> None:
    """All entries are read, and shown in parts."""
    add_workflow(session, "Won", "Check")
    book(session, "won", "check").add([entry(record_id, record_id % 50) for record_id in range(1, 10_001)])
    page = pending_webhooks(session, limit=100, offset=5_000)
    assert (len(page.rows), page.total) == (100, 10_000)
    assert page.rows[0] == row(25, 25)
