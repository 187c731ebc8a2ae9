# DAGs that record changes wake; its test edits this file while they run.
from airflow.sdk import DAG

from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor
from airflow_insightly_hooks.triggers.record_change import changes_asset, changes_schedule


def woken(dag_id, record_type, poll_interval=1, settle=1, cursor=None):
    watched = changes_asset(record_type, poll_interval=poll_interval, settle=settle)
    with DAG(dag_id, schedule=[watched], max_active_runs=1):
        InsightlyRecordChangeSensor(
            task_id="detect", record_type=record_type, settle=settle, cursor=cursor, deferrable=True
        )


woken("woken_first", "Ticket")
woken("woken_second", "Ticket")
woken("woken_rarely", "Ticket", poll_interval=2, settle=2)
woken("woken_to_be_renamed", "Product", poll_interval=1)


def woken_alone(dag_id, record_type, settle=1):
    schedule = changes_schedule(record_type, f"{dag_id}/detect", poll_interval=3, settle=settle)
    with DAG(dag_id, schedule=schedule, max_active_runs=1):
        InsightlyRecordChangeSensor(task_id="detect", record_type=record_type, settle=settle, deferrable=True)


woken_alone("woken_alone", "Milestones")
woken_alone("woken_beside", "Milestones")
woken_alone("woken_at_last", "Milestones", settle=5)
