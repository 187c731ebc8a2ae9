# What operators are given literally, and must stand in no table: the canary comes from the environment, since
# Airflow stores this file's text.
import json
import os
from datetime import timedelta

from airflow.sdk import DAG

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.operators.criteria import EvaluateCriteriaOperator
from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.operators.pending import ScheduleWebhooksOperator
from airflow_insightly_hooks.operators.webhook import WebhookOperator

CANARY = os.environ.get("AIRFLOW_VAR_CANARY", "")
URI = f"http://{{{{ dag_run.conf['host'] }}}}/bin/literals?token={CANARY}"
HEADERS = {"X-Literal": CANARY}
AT = "2026-01-10T08:00:00Z"
KEY = {"record_type": "Notes", "record_id": 7, "event": "added", "changed_at": AT}
CHANGES = [{**KEY, "record": {"NOTE_ID": 7, "BODY": CANARY, "DATE_CREATED_UTC": "2026-01-10 08:00:00"}}]
PAYLOADS = [{**KEY, "message_id": "msg_literal", "body": json.dumps({"BODY": CANARY})}]

with DAG("literals", schedule=None):
    WebhookOperator(task_id="one", payloads=PAYLOADS, uri=URI, headers=HEADERS)
    WebhookOperator.partial(task_id="shared", payloads=PAYLOADS, uri=URI, headers=HEADERS).expand(
        concurrency=[1]
    )
    WebhookOperator(task_id="unrendered", payloads=PAYLOADS, uri=f"{URI}{{{{ nothing.at.all }}}}", retries=0)
    EvaluateCriteriaOperator.partial(task_id="evaluate", changes=CHANGES).expand(criteria=[None])
    BuildPayloadOperator.partial(task_id="build", changes=CHANGES).expand(envelope=["", "entity"])

with DAG("literals_not_run", schedule=None):
    ScheduleWebhooksOperator.partial(
        task_id="schedule", changes=CHANGES, time_triggers=[("w", timedelta(days=1))]
    ).expand(pending_dag_id=["literal_workflow__pending"])

Workflow(
    name="Literal workflow",
    record_type="Notes",
    schedule=None,
    webhooks=[
        Webhook(name="now", uri=URI, headers=HEADERS),
        Webhook(name="later", uri=f"https://example.com/?t={CANARY}", headers=HEADERS, after="1d"),
    ],
).to_dag()
