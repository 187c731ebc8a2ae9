# The DAGs of tests of what a deliver task promises. They need no CRM: a run's conf says what is delivered.
#   payloads     [[record id, changed_at], …]       receiver     the deliver connection
#   chunks       likewise, a list for each mapped task
import json
from datetime import timedelta

from airflow.sdk import DAG, Asset, Variable, task

from airflow_insightly_hooks.core.delivery.message_id import message_id
from airflow_insightly_hooks.operators.webhook import WebhookOperator

RECEIVER = "{{ dag_run.conf['receiver'] }}"
SOON = timedelta(seconds=1)
DEAD_LETTERS = Asset("dead_letters")


def payload(record_id, changed_at):
    entity = {"CONTACT_ID": record_id, "AT": changed_at, "FIRST_NAME": Variable.get("canary")}
    return {
        "message_id": message_id("deliveries", "Contacts", record_id, "updated", changed_at),
        "record_type": "Contacts",
        "record_id": record_id,
        "event": "updated",
        "changed_at": changed_at,
        "body": json.dumps({"entity": entity}, separators=(",", ":")),
    }


@task(show_return_value_in_logs=False, retries=2, retry_delay=SOON)
def build(dag_run=None):
    return [payload(*one) for one in dag_run.conf["payloads"]]


@task(show_return_value_in_logs=False, retries=2, retry_delay=SOON)
def build_chunks(dag_run=None):
    return [[payload(*one) for one in chunk] for chunk in dag_run.conf["chunks"]]


@task(show_return_value_in_logs=False, retries=2, retry_delay=SOON)
def build_many(count):
    one = payload(0, "2026-03-01T08:00:00Z")
    return [{**one, "record_id": number, "message_id": f"many_{number}"} for number in range(count)]


with DAG("reports", schedule=None):
    reporting = {
        "webhook_conn_id": RECEIVER,
        "retry_delay": SOON,
        "on_undelivered": "report",
        "undelivered_asset": DEAD_LETTERS,
    }
    WebhookOperator(task_id="deliver", payloads=build(), **reporting)
    WebhookOperator.partial(task_id="deliver_chunk", **reporting).expand(payloads=build_chunks())

with DAG("dead_letter_queue", schedule=[DEAD_LETTERS], max_active_runs=1):

    @task(inlets=[DEAD_LETTERS])
    def take(inlet_events=None):
        return [event.extra for event in inlet_events[DEAD_LETTERS].ascending(False).limit(100)]

    @task
    def take_what_triggered(triggering_asset_events=None):
        return [event.extra for event in triggering_asset_events[DEAD_LETTERS]]

    take()
    take_what_triggered()

with DAG("redelivery", schedule=None):
    WebhookOperator(task_id="deliver", webhook_conn_id=RECEIVER, payloads=build(), retry_delay=SOON)

with DAG("in_order", schedule=None):
    WebhookOperator(
        task_id="deliver", webhook_conn_id=RECEIVER, payloads=build(), retry_delay=SOON, ordered=True
    )

with DAG("interrupted", schedule=None):
    WebhookOperator(task_id="deliver", webhook_conn_id="receiver_hangs", payloads=build(), retry_delay=SOON)

with DAG("ten_thousand", schedule=None):
    WebhookOperator(
        task_id="deliver", webhook_conn_id="receiver_failing", payloads=build_many(10_000), retries=0
    )

with DAG("pooled", schedule=None):
    WebhookOperator.partial(
        task_id="deliver", webhook_conn_id="receiver_pooled", pool="one_slot", retry_delay=SOON
    ).expand(payloads=build_chunks())
