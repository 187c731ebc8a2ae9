"""What docs/how-to/dead-letters.md promises: tests that test_dead_letters.py runs beside the page's files."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def refused(insightly_sandbox, insightly_connections):
    """Two new contacts, of which the receiver refuses one; return that one's id."""
    billing = insightly_connections.receiver("billing_webhook")
    billing.answer_with(status=422, match='"Refused"')
    insightly_sandbox.create("Contacts", FIRST_NAME="Taken")
    return insightly_sandbox.create("Contacts", FIRST_NAME="Refused")["CONTACT_ID"]


def slack_texts(sandbox):
    return [json.loads(request["body"])["text"] for request in sandbox.received("slack")]


@pytest.mark.parametrize("dag_id", ["changed_contacts", "new_contacts"])
def test_slack_with_the_records_ids(dag_id, refused, insightly_sandbox, run_dag, monkeypatch):
    """One text with the ids of what is undelivered, from a DAG of one's own and from a workflow."""
    connection = {"conn_type": "generic", "password": insightly_sandbox.bin_url("slack")}
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_ALERTS", json.dumps(connection))
    outcome = run_dag("contacts.py", dag_id=dag_id)
    assert outcome.state == "failed"
    line = f"{dag_id}: deliver has failed in {outcome.run_id}: 1 of 2 payloads is undelivered: Contacts"
    (text,) = slack_texts(insightly_sandbox)
    remedy = "When no retry is left, clear the task to send only these again"
    assert text == f"{line} {refused} (answered 422). {remedy}"
    assert "Refused" not in text


def test_a_report_instead_of_a_failure(refused, run_dag):
    """The deliver task of the workflow with an asset for dead letters succeeds, and reports."""
    outcome = run_dag("dead_letters.yaml")
    assert (outcome.state, outcome.tries["deliver"]) == ("success", 3)
    (item,) = outcome.xcom("deliver")["undelivered"]
    assert (item["record_id"], item["status"], item["attempts"]) == (refused, 422, 3)
    columns = {"message_id", "record_type", "record_id", "event", "status", "error", "attempts"}
    assert item.keys() == columns


def test_a_task_after_deliver(refused, run_dag):
    """It gets the report."""
    outcome = run_dag("summary.py")
    assert outcome.xcom("summary") == "1 of 2 delivered"


def test_a_task_after_deliver_without_changes(insightly_sandbox, run_dag):
    """Deliver is skipped, and the task runs all the same, without a report."""
    outcome = run_dag("summary.py")
    assert (outcome.tasks["deliver"], outcome.tasks["summary"]) == ("skipped", "success")
    assert outcome.xcom("summary") == "nothing to deliver"
