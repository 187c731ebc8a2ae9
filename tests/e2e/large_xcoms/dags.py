# The DAGs of test_large_xcoms: records in whole lists and in chunks, and workflows with all of their DAGs.
from datetime import timedelta

from airflow.sdk import DAG

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.operators.criteria import EvaluateCriteriaOperator
from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor

SOON = timedelta(seconds=1)
WINDOW = {"start": "{{ dag_run.conf['start'] }}", "end": "{{ dag_run.conf['end'] }}"}

with DAG("large", schedule=None):
    changes = InsightlyRecordChangeSensor(task_id="detect", record_type="Notes", window=WINDOW)
    matching = EvaluateCriteriaOperator(
        task_id="evaluate",
        changes=changes.output,
        criteria={"field": "TITLE", "operator": "equals", "value": "e2e"},
    )
    payloads = BuildPayloadOperator(task_id="build", changes=matching.output)
    WebhookOperator(
        task_id="deliver", webhook_conn_id="receiver_whole", payloads=payloads.output, retry_delay=SOON
    )
    chunks = BuildPayloadOperator(
        task_id="build_chunks", changes=matching.output, chunk_size=1_000, separate_chunks=True
    )
    WebhookOperator.partial(
        task_id="deliver_chunk", webhook_conn_id="receiver_chunks", retry_delay=SOON
    ).expand(payloads=chunks.output)

Workflow(
    name="Left",
    record_type="Leads",
    evaluate="created",
    settle=1,
    schedule=None,
    webhooks=[Webhook(name="down", conn_id="receiver_down")],
).to_dag(default_args={"retry_delay": timedelta(seconds=5)})

Workflow(
    name="Later",
    record_type="Opportunities",
    evaluate="created",
    settle=1,
    schedule=None,
    webhooks=[Webhook(name="later", conn_id="receiver_later", after=timedelta(seconds=5))],
).to_dag()
