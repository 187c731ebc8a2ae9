# When a task is added in Insightly, POST it to a receiver. Insightly's own webhook starts the run.
#
# It does the same as new_task_webhook.py, but it does not poll Insightly all the time: Insightly's webhook
# starts a run within a second. It polls only every 15 minutes, in case a webhook is lost. The webhook
# only announces that there is a change. The run then reads it from Insightly as usual.
#
# The DAG needs three connections:
#   insightly_default   (type Insightly): the API key and the pod
#   insightly_incoming  (type Insightly webhooks to Airflow): a user name and a password of your choice
#   webhook_default     (type Insightly webhook receiver): the receiver's URI, user name and password
# In Insightly, add a webhook of tasks with the user name and password of insightly_incoming, to
# https://YOUR-AIRFLOW/insightly/hooks/insightly_incoming
from airflow.sdk import DAG

from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor
from airflow_insightly_hooks.triggers.record_change import changes_schedule

with DAG(
    "task_webhook_pushed",
    schedule=changes_schedule("Tasks", cursor="task_webhook_pushed/detect", push=True),
    catchup=False,
    max_active_runs=1,
    tags=["insightly"],
):
    detect = InsightlyRecordChangeSensor(
        task_id="detect", record_type="Tasks", events=["added"], deferrable=True
    )
    build = BuildPayloadOperator(task_id="build", changes=detect.output)
    WebhookOperator(task_id="deliver", payloads=build.output)
