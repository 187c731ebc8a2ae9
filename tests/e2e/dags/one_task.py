# A workflow in one task: over a window that comes in through the run's conf.
from datetime import timedelta

from airflow.sdk import DAG

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator

WORKFLOW = Workflow(
    name="One task",
    record_type="Tasks",
    settle=1,
    criteria={"field": "TITLE", "operator": "starts_with", "value": "{{ dag_run.conf['title'] }}"},
    webhooks=[Webhook(name="One task", conn_id="receiver_one_task")],
)

with DAG("one_task", schedule=None):
    InsightlyWorkflowOperator(
        task_id="flow",
        workflow=WORKFLOW,
        window={"start": "{{ dag_run.conf['start'] }}", "end": "{{ dag_run.conf['end'] }}"},
        batch_size=2,
        retry_delay=timedelta(seconds=1),
    )
