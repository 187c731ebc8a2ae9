# When a task is added in Insightly, POST it to a receiver: an example of Insightly's help page on webhooks.
#
# The DAG needs two connections. Only they differ between the sandbox and a real account:
#   insightly_default  (type Insightly): the API key and the pod
#   webhook_default    (type Insightly webhook receiver): the receiver's URI, user name and password
#
# A run waits until there is a change, without using a worker. The next run continues from there. So each run
# in Airflow's grid is one delivery, and no change is missed while the DAG is paused. Only one run is active
# at a time: if you clear an earlier run, it waits until the current one has found a change.
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
