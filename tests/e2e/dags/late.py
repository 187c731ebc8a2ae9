# Workflows that find what becomes visible late, from their cursors on: as a DAG, and in one task.
from airflow.sdk import DAG

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator


def late(name):
    return Workflow(
        name=name,
        record_type="Milestones",
        settle=1,
        schedule=None,
        criteria={"field": "TITLE", "operator": "starts_with", "value": "e2e late"},
        webhooks=[Webhook(name="late", conn_id=f"receiver_{name}")],
    )


late("late").to_dag()

with DAG("late_in_one_task", schedule=None):
    InsightlyWorkflowOperator(task_id="flow", workflow=late("late_in_one_task"))
