# Watch for contacts in a region: when a contact is added or updated, send it to two receivers if it is in one
# of two countries and has not opted out of e-mail.
#
# This example has criteria with two conditions, and one build task for two deliver tasks. Each deliver task
# has its own connection, retries and report. So if one receiver is down, the other one still gets its
# messages.
#
# Connections: insightly_default, and the two receivers billing_webhook and newsletter_webhook.
from airflow.sdk import DAG

from airflow_insightly_hooks.operators.criteria import EvaluateCriteriaOperator
from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor

with DAG(
    "contacts_in_region",
    schedule="*/5 * * * *",
    catchup=False,
    max_active_runs=1,
    tags=["insightly"],
):
    detect = InsightlyRecordChangeSensor(task_id="detect", record_type="Contacts", deferrable=True)
    evaluate = EvaluateCriteriaOperator(
        task_id="evaluate",
        changes=detect.output,
        criteria={
            "all": [
                {"field": "ADDRESS_MAIL_COUNTRY", "operator": "in", "value": ["France", "Belgium"]},
                {"field": "EMAIL_OPTED_OUT", "operator": "is_not_checked"},
            ]
        },
    )
    build = BuildPayloadOperator(task_id="build", changes=evaluate.output)
    WebhookOperator(task_id="deliver_to_billing", webhook_conn_id="billing_webhook", payloads=build.output)
    WebhookOperator(
        task_id="deliver_to_newsletter", webhook_conn_id="newsletter_webhook", payloads=build.output
    )
