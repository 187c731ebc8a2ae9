"""A DAG file with a folder of workflows, and a DAG of one task."""

from airflow.sdk import DAG

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator

CONTACTS = Workflow(
    name="Contacts",
    record_type="Contacts",
    webhooks=[Webhook(name="Chat", conn_id="chat_webhook", after="1h")],
)
CONTACTS.to_dag()

with DAG("one_task", schedule="@hourly"):
    InsightlyWorkflowOperator(
        task_id="flow",
        workflow=Workflow(
            name="In one task",
            record_type="Leads",
            webhooks=[Webhook(name="Leads", conn_id="leads_webhook")],
        ),
    )
