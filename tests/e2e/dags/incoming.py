# DAGs that Insightly's own webhooks wake. Each record type is of one DAG.
#   chain_first is started by its test. Its receiver is the endpoint of this Airflow, which wakes
#   chain_second.
from airflow.sdk import DAG

from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor
from airflow_insightly_hooks.triggers.record_change import changes_schedule

WINDOW = {"start": "{{ dag_run.conf['start'] }}", "end": "{{ dag_run.conf['end'] }}"}


def delivering(record_type, receiver, **arguments):
    changes = InsightlyRecordChangeSensor(
        task_id="detect", record_type=record_type, settle=1, deferrable=True, **arguments
    )
    payloads = BuildPayloadOperator(task_id="build", changes=changes.output)
    WebhookOperator(task_id="deliver", webhook_conn_id=receiver, payloads=payloads.output)


def pushed(dag_id, record_type, poll_interval=None):
    schedule = changes_schedule(
        record_type, f"{dag_id}/detect", push=True, settle=1, poll_interval=poll_interval
    )
    with DAG(dag_id, schedule=schedule, max_active_runs=1):
        delivering(record_type, f"receiver_{dag_id}")


pushed("pushed_task", "Tasks")
pushed("pushed_often", "KnowledgeArticle")
pushed("pushed_or_polled", "Pricebook", poll_interval=20)
pushed("chain_second", "CommunityPosts")

with DAG("chain_first", schedule=None):
    delivering("CommunityPosts", "own_endpoint", window=WINDOW)
