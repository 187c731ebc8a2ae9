"""Connections to the sandbox, and which ones DAGs need."""

from __future__ import annotations

import json
import os

import pytest
import requests
from airflow.sdk import DAG

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.hooks.insightly import InsightlyHook
from airflow_insightly_hooks.hooks.webhook import WebhookHook
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator
from airflow_insightly_hooks.testing.connections import SandboxConnections
from airflow_insightly_hooks.testing.dag_sources import connection_ids, dags_in, settle_times

CHAT = Workflow(
    name="Chat",
    record_type="Tasks",
    settle=30,
    insightly_conn_id="second_account",
    webhooks=[
        Webhook(name="Chat", conn_id="chat_webhook"),
        Webhook(name="Later", conn_id="later_webhook", after="1d"),
        Webhook(name="Elsewhere", uri="https://elsewhere.example"),
    ],
)


@pytest.fixture
def connections(sandbox, monkeypatch):
    return SandboxConnections(sandbox, monkeypatch)


def test_hooks_reach_the_sandbox(connections):
    """Both kinds of connection work as they are made."""
    assert InsightlyHook(connections.insightly()).test_connection()[0]
    chat = connections.receiver("chat_webhook", username="crm", password="secret")
    assert WebhookHook("chat_webhook").send('{"a": 1}', message_id="1").acknowledged
    assert chat.bodies == [{"a": 1}]
    assert chat.requests[0]["username"] == "crm"
    assert connections["chat_webhook"] is chat


def test_a_receiver_keeps_its_credentials(connections):
    """However it is told to answer, it goes on asking for them."""
    chat = connections.receiver("chat_webhook", username="crm", password="secret")
    chat.answer_with(status=503, times=1)
    assert requests.post(chat.url, data="{}", timeout=5).status_code == 401
    assert not WebhookHook("chat_webhook").send("{}", message_id="1").acknowledged
    assert WebhookHook("chat_webhook").send("{}", message_id="1").acknowledged
    assert chat.bodies == [{}]


def test_what_is_missing_is_made(connections, monkeypatch):
    """A connection of the user's own is hidden; one of the test's is kept."""
    monkeypatch.setenv("AIRFLOW_CONN_CHAT_WEBHOOK", "https://chat.example")
    mine = connections.receiver("later_webhook", username="crm", password="secret")
    connections.add_missing({"second_account"}, {"chat_webhook", "later_webhook"})
    assert json.loads(os.environ["AIRFLOW_CONN_CHAT_WEBHOOK"])["host"] == connections["chat_webhook"].url
    assert connections["later_webhook"] is mine
    assert json.loads(os.environ["AIRFLOW_CONN_SECOND_ACCOUNT"])["conn_type"] == "insightly"


def test_a_workflow_brings_its_dags_and_names_its_connections():
    """Those of the DAG for time triggers and of the one for retries included."""
    wanted, dags = dags_in(CHAT)
    assert wanted.dag_id == "chat"
    assert [dag.dag_id for dag in dags] == ["chat", "chat__pending", "chat__retry"]
    assert connection_ids(dags) == ({"second_account"}, {"chat_webhook", "later_webhook", "webhook_default"})
    assert settle_times(dags) == [30]


def test_the_connections_of_other_dags():
    """A workflow in one task, a mapped task; a template is known in the run only."""
    with DAG("others", schedule=None) as dag:
        InsightlyWorkflowOperator(
            task_id="flow", workflow=CHAT.model_copy(update={"webhooks": CHAT.webhooks[:1]})
        )
        WebhookOperator.partial(task_id="mapped", webhook_conn_id="mapped_webhook").expand(payloads=[[]])
        WebhookOperator(task_id="template", webhook_conn_id="{{ params.receiver }}", payloads=[])
    found = connection_ids([dag])
    assert found.receivers == {"chat_webhook", "mapped_webhook"}
    assert "second_account" in found.accounts
    assert settle_times([dag]) == [30]
    assert settle_times([DAG("empty", schedule=None)]) == [5]
