# A dag that is backfilled only: its end is past, so that Airflow schedules nothing.
from datetime import datetime, timezone

from airflow.sdk import DAG, CronDataIntervalTimetable

from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor

with DAG(
    "backfilled",
    schedule=CronDataIntervalTimetable("0 * * * *", timezone="UTC"),
    start_date=datetime(2024, 6, 1, tzinfo=timezone.utc),
    end_date=datetime(2024, 6, 30, tzinfo=timezone.utc),
    catchup=False,
):
    InsightlyRecordChangeSensor(task_id="detect", record_type="Events", on_empty="succeed")
