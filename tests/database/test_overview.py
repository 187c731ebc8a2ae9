"""An overview of workflows, receivers and accounts, on Airflow's own tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.models import DagModel
from airflow.models.asset import DagScheduleAssetReference
from airflow.models.dagrun import DagRun
from airflow.models.task_state_store import TaskStateStoreModel
from airflow.sdk import DAG
from sqlalchemy import event, update
from sqlalchemy.orm import Session

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.core.delivery.receiver_status import RECEIVER, ReceiverStatus
from airflow_insightly_hooks.core.state.pending_webhooks import PendingWebhook, PendingWebhooks, pending_key
from airflow_insightly_hooks.core.state.retry_queue import RETRY, MessageSource, RetryQueue
from airflow_insightly_hooks.core.state.run_counts import RUN_COUNTS, RunCounts
from airflow_insightly_hooks.database import pending as pending_module
from airflow_insightly_hooks.database.deliveries import TaskKey
from airflow_insightly_hooks.database.overview import ledgers as ledgers_module
from airflow_insightly_hooks.database.overview.accounts import Account
from airflow_insightly_hooks.database.overview.activity import Activity
from airflow_insightly_hooks.database.overview.overview import read_overview
from airflow_insightly_hooks.database.overview.receivers import ReceiverHealth
from airflow_insightly_hooks.database.pending import pending_counts
from airflow_insightly_hooks.database.state import DatabaseStateStore
from airflow_insightly_hooks.hooks.assets import records_asset
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from airflow_insightly_hooks.workflows.dag import workflow_dags
from tests.database.test_deliveries import START, add_run, at, write
from tests.metadata_database import AssetState, add_dag, asset_of, fill, metadata_database

NOW = START + timedelta(hours=4)
ALL = ("flow", "flow__retry", "flow__pending", "own", "alien")
ASSET = records_asset("insightly_default", "Contacts")


@pytest.fixture
def session() -> Iterator[Session]:
    """A workflow with its three DAGs, a user's DAG that delivers, and a DAG without this package."""
    with metadata_database() as sessions, sessions() as session:
        fill(session, _add_dags)
        yield session


def _add_dags(session: Session) -> None:
    webhooks = [Webhook(name="w", conn_id="billing"), Webhook(name="later", conn_id="billing", after="3d")]
    flow = Workflow(name="Flow", record_type="Contacts", webhooks=webhooks)
    with DAG("own", schedule=None) as own:
        WebhookOperator(task_id="deliver", payloads=[])
    for dag in (*workflow_dags(flow), own, DAG("alien", schedule=None)):
        add_dag(session, dag)


def run_of(session: Session, run_id: str, dag_id: str = "flow") -> TaskKey:
    return add_run(session, run_id, dag_id)._replace(task_id="deliver_w" if dag_id != "own" else "deliver")


def put(session: Session, key: TaskKey, name: str, value: Any, moment: datetime) -> None:
    """Have a task store a value at a time."""
    DatabaseStateStore(session, key).set(name, value)
    session.execute(
        update(TaskStateStoreModel)
        .where(TaskStateStoreModel.dag_run_id == key.dag_run_id, TaskStateStoreModel.key == key.prefix + name)
        .values(updated_at=moment)
    )
    session.commit()


def count(session: Session, key: TaskKey, moment: datetime, **counts: Any) -> None:
    put(session, key, RUN_COUNTS, RunCounts(**counts).as_dict(), moment)


def of(session: Session, dag_id: str = "flow", now: datetime = NOW) -> Activity:
    return read_overview(session, ALL, now).activity[dag_id]


def asset_state(session: Session) -> AssetState:
    return AssetState(session, asset_of(session, ASSET), "flow")


# --- workflows ---------------------------------------------------------------------------------------------


def test_workflows_are_found_by_their_assets_and_ledgers(session: Session) -> None:
    """The DAGs that send for a workflow are part of it. A user's DAG is listed once it has delivered."""
    assert [w.dag_id for w in read_overview(session, ALL, NOW).workflows] == ["flow"]
    write(session, run_of(session, "one", "own"), {"a": (1, "A", 1)})
    run_of(session, "first")
    last = run_of(session, "last")
    session.execute(update(DagModel).where(DagModel.dag_id == "flow").values(is_paused=True))
    session.execute(
        update(DagRun).where(DagRun.id == last.dag_run_id).values(start_date=at(1), end_date=at(2))
    )
    flow, own = read_overview(session, ALL, NOW).workflows
    assert flow[:4] == ("flow", "flow", True, False)
    assert flow.last_run == ("last", "failed", at(1), at(2))
    assert flow.sending_dag_ids == ("flow__pending", "flow__retry")
    assert (own.dag_id, own.sending_dag_ids) == ("own", ())


def test_a_schedule_makes_a_dag_ours(session: Session) -> None:
    """A DAG that one of this package's assets triggers is listed."""
    asset_id = asset_of(session, ASSET)
    session.add(DagScheduleAssetReference(asset_id=asset_id, dag_id="alien"))
    session.commit()
    assert [w.dag_id for w in read_overview(session, ALL, NOW).workflows] == ["alien", "flow"]


@pytest.mark.parametrize("most", [0, 500])
def test_nobody_hears_of_dags_that_are_not_theirs(
    session: Session, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """This holds for any number of DAGs. If the user may not see a workflow, its sending DAG stands alone."""
    monkeypatch.setattr(ledgers_module, "MOST_IDS", most)
    monkeypatch.setattr(pending_module, "MOST_PREFIXES", most)
    key = run_of(session, "one")
    write(session, key, {"a": (1, "F", 1)}, webhook="flow/w")
    count(session, key, at(1), detected=1, requests_left=5, requests_a_day=9, insightly_conn_id="crm")
    write(session, run_of(session, "two", "flow__retry"), {"b": (1, "A", 1)})
    store = asset_state(session)
    store.set(f"{RECEIVER}/flow/w", ReceiverStatus(at(1), at(500), "flow/one", True, "503").as_dict())
    PendingWebhooks(store, pending_key("flow", "later")).add([PendingWebhook(1, NOW, "added", "2026-01-31")])
    assert read_overview(session, ["alien"], NOW)[:4] == ([], {}, [], [])
    assert not pending_counts(session, ["alien"]).counts
    assert read_overview(session, [], NOW)[:4] == ([], {}, [], [])
    (retry,) = read_overview(session, ["flow__retry"], NOW).workflows
    assert retry.dag_id == "flow__retry"
    assert list(read_overview(session, ["flow__retry"], NOW).activity) == ["flow__retry"]


# --- what they have done -----------------------------------------------------------------------------------


def test_counts_of_a_day_and_of_thirty(session: Session) -> None:
    """Counts go by the time of writing. Those older than 30 days are left out."""
    for days, letter in ((0, "A"), (2, "F"), (29, "A"), (31, "A")):
        key = run_of(session, f"run_{days}")
        write(session, key, {f"a{days}": (1, letter, -days * 1440.0), f"b{days}": (2, "A", -days * 1440.0)})
        detect = key._replace(task_id="detect")
        count(session, detect, at(-days * 1440), detected=10)
        count(session, key._replace(task_id="evaluate"), at(-days * 1440), met=2)
    found = of(session)
    assert found.last_day == (10, 2, 2, 0, 0)
    assert found.last_days == (30, 6, 5, 1, 0)
    assert found.counted_since == at(-29 * 1440)
    assert [(day.day, *day[1:]) for day in found.days if any(day[1:])] == [
        (at(-29 * 1440).date(), 2, 0),
        (at(-2 * 1440).date(), 1, 1),
        (at(0).date(), 2, 0),
    ]
    assert len(found.days) == 30
    assert sum(day.delivered for day in found.days) == found.last_days.delivered


def test_a_left_message_counts_once(session: Session) -> None:
    """It counts at its retry DAG. Undelivered are the same states as in a search for ``undelivered``."""
    write(session, run_of(session, "one"), {"a": (1, "A", 1), "b": (2, "F", 1)}, left_to="flow__retry")
    assert of(session).last_day == (None, None, 1, 0, 0)
    write(session, run_of(session, "again", "flow__retry"), {"b": (2, "F", 2)})
    write(session, run_of(session, "due", "flow__pending"), {"c": (3, "G", 2), "d": (4, "D", 2)})
    write(session, run_of(session, "dry"), {"e": (5, "U", 3)}, dry_run="yes")
    assert of(session).last_day == (None, None, 1, 3, 0)


def test_mapped_tasks_are_summed(session: Session) -> None:
    """Each map index has a row of its own in the state."""
    key = run_of(session, "one")._replace(task_id="detect")
    for index in range(3):
        count(session, key._replace(map_index=index), at(1), detected=index)
    assert of(session).last_day.detected == 3


def test_the_ledger_of_a_killed_try_does_not_count(session: Session) -> None:
    """The later try's ledger counts. Before it is written, the killed try's ledger counts."""
    key = run_of(session, "one")
    write(session, key, {"a": (1, "F", 1)}, token="1-0000000a")
    head = DatabaseStateStore(session, key).get("delivery/1-0000000a/head")
    write(session, key, {"a": (1, "A", 2)}, token="2-0000000b")
    put(session, key, "delivery/1-0000000a/head", head, at(3))
    assert of(session).last_day[2:] == (1, 0, 0)
    store, name = DatabaseStateStore(session, key), "delivery/2-0000000b/head"
    newest = store.get(name)
    store.delete(name)
    put(session, key, name, newest, at(2))  # whichever of the rows is older
    assert of(session).last_day[2:] == (1, 0, 0)
    claim = DatabaseStateStore(session, key).get("delivery")
    claim = {**claim, "token": "3-0000000c", "of": ["2-0000000b", "1-0000000a"]}
    put(session, key, "delivery", claim, at(3))
    assert of(session).last_day[2:] == (1, 0, 0)


def test_what_cannot_be_read_is_counted(session: Session) -> None:
    """Claims, heads and counts of another version or another backend are counted, without an error."""
    for number, claim in enumerate(({"version": 9}, 5, {"version": 1, "generation": 0, "blocks": 1})):
        put(session, run_of(session, f"claim_{number}"), "delivery", claim, at(1))
    key = run_of(session, "head")
    write(session, key, {"a": (1, "A", 1)}, token="1-0000000a")
    put(session, key, "delivery", {"version": 9}, at(1))
    put(session, run_of(session, "counts"), RUN_COUNTS, {"__airflow_state_ref__": "x"}, at(1))
    old = run_of(session, "old")
    write(session, old, {"a": (1, "A", 1)}, token="1-0000000a")
    put(session, old, "delivery/1-0000000a/head", {"generation": 0, "blocks": 1}, at(1))
    found = of(session)
    assert found.unreadable == 5
    assert found.last_day == (None, None, 0, 0, 1)


# --- receivers ---------------------------------------------------------------------------------------------


def health(session: Session, **given: Any) -> ReceiverHealth:
    (found,) = read_overview(session, ALL, given.get("now", NOW)).receivers
    return found


def test_a_receiver_that_fails(session: Session) -> None:
    """The overview has since when, until when, why, and how many messages wait, until it takes a message."""
    write(session, run_of(session, "ok"), {"a": (1, "A", 1)}, webhook="flow/w")
    write(session, run_of(session, "bad"), {"b": (2, "F", 20)}, webhook="flow/w")
    write(session, run_of(session, "also", "own"), {"c": (3, "F", 21)})
    store = asset_state(session)
    status = ReceiverStatus(at(20), at(300), "flow/bad", True, "answered 503")
    store.set(f"{RECEIVER}/flow/w", status.as_dict())
    queue = RetryQueue(store, f"{RETRY}/flow/w")
    queue.enter(MessageSource("flow", "bad", "deliver_w", -1, "build_w", 7), "from__x", at(300))
    found = health(session)
    assert (found.conn_id, found.address) == ("billing", "https://billing.example.com/in")
    assert (found.dag_ids, found.webhooks) == (("flow", "own"), ("flow/w",))
    assert (found.last_success, found.failing_since, found.retry_at) == (at(1), at(20), at(300))
    assert (found.error, found.waiting, found.undelivered) == ("answered 503", 7, 2)
    assert health(session, now=at(301)).retry_at is None
    store.set(f"{RECEIVER}/flow/w", status._replace(is_down=False, retry_at=at(20)).as_dict())
    found = health(session)
    assert (found.failing_since, found.retry_at, found.error) == (None, None, None)


def test_a_receiver_that_has_taken_nothing_of_the_last_task(session: Session) -> None:
    """If a user's DAG delivered nothing at last, the receiver counts as failing until it takes a message."""
    write(session, run_of(session, "ok", "own"), {"a": (1, "A", 1)})
    write(session, run_of(session, "under_way", "own"), {"b": (2, "D", 10)})
    assert health(session).failed_at is None, "its outcome is not known yet"
    write(session, run_of(session, "bad", "own"), {"c": (3, "F", 20)})
    write(session, run_of(session, "left"), {"d": (4, "F", 21)}, left_to="flow__retry")
    assert (health(session).last_success, health(session).failed_at) == (at(1), at(20))
    write(session, run_of(session, "some", "own"), {"e": (5, "A", 30), "f": (6, "F", 31)})
    assert (health(session).last_success, health(session).failed_at) == (at(30), None)


def test_a_status_is_found_without_its_ledger_telling(session: Session) -> None:
    """An earlier version's ledger is matched by its task's name. Without one, the webhook is listed alone."""
    status = ReceiverStatus(at(20), at(300), "flow/bad", True, "no such connection")
    asset_state(session).set(f"{RECEIVER}/flow/w", status.as_dict())
    now = datetime.now(timezone.utc)
    (alone,) = read_overview(session, ALL, now).receivers
    assert (alone.conn_id, alone.address, alone.webhooks) == (None, None, ("flow/w",))
    assert read_overview(session, ALL, now + timedelta(days=31)).receivers == []
    write(session, run_of(session, "bad"), {"b": (2, "F", 20)})
    assert health(session)[:4] == ("billing", "https://billing.example.com/in", ("flow",), ("flow/w",))


def test_a_receivers_state_that_cannot_be_read(session: Session) -> None:
    """It is counted."""
    store = asset_state(session)
    store.set(f"{RECEIVER}/flow/w", {"version": 9})
    store.set(f"{RETRY}/flow/w", {"version": 9})
    store.set(f"{RETRY}/flow", ["flow/w"])
    assert health(session).unreadable == 2


# --- accounts, and what is pending -------------------------------------------------------------------------


def test_an_accounts_requests_are_those_of_today(session: Session) -> None:
    """The newest count of today is used. Counts of earlier days are ignored."""
    assert read_overview(session, ALL, NOW).accounts == [Account("insightly_default", None, None, None)]
    for number, left in enumerate((50, 40, 45)):
        moment = at((0, 20, 10)[number])
        counts = {"requests_left": left, "requests_a_day": 100, "insightly_conn_id": "insightly_default"}
        count(session, run_of(session, f"run_{number}"), moment, detected=0, **counts)
    assert read_overview(session, ALL, NOW).accounts == [Account("insightly_default", 40, 100, at(20))]
    tomorrow = read_overview(session, ALL, NOW + timedelta(days=1))
    assert tomorrow.accounts == [Account("insightly_default", None, None, at(20))]


def test_pending_webhooks_are_counted(session: Session) -> None:
    """Webhooks that are being sent don't count. Unreadable state is reported."""
    store = asset_state(session)
    pending = PendingWebhooks(store, pending_key("flow", "later"))
    pending.add(PendingWebhook(record, NOW, "added", "2026-01-31") for record in range(1, 1_202))
    pending.decide("run", take=lambda entries: entries[:1])
    assert len(pending) == 1_200
    assert pending_counts(session, ALL) == ({"flow": 1_200}, {})
    store.delete(f"{pending_key('flow', 'later')}/1")
    assert pending_counts(session, ALL).unreadable == {"flow": 1}


def test_no_xcom_is_read(session: Session) -> None:
    """The overview takes a handful of statements for any amount of data, and reads no XCom."""
    write(session, run_of(session, "one"), {"a": (1, "A", 1)})
    statements: list[str] = []
    bind = session.get_bind()

    def keep(*given: Any) -> None:
        statements.append(given[2])

    event.listen(bind, "before_cursor_execute", keep)
    found = read_overview(session, ALL, NOW)
    event.remove(bind, "before_cursor_execute", keep)
    assert found.activity["flow"].last_day.delivered == 1
    assert len(statements) <= 8
    assert "xcom" not in json.dumps(statements).lower()
    assert "serialized_dag" not in json.dumps(statements).lower()
