"""Runs with ledgers in Airflow's database, as deliver tasks leave them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.models.task_state_store import TaskStateStoreModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.sdk import DAG
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import update
from sqlalchemy.orm import Session

from airflow_insightly_hooks.core.delivery.delivery_record import PostOutcome, about_of
from airflow_insightly_hooks.core.delivery.ledger import ACKNOWLEDGED, FAILED, GONE, IN_DOUBT
from airflow_insightly_hooks.core.delivery.ledger_store import LedgerStore
from airflow_insightly_hooks.database.deliveries import TaskKey
from airflow_insightly_hooks.database.state import DatabaseStateStore
from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from tests.metadata_database import add_dag

__all__ = ["START", "STATES", "add_flow", "add_run", "at", "write"]

START = datetime(2026, 1, 31, 8, tzinfo=timezone.utc)
STATES = {"A": ACKNOWLEDGED, "F": FAILED, "G": GONE, "D": IN_DOUBT, "U": None}


def at(minute: float) -> datetime:
    return START + timedelta(minutes=minute)


def add_flow(session: Session, dag_id: str, *, is_paused: bool = False) -> None:
    """Add a DAG whose task ``build`` makes payloads, and whose task ``deliver`` sends them."""
    with DAG(dag_id, schedule=None) as dag:
        built = BuildPayloadOperator(task_id="build", changes=[])
        WebhookOperator(task_id="deliver", payloads=built.output)
    add_dag(session, dag, is_paused=is_paused)


def add_run(session: Session, run_id: str, dag_id: str = "flow", state: str = "failed") -> TaskKey:
    """Add a run whose deliver task has a state, and whose build task has pushed an XCom."""
    from airflow.models.dagbag import DBDagBag

    dag = DBDagBag().get_latest_version_of_dag(dag_id, session=session)
    assert dag is not None
    run = dag.create_dagrun(
        run_id=run_id,
        logical_date=None,
        run_after=START,
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST,
        state=DagRunState.FAILED,
        session=session,
    )
    session.flush()
    session.execute(
        update(TaskInstance).where(TaskInstance.run_id == run_id).values(state=state, try_number=3)
    )
    XComModel.set(
        key="return_value", value=[], dag_id=dag_id, task_id="build", run_id=run_id, session=session
    )
    session.commit()
    session.expire_all()
    return TaskKey(run.id, dag_id, run_id, "deliver", -1, "")


def write(
    session: Session,
    key: TaskKey,
    messages: dict[str, tuple[int, str, float]],
    *,
    token: str = "1-0000000a",  # noqa: S107 — of a ledger
    written: float | None = None,
    **about: str,
) -> None:
    """Write a ledger as a task does. Each message has a record, a state's letter and a minute."""
    store = LedgerStore(DatabaseStateStore(session, key), token)
    ledger = store.open(2, 3)
    ledger.about = {"conn_id": "billing", "receiver": "https://billing.example.com/in", **about}
    for message, (record, letter, minute) in messages.items():
        ledger.expect(message, about_of("Contacts", record, "updated", "2026-01-31T08:00:00Z"))
        if (state := STATES[letter]) is None:
            continue
        ledger.posting(message)
        if state != IN_DOUBT:
            error = None if state == ACKNOWLEDGED else "answered 503"
            ledger.answered(
                message, state, PostOutcome(at(minute), 0.1, 200 if error is None else 503, error)
            )
    store.write(ledger)
    session.execute(
        update(TaskStateStoreModel)
        .where(TaskStateStoreModel.dag_run_id == key.dag_run_id)
        .values(updated_at=at(written if written is not None else max(m for _, _, m in messages.values())))
    )
    session.commit()
