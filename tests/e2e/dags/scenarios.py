# The DAGs of the end-to-end tests. What differs between two tests comes in through a run's conf:
#   start, end   the window            title     which records the criteria let through
#   receiver     the deliver connection
from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG, CronDataIntervalTimetable

from airflow_insightly_hooks.operators.criteria import EvaluateCriteriaOperator
from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor

WINDOW = {"start": "{{ dag_run.conf['start'] }}", "end": "{{ dag_run.conf['end'] }}"}
ONLY_THE_TESTS_RECORDS = {
    "all": [{"field": "TITLE", "operator": "starts_with", "value": "{{ dag_run.conf['title'] }}"}]
}
SOON = timedelta(seconds=1)


def detect(task_id="detect", **arguments):
    arguments = {"record_type": "Tasks", "settle": 1, "retry_delay": SOON, **arguments}
    return InsightlyRecordChangeSensor(task_id=task_id, **arguments)


def matching(changes, task_id="evaluate"):
    return EvaluateCriteriaOperator(task_id=task_id, changes=changes, criteria=ONLY_THE_TESTS_RECORDS)


with DAG("change_to_webhook", schedule=None):
    changes = matching(detect(window=WINDOW).output)
    payloads = BuildPayloadOperator(task_id="build", changes=changes.output)
    WebhookOperator(
        task_id="deliver",
        webhook_conn_id="{{ dag_run.conf['receiver'] }}",
        payloads=payloads.output,
        retry_delay=SOON,
    )

with DAG("uri_from_variable", schedule=None):
    changes = matching(detect(window=WINDOW).output)
    payloads = BuildPayloadOperator(task_id="build", changes=changes.output)
    WebhookOperator(task_id="deliver", uri="{{ var.value.receiver_uri }}", payloads=payloads.output)

with DAG("mapped_over_chunks", schedule=None):
    changes = matching(detect(window=WINDOW).output)
    for suffix, separate in (("", False), ("_separate", True)):
        payloads = BuildPayloadOperator(
            task_id=f"build{suffix}", changes=changes.output, chunk_size=2, separate_chunks=separate
        )
        WebhookOperator.partial(task_id=f"deliver{suffix}", webhook_conn_id="receiver_mapped").expand(
            payloads=payloads.output
        )

with DAG("wrong_key", schedule=None):
    detect(window=WINDOW, insightly_conn_id="insightly_wrong_key")
    for mode, arguments in {
        "poke": {"deferrable": False},
        "reschedule": {"deferrable": False, "mode": "reschedule"},
        "deferred": {"deferrable": True},
    }.items():
        detect(
            task_id=f"soft_{mode}",
            window=WINDOW,
            insightly_conn_id="insightly_wrong_key",
            soft_fail=True,
            **arguments,
        )

with DAG("poke_and_deferrable", schedule=None):
    for mode, arguments in {
        "poke": {"deferrable": False},
        "reschedule": {"deferrable": False, "mode": "reschedule", "poke_interval": 1},
        "deferred": {"deferrable": True},
    }.items():
        sensor = detect(task_id=mode, window=WINDOW, settle=8, **arguments)

with DAG("waits_for_a_change", schedule=None):
    detect(on_empty="wait", poke_interval=1, deferrable=True, events=["added"])

with DAG(
    "hourly",
    schedule=CronDataIntervalTimetable("0 * * * *", timezone="UTC"),
    start_date=datetime(2024, 3, 1, tzinfo=timezone.utc),
    catchup=False,
):
    sensor = detect(record_type="Emails", events=["added"], on_empty="succeed", settle=0)
    payloads = BuildPayloadOperator(task_id="build", changes=sensor.output)
    WebhookOperator(task_id="deliver", webhook_conn_id="receiver_hourly", payloads=payloads.output)

with DAG("every_few_seconds", schedule=timedelta(seconds=5), max_active_runs=1, catchup=False):
    sensor = detect(record_type="Notes")
    payloads = BuildPayloadOperator(task_id="build", changes=sensor.output)
    WebhookOperator(task_id="deliver", webhook_conn_id="receiver_cursor", payloads=payloads.output)

with DAG("connection_forms", schedule=None):
    for form in ("uri", "json", "form"):
        changes = matching(
            detect(f"detect_{form}", window=WINDOW, insightly_conn_id=f"insightly_{form}").output,
            f"evaluate_{form}",
        )
        payloads = BuildPayloadOperator(
            task_id=f"build_{form}",
            changes=changes.output,
            insightly_conn_id=f"insightly_{form}",
            workflow="the same",
        )
        WebhookOperator(
            task_id=f"deliver_{form}", webhook_conn_id=f"receiver_{form}", payloads=payloads.output
        )
