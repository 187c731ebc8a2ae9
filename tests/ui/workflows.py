"""The workflows, connections and users of the tests' pages."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.workflows.dag import workflow_dags

__all__ = ["CONNECTIONS", "HIDDEN", "PASSWORDS", "PAUSED", "SECRETS", "WORKFLOWS", "dags"]

SECRETS = ("seed-api-key-8f2c", "seed-receiver-password-41d0", "c2VlZC1zaWduaW5nLXNlY3JldC03N2FhLTAxMjM0NTY=")
"""What no page may show."""

PASSWORDS = {user: f"password-of-{user}" for user in ("admin", "op", "user", "viewer", "sales", "public")}
"""By user of a test's Airflow; simple auth manager has the first four."""

CONNECTIONS: dict[str, dict[str, Any]] = {
    "insightly_default": {"conn_type": "insightly", "host": "na1", "password": SECRETS[0]},
    "erp_webhook": {
        "conn_type": "insightly_webhook",
        "host": "https://erp.example.com/insightly/won",
        "login": "insightly",
        "password": SECRETS[1],
        "extra": {"signing_secret": SECRETS[2]},
    },
    "newsletter_webhook": {
        "conn_type": "insightly_webhook",
        "host": "https://news.example.com/hooks/contacts",
    },
    "billing_webhook": {"conn_type": "insightly_webhook", "host": "https://billing.example.com/in"},
    "survey_webhook": {"conn_type": "insightly_webhook", "host": "https://survey.example.com/answers?form=7"},
}
"""The fields of each; the receiver of ``billing_webhook`` is down."""

WORKFLOWS = (
    Workflow(
        name="Won deals to the ERP",
        description="Creates an order in the ERP for each opportunity that is won.",
        record_type="Opportunities",
        criteria={"field": "OPPORTUNITY_STATE", "operator": "equals", "value": "WON"},
        webhooks=[Webhook(name="ERP", conn_id="erp_webhook")],
        tags=["sales"],
        owner="sales-operations",
    ),
    Workflow(
        name="New contacts to the newsletter",
        record_type="Contacts",
        evaluate="created",
        criteria={"field": "EMAIL_OPTED_OUT", "operator": "is_not_checked"},
        webhooks=[Webhook(name="Newsletter", conn_id="newsletter_webhook", date_format="iso8601")],
        tags=["marketing"],
    ),
    Workflow(
        name="Organisations to billing",
        description="Keeps the addresses of customers up to date.",
        record_type="Organisations",
        webhooks=[
            Webhook(name="Billing", conn_id="billing_webhook", retries=5, ordered=True),
            Webhook(name="ERP", conn_id="erp_webhook"),
        ],
    ),
    Workflow(
        name="Survey after a project",
        record_type="Projects",
        criteria={"field": "STATUS", "operator": "equals", "value": "COMPLETED"},
        webhooks=[Webhook(name="Survey", conn_id="survey_webhook", after="14d", recheck=True)],
    ),
    Workflow(
        name="Renewal reminder",
        record_type="Opportunities",
        webhooks=[
            Webhook(name="Remind sales", conn_id="erp_webhook", before="30d", field="FORECAST_CLOSE_DATE"),
            Webhook(name="Tell billing", conn_id="billing_webhook", before="7d", field="FORECAST_CLOSE_DATE"),
        ],
    ),
    Workflow(
        name="New leads, a trial",
        record_type="Leads",
        evaluate="created",
        webhooks=[Webhook(name="Survey", conn_id="survey_webhook")],
        dry_run=True,
    ),
    Workflow(
        name="Payroll contacts",
        description="Only for the personnel department.",
        record_type="Contacts",
        criteria={"field": "LAST_NAME", "operator": "is_not_blank"},
        webhooks=[Webhook(name="Payroll", conn_id="newsletter_webhook")],
        tags=["confidential"],
    ),
)

PAUSED = "renewal_reminder"
"""The workflow whose DAG is paused."""
HIDDEN = "payroll_contacts"
"""The workflow that a person with restricted rights may not see."""


def dags() -> list[DAG]:
    """Return all DAGs of the workflows, without registering them with Airflow."""
    return [dag for workflow in WORKFLOWS for dag in workflow_dags(workflow)]
