# When a task is added in Insightly, POST it to a receiver: the example of Insightly's help page on webhooks.
#
# Two connections are needed, and nothing else differs between the sandbox and a real account:
#   insightly_default  (type Insightly): the API key and the pod
#   webhook_default    (type Insightly webhook receiver): the receiver's URI, user name and password
#
# A run waits, without holding a worker, until there is a change; then the next run goes on from there. So
# each run in Airflow's grid is one delivery, and nothing is missed while the DAG is paused. Runs are
# active one at a time: what is sent again from an earlier run waits until this one has found a change.
from datetime import timedelta

from airflow.sdk import DAG

from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor

with DAG(
    "new_task_webhook",
    schedule=timedelta(seconds=15),
    catchup=False,
    max_active_runs=1,
    tags=["insightly"],
):
    detect = InsightlyRecordChangeSensor(
        task_id="detect",
        record_type="Tasks",
        events=["added"],
        on_empty="wait",
        poke_interval=10,
        deferrable=True,
    )
    build = BuildPayloadOperator(task_id="build", changes=detect.output)
    WebhookOperator(task_id="deliver", payloads=build.output)
