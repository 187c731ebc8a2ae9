# The workflows of the end-to-end tests.
from datetime import timedelta

from airflow.sdk import DAG
from airflow.sdk import task as airflow_task

from airflow_insightly_hooks import Schedule, Webhook, Workflow

SOON = {"retry_delay": timedelta(seconds=1)}


def workflow(name, record_type, *webhooks, **arguments):
    arguments = {"settle": 1, "schedule": None, **arguments}
    return Workflow(
        name=name,
        record_type=record_type,
        webhooks=[Webhook(name=w, conn_id=f"receiver_{w}", **options) for w, options in webhooks],
        **arguments,
    )


OURS = {"field": "PROJECT_NAME", "operator": "starts_with", "value": "e2e"}
for mode in ("created", "created_and_edited", "until_triggered"):
    workflow(f"Mode {mode}", "Projects", (mode, {}), evaluate=mode, criteria=OURS).to_dag()

# Of two receivers one is dead; the other one's fields are chosen.
workflow(
    "Two webhooks",
    "Leads",
    ("dead", {}),
    ("alive", {"fields": ["LEAD_ID", "LAST_NAME"], "date_format": "iso8601", "envelope": ""}),
    criteria={"field": "LAST_NAME", "operator": "equals", "value": "e2e"},
).to_dag(default_args=SOON)

# Of two receivers one is down for a while, and others' runs don't wait for it.
workflow("Overlapping", "Leads", ("down", {}), ("up", {}), evaluate="created").to_dag(
    default_args={"retry_delay": timedelta(seconds=15)}
)

workflow(
    "Some seconds later",
    "Opportunities",
    ("timed", {"after": timedelta(seconds=120), "recheck": True}),
    criteria={
        "all": [
            {"field": "OPPORTUNITY_NAME", "operator": "starts_with", "value": "e2e"},
            {"field": "OPPORTUNITY_STATE", "operator": "equals", "value": "OPEN"},
        ]
    },
).to_dag()

workflow(
    "Steered",
    "Leads",
    ("days_later", {"after": timedelta(days=3)}),
    ("weeks_later", {"after": timedelta(days=14)}),
    evaluate="created",
    criteria={"field": "LAST_NAME", "operator": "equals", "value": "e2e steered"},
).to_dag()

workflow(
    "Urgent tasks to the desk",
    "Tasks",
    ("desk", {}),
    ("desk_later", {"after": timedelta(days=3)}),
    criteria={
        "all": [
            {"field": "TITLE", "operator": "contains", "value": "urgent"},
            {"field": "PRIORITY", "operator": "equals", "value": 3},
        ]
    },
).to_dag(default_args={"retries": 0})

workflow("Watched", "Pricebook", ("watched", {}), evaluate="created", schedule=Schedule(watch="2s")).to_dag()

with DAG("grouped", schedule=None):
    group = workflow("In a group", "Events", ("grouped", {}), criteria=None).task_group()

    @airflow_task(trigger_rule="none_failed")
    def afterwards():
        return "done"

    group >> afterwards()
