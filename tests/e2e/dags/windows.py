# The DAGs of tests of which window a run covers, whoever has started it.
from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG, CronTriggerTimetable, task_group

from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor


def detect(**arguments):
    arguments = {"record_type": "Organisations", "settle": 1, "on_empty": "succeed", **arguments}
    return InsightlyRecordChangeSensor(
        task_id="detect", retries=2, retry_delay=timedelta(seconds=1), **arguments
    )


# Its end is past, so that Airflow schedules nothing.
with DAG(
    "plain_cron",
    schedule=CronTriggerTimetable("0 * * * *", timezone="UTC"),
    start_date=datetime(2024, 3, 1, tzinfo=timezone.utc),
    end_date=datetime(2024, 3, 30, tzinfo=timezone.utc),
    catchup=False,
):
    detect(events=["added"])

with DAG("tested", schedule=None):
    detect()

with DAG("cities", schedule=None):

    @task_group
    def of_city(city):
        detect(field_name="ADDRESS_BILLING_CITY", field_value=city, cursor=city)

    of_city.expand(city=["Berlin", "Paris"])

with DAG("marked", schedule=None):
    detect(insightly_conn_id="insightly_later")
