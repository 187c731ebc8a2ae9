"""On a real Airflow, every example in ``dags/workflows`` does what its comment says."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_insightly_hooks import Workflow
from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.core.workflow.yaml_file import read_workflows
from airflow_insightly_hooks.demo.airflow_stack import StackError, wait_for
from tests.e2e.conftest import CANARY, ROOT, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

WORKFLOWS = {
    workflow.dag_id: workflow
    for path in sorted((ROOT / "dags" / "workflows").glob("*.yaml"))
    for workflow in read_workflows(path.read_text(encoding="utf-8"), path.name, Workflow)
}


def in_days(days: float) -> str:
    return (datetime.now(timezone.utc) + timedelta(days=days)).strftime("%Y-%m-%d %H:%M:%S")


def custom(**fields: Any) -> dict[str, Any]:
    return {
        "CUSTOMFIELDS": [
            {"FIELD_NAME": name, "FIELD_VALUE": value, "CUSTOM_FIELD_ID": name}
            for name, value in fields.items()
        ]
    }


def tags(*names: str) -> dict[str, Any]:
    return {"TAGS": [{"TAG_NAME": name} for name in names]}


RECORDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "contact_with_tag": (
        tags("Old", "VIP") | custom(Interests__c="Travel;Music"),
        tags("VIP") | custom(Interests__c="Travel;Sports"),
    ),
    "lead_without_owner": (
        {"OWNER_USER_ID": None, "RESPONSIBLE_USER_ID": None},
        {"OWNER_USER_ID": None, "RESPONSIBLE_USER_ID": 999308},
    ),
    "new_contact_in_region": (
        {"ADDRESS_MAIL_COUNTRY": "BELGIUM", "EMAIL_OPTED_OUT": False},
        {"ADDRESS_MAIL_COUNTRY": "France", "EMAIL_OPTED_OUT": True},
    ),
    "new_invoice": (
        custom(Amount__c=1000.5, Paid__c=False),
        custom(Amount__c=1000, Paid__c=False),
    ),
    "opportunity_won": (
        {"OPPORTUNITY_STATE": "WON", "OPPORTUNITY_VALUE": 25000.01},
        {"OPPORTUNITY_STATE": "WON", "OPPORTUNITY_VALUE": 25000},
    ),
    "organisation_becomes_gold": (custom(Tier__c="Gold"), custom(Tier__c="Silver")),
    "project_in_progress": ({"STATUS": "IN PROGRESS"}, {"STATUS": "NOT STARTED"}),
    "quotation_near_expiry": (
        {"QUOTATION_EXPIRATION_DATE": in_days(2), "QUOTE_STATUS": "DRAFT"},
        {"QUOTATION_EXPIRATION_DATE": in_days(2), "QUOTE_STATUS": "ACCEPTED"},
    ),
    "task_overdue": (
        {"TITLE": "overdue", "DUE_DATE": in_days(-1), "COMPLETED": False},
        {"TITLE": "done", "DUE_DATE": in_days(-1), "COMPLETED": True},
    ),
    "ticket_escalated": (
        {"PRIORITY": "HIGH", "SOURCE": "PHONE", "TICKET_STATUS": "OPEN"},
        {"PRIORITY": "URGENT", "SOURCE": "EMAIL", "TICKET_STATUS": "CLOSED"},
    ),
}
"""For each example a record that triggers it, and one that just doesn't."""


def test_every_example_has_its_records() -> None:
    """The tests below leave no example out."""
    assert set(RECORDS) == set(WORKFLOWS)
    assert len(WORKFLOWS) == 10


@pytest.mark.scale
def test_the_examples(stack: Stack) -> None:
    """Each example gets two new records. Only the record that meets the criteria arrives."""
    stack.unpause(*WORKFLOWS)
    for dag_id in WORKFLOWS:
        # Each has a run at once, which marks where it begins.
        wait_for(f"the first run of {dag_id}", lambda d=dag_id: _has_run(stack, d), 240)
    for dag_id, records in RECORDS.items():
        for record in records:
            _IDS.setdefault(dag_id, []).append(_put(stack, WORKFLOWS[dag_id].record_type, record))
    time.sleep(6)  # they settle for five seconds
    for dag_id, run in {dag_id: stack.start_run(dag_id) for dag_id in WORKFLOWS}.items():
        assert stack.wait_for_run(dag_id, run) == "success", dag_id
    expected = {dag_id: _receivers(dag_id) for dag_id in WORKFLOWS}
    with contextlib.suppress(StackError):
        wait_for("what is sent at once", lambda: _received(stack) == expected, 240)
    stack.pause(*WORKFLOWS)
    assert _received(stack) == expected
    pending = stack.airflow.api("/dags/project_in_progress__pending/dagRuns?state=queued")["dag_runs"]
    in_a_week = datetime.now(timezone.utc) + timedelta(days=7)
    assert len(pending) == 1
    assert abs(api_time(pending[0]["run_after"]) - in_a_week) < timedelta(minutes=10)


def _has_run(stack: Stack, dag_id: str) -> bool:
    return bool(stack.airflow.api(f"/dags/{dag_id}/dagRuns?state=success")["total_entries"])


_IDS: dict[str, list[int]] = {}
NAMES = {"Opportunities": "OPPORTUNITY_NAME", "Tasks": "DETAILS", "Invoice__c": "RECORD_NAME"}


def _put(stack: Stack, record_type: str, record: dict[str, Any]) -> int:
    made = stack.put_record(record_type, {NAMES.get(record_type, "IMAGE_URL"): CANARY, **record})
    id_field = RECORD_TYPES[record_type].id_field
    if cleared := {name: None for name, value in record.items() if value is None}:  # else defaults go in
        stack.crm("PUT", f"/{record_type}", {id_field: made[id_field], **cleared})
    record_id: int = made[id_field]
    return record_id


def _receivers(dag_id: str) -> list[int]:
    """Return the ids that arrive: the triggering record's id, once for each webhook that is sent now."""
    workflow = WORKFLOWS[dag_id]
    at_once = [w for w in workflow.webhooks if w.after is None]
    return [_IDS[dag_id][0]] * len(at_once)


def _received(stack: Stack) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {dag_id: [] for dag_id in WORKFLOWS}
    for kept in stack.received("example"):
        body = json.loads(kept["body"])
        entity = body.get("entity") or body.get("invoice") or {}
        for dag_id, workflow in WORKFLOWS.items():
            record_id = entity.get(RECORD_TYPES[workflow.record_type].id_field)
            if record_id in _IDS[dag_id]:
                found[dag_id].append(record_id)
    return found
