"""What pages of docs/how-to say of windows of the past and of removing a workflow."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path

import pytest
from airflow.api.common.delete_dag import delete_dag
from airflow.models import DagRun
from airflow.models.asset_state_store import AssetStateStoreModel
from airflow.models.backfill import (
    Backfill,
    BackfillDagRun,
    DagNonPeriodicScheduleException,
    ReprocessBehavior,
    _create_backfill,
)
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from sqlalchemy import inspect, select, text, update

import airflow_insightly_hooks
from airflow_insightly_hooks import Webhook, Workflow

BILLING = Webhook(name="Billing", conn_id="billing_webhook")
PAGES = Path(airflow_insightly_hooks.__file__).parent.parent / "docs" / "how-to"
NEW_TASKS = """
name: New tasks
record_type: Tasks
schedule: on_change
webhooks: [{name: Billing, conn_id: billing_webhook}]
"""


def test_a_window_of_the_past(insightly_sandbox, run_dag, tmp_path):
    """The DAG of backfill.md sends what its conf names, under the ids that the workflow itself gives."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", (PAGES / "backfill.md").read_text("utf-8"), re.M | re.S)
    (tmp_path / "workflows").mkdir()
    file = tmp_path / "workflows" / "new_tasks.yaml"
    file.write_text(NEW_TASKS)
    (tmp_path / "past.py").write_text(code)
    insightly_sandbox.create("Tasks", TITLE="Call back")
    (live,) = run_dag(file).requests["billing_webhook"]
    window = {"start": "2026-01-01", "end": insightly_sandbox.now().isoformat()}
    past = run_dag(tmp_path / "past.py", dag_id="new_tasks_past", conf=window).requests["billing_webhook"]
    assert live["headers"]["webhook-id"] in [request["headers"]["webhook-id"] for request in past]


def backfill(dag_id, reprocess_behavior=ReprocessBehavior.NONE):
    """Make a backfill of one date, let it end, and return whether it has a run, and the run's conf."""
    date = datetime(2026, 1, 1, 1, tzinfo=timezone.utc)
    made = _create_backfill(
        dag_id=dag_id,
        from_date=date,
        to_date=date,
        max_active_runs=1,
        reverse=False,
        dag_run_conf={"dry_run": reprocess_behavior is ReprocessBehavior.NONE},
        triggering_user_name=None,
        reprocess_behavior=reprocess_behavior,
    )
    with create_session() as session:
        (has_run,) = session.scalars(select(BackfillDagRun).where(BackfillDagRun.backfill_id == made.id))
        run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.logical_date == date))
        found = has_run.dag_run_id is not None, dict(run.conf)
        session.execute(update(DagRun).where(DagRun.id == run.id).values(state=DagRunState.SUCCESS))
        session.execute(update(Backfill).where(Backfill.id == made.id).values(completed_at=date))
        return found


def test_dates_that_have_had_a_run(insightly_sandbox, run_dag):
    """Airflow passes over them, unless it is told to reprocess them; then the run's conf is replaced."""
    run_dag(Workflow(name="Hourly", record_type="Tasks", schedule="0 * * * *", webhooks=[BILLING]))
    assert backfill("hourly") == (True, {"dry_run": True})
    assert backfill("hourly") == (False, {"dry_run": True})
    assert backfill("hourly", ReprocessBehavior.COMPLETED) == (True, {"dry_run": False})


def test_a_schedule_without_times(insightly_sandbox, run_dag):
    """Airflow refuses to backfill a workflow that runs when records change."""
    run_dag(Workflow(name="Woken", record_type="Tasks", schedule="on_change", webhooks=[BILLING]))
    with pytest.raises(DagNonPeriodicScheduleException):
        backfill("woken")


def test_what_stays_of_a_workflow(insightly_sandbox, run_dag):
    """Its DAGs are deleted: keys of the asset's state, and the audit log, are all that names it."""
    workflow = Workflow(
        name="Removed",
        record_type="Contacts",
        evaluate="until_triggered",
        webhooks=[Webhook(name="Desk", conn_id="desk"), Webhook(name="Later", conn_id="later", after="3d")],
    )
    insightly_sandbox.create("Contacts", FIRST_NAME="Ada")
    run_dag(workflow)
    for dag_id in ("removed", "removed__pending", "removed__retry"):
        delete_dag(dag_id)
    with create_session() as session:
        keys = set(session.scalars(select(AssetStateStoreModel.key)))
        tables = {
            name
            for name in inspect(session.get_bind()).get_table_names()
            for row in session.execute(text(f'SELECT * FROM "{name}"'))  # noqa: S608 — names of the database
            if "removed" in str(row)
        }
    assert tables <= {"asset_state_store", "log", "dag_code", "serialized_dag"}
    own = {key.partition("/")[0] for key in keys if "removed" in key}
    page = (PAGES / "remove.md").read_text("utf-8")
    assert {"cursor", "triggered", "pending"} <= own
    assert own <= set(re.findall(r"`(\w+)/…`", page))
