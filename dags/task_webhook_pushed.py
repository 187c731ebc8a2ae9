# When a task is added in Insightly, POST it to a receiver, and be told of it by Insightly's own webhook.
#
# It does what new_task_webhook.py does, and differs in how it learns of a task: Insightly's webhook wakes it
# within a second, and between webhooks Insightly is not asked, but for a look every 15 minutes in case a
# webhook is lost. The webhook says only that there is something to read: the run reads Insightly as ever.
#
# Three connections are needed:
#   insightly_default   (type Insightly): the API key and the pod
#   insightly_incoming  (type Insightly webhooks to Airflow): a user name and a password of your choice
#   webhook_default     (type Insightly webhook receiver): the receiver's URI, user name and password
# and in Insightly a webhook of tasks with that user name and password, to
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
