# DAGs whose tasks run on several machines: mapped chunks, a workflow in one task, and one that changes wake.
from datetime import timedelta

from airflow.sdk import DAG

from airflow_insightly_hooks import Schedule, Webhook, Workflow
from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor

WINDOW = {"start": "{{ dag_run.conf['start'] }}", "end": "{{ dag_run.conf['end'] }}"}
SOON = {"retry_delay": timedelta(seconds=1)}


class SignedWebhookOperator(WebhookOperator):
    """Tells the receiver which map index, and which try of it, POSTs."""

    def execute(self, context):
        ti = context["ti"]
        self.headers = {"x-sender": f"{ti.map_index}/{ti.try_number}"}
        return super().execute(context)


with DAG("chunks", schedule=None, default_args=SOON):
    changes = InsightlyRecordChangeSensor(
        task_id="detect", record_type="Contacts", settle=1, window=WINDOW, deferrable=True
    )
    payloads = BuildPayloadOperator(task_id="build", changes=changes.output, chunk_size=60)
    SignedWebhookOperator.partial(
        task_id="deliver", webhook_conn_id="receiver_chunks", concurrency=2, **SOON
    ).expand(payloads=payloads.output)

with DAG("one_task", schedule=None):
    InsightlyWorkflowOperator(
        task_id="flow",
        workflow=Workflow(
            name="One task",
            record_type="Contacts",
            settle=1,
            criteria={"field": "FIRST_NAME", "operator": "equals", "value": "even"},
            webhooks=[Webhook(name="One task", conn_id="receiver_one_task", concurrency=2)],
        ),
        window=WINDOW,
        batch_size=40,
        **SOON,
    )

Workflow(
    name="Woken",
    record_type="Leads",
    evaluate="created",
    settle=1,
    schedule=Schedule(watch="6s"),
    webhooks=[
        Webhook(name="now", conn_id="receiver_now", retry_delay=1),
        Webhook(name="later", conn_id="receiver_later", after=timedelta(seconds=20), retry_delay=1),
    ],
).to_dag(default_args=SOON)
