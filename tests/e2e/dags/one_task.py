# A workflow in one task: over a window that comes in through the run's conf.
from datetime import timedelta

from airflow.sdk import DAG, task

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.operators.criteria import EvaluateCriteriaOperator
from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.operators.webhook import WebhookOperator
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

with DAG("one_task_odd_records", schedule=None):
    InsightlyWorkflowOperator(
        task_id="flow",
        workflow=WORKFLOW.model_copy(
            update={"webhooks": [Webhook(name="Odd records", conn_id="receiver_odd_records")]}
        ),
        window={"start": "{{ dag_run.conf['start'] }}", "end": "{{ dag_run.conf['end'] }}"},
        retry_delay=timedelta(seconds=1),
    )

# Each webhook with keys of its own, one of them sent later: by the DAG one_task_keys__pending.
Workflow(
    name="One task keys",
    mode="one_task",
    record_type="Tasks",
    settle=1,
    schedule=None,
    criteria={"field": "TITLE", "operator": "starts_with", "value": "one task keys"},
    retry_delay=1,
    webhooks=[
        Webhook(name="Now", conn_id="receiver_keys_now", ordered=True),
        Webhook(
            name="Dead",
            conn_id="receiver_keys_dead",
            retries=0,
            on_undelivered="report",
            undelivered_asset="one_task_dead_letters",
        ),
        Webhook(name="Later", conn_id="receiver_keys_later", after="15s"),
    ],
).to_dag()


# What a task after a skipped deliver task gets of it.
with DAG("after_a_skip", schedule=None):
    nothing = EvaluateCriteriaOperator(task_id="evaluate", changes=[])
    payloads = BuildPayloadOperator(task_id="build", changes=nothing.output)
    deliver = WebhookOperator(
        task_id="deliver", webhook_conn_id="receiver_one_task", payloads=payloads.output
    )

    @task(trigger_rule="none_failed")
    def after(report):
        return {"report": report}

    after(deliver.output)
