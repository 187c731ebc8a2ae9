"""The links from tasks to Insightly and to receivers."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization

from airflow_insightly_hooks.operators.links import ReceiverLink
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from airflow_insightly_hooks.sensors.links import InsightlyRecordsLink
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor
from tests.conftest import Connect

NO_KEY: Any = None


def test_receiver_link(connect: Connect) -> None:
    """The deliver task leads to the page that its connection names."""
    page = "https://receiver.example.com/bin/out"
    connect("billing", host="https://receiver.example.com", extra={"web_url": page})
    task = WebhookOperator(task_id="deliver", payloads=[], webhook_conn_id="billing")
    assert task.operator_extra_links == (ReceiverLink(),)
    assert ReceiverLink().get_link(task, ti_key=NO_KEY) == page


def test_no_receiver_link(connect: Connect) -> None:
    """There is no link for a connection without a page, a URI, or a missing or invalid connection."""
    connect("billing", host="https://receiver.example.com")
    connect("wrong", host="no host")
    for arguments in (
        {"webhook_conn_id": "billing"},
        {"webhook_conn_id": "missing"},
        {"webhook_conn_id": "wrong"},
        {"uri": "https://receiver.example.com"},
    ):
        task = WebhookOperator(task_id="deliver", payloads=[], **arguments)
        assert ReceiverLink().get_link(task, ti_key=NO_KEY) == ""


def test_records_link(connect: Connect) -> None:
    """The detect task leads to its record type in Insightly."""
    connect("insightly_default", "insightly", host="na1", password="a-made-up-key")
    task = InsightlyRecordChangeSensor(task_id="detect", record_type="Contacts")
    assert task.operator_extra_links == (InsightlyRecordsLink(),)
    assert InsightlyRecordsLink().get_link(task, ti_key=NO_KEY) == (
        "https://crm.na1.insightly.com/list/Contact/"
    )


@pytest.mark.parametrize("conn_id", ["missing", "wrong"])
def test_no_records_link(connect: Connect, conn_id: str) -> None:
    """There is no link if the connection is missing or invalid."""
    connect("wrong", "insightly", host="no host", password="a-made-up-key")
    task = InsightlyRecordChangeSensor(task_id="detect", record_type="Contacts", insightly_conn_id=conn_id)
    assert InsightlyRecordsLink().get_link(task, ti_key=NO_KEY) == ""


def test_links_are_stored() -> None:
    """The stored DAG names the links, so that the UI shows them."""
    with DAG("dag", schedule=None) as dag:
        InsightlyRecordChangeSensor(task_id="detect", record_type="Contacts")
        WebhookOperator(task_id="deliver", payloads=[])
    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert again.get_task("detect").extra_links == ["Records in Insightly"]
    assert again.get_task("deliver").extra_links == ["Receiver"]
