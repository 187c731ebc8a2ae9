"""What ``airflow db clean`` deletes of a workflow, and what it leaves.

Nothing is lost by it, or sent twice. test_pytest_plugin.py runs these tests, too.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.models import DagRun
from airflow.models.asset_state_store import AssetStateStoreModel
from airflow.models.task_state_store import TaskStateStoreModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.sdk import timezone
from airflow.utils.db_cleanup import run_cleanup
from airflow.utils.session import create_session
from sqlalchemy import func, select

from airflow_insightly_hooks import Webhook, Workflow

TABLES = ["dag_run", "asset_event", "log", "job"]
OF_RUNS = (DagRun, TaskInstance, TaskStateStoreModel, XComModel)


def rows() -> dict[str, int]:
    with create_session() as session:
        return {
            model.__tablename__: session.scalar(select(func.count()).select_from(model)) for model in OF_RUNS
        }


def asset_state() -> dict[str, str]:
    with create_session() as session:
        return {row.key: row.value for row in session.scalars(select(AssetStateStoreModel))}


def clean() -> None:
    run_cleanup(
        clean_before_timestamp=timezone.utcnow() + timedelta(seconds=1),
        table_names=TABLES,
        confirm=False,
        skip_archive=True,
        error_on_cleanup_failure=True,
    )


@pytest.mark.parametrize("mode", ["tasks", "one_task"])
def test_runs_are_deleted(insightly_sandbox, run_dag, mode):
    """Ledgers, counts and payloads go with their runs; cursor and memory stay, so the next run goes on."""
    workflow = Workflow(
        name="Rated",
        record_type="Contacts",
        evaluate="until_triggered",
        mode=mode,
        webhooks=[Webhook(name="Desk", conn_id="desk")],
    )
    sent = []
    for name in ("Ada", "Grace"):
        contact = insightly_sandbox.create("Contacts", FIRST_NAME=name)["CONTACT_ID"]
        sent.append(len(run_dag(workflow).requests["desk"]))
    before, state = rows(), asset_state()
    clean()
    after = rows()
    assert before["dag_run"] == 2
    assert after["dag_run"] == 1  # Airflow keeps a DAG's last run that was not started by hand
    assert after["task_state_store"] <= before["task_state_store"] / 2
    assert after["xcom"] == 0
    assert asset_state() == state
    insightly_sandbox.update("Contacts", contact, TITLE="Has triggered before")
    insightly_sandbox.create("Contacts", FIRST_NAME="Edsger")
    sent.append(len(run_dag(workflow).requests["desk"]))
    assert sent == [1, 1, 1]


def test_what_is_pending_stays(insightly_sandbox, run_dag):
    """A webhook that waits for its time is sent then, although all runs before are deleted."""
    workflow = Workflow(
        name="Later",
        record_type="Contacts",
        webhooks=[Webhook(name="Desk", conn_id="desk", after=timedelta(days=3))],
    )
    insightly_sandbox.create("Contacts", FIRST_NAME="Ada")
    run_dag(workflow)
    clean()
    assert [run.dag_id for run in run_dag.queued] == ["later__pending"]
    insightly_sandbox.advance(days=3, minutes=1)
    assert sum(len(run.requests.get("desk", ())) for run in run_dag.due()) == 1
