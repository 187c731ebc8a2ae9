"""Findings about Insightly's own webhooks: the connection, and the DAGs that they wake."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.orm import Session

from airflow_insightly_hooks.diagnosis.findings import OK, PROBLEM, WARNING, Finding
from airflow_insightly_hooks.diagnosis.incoming_webhooks import check_incoming
from tests.conftest import Connect
from tests.database.conftest import session
from tests.waiting_dags import add_waiting_dag

__all__ = ["session"]

PASSWORD = "Pa55-of-the-tests"


def checked(connect: Connect, **extra: Any) -> list[tuple[str, str]]:
    connect("crm", "insightly_incoming", login="insightly", password=PASSWORD, extra=extra)
    findings = list(check_incoming("crm"))
    assert all(isinstance(finding, Finding) for finding in findings)
    assert {finding.subject for finding in findings} == {"connection crm"}
    assert all(finding.what_to_do for finding in findings if finding.level in (WARNING, PROBLEM))
    assert PASSWORD not in repr(findings)
    return [(finding.level, finding.finding) for finding in findings]


def test_dags_that_it_wakes(connect: Connect, session: Session) -> None:
    """It names the address for webhooks, and the record types whose changes wake DAGs of the account."""
    add_waiting_dag(session, "tasks", "Tasks", cursor="tasks/detect", push=True)
    add_waiting_dag(session, "both", "Contacts", "Tasks")
    add_waiting_dag(session, "others", "Leads", insightly_conn_id="insightly_default_2")
    session.commit()
    assert checked(connect) == [
        (OK, "/insightly/hooks/crm accepts webhooks for all record types"),
        (OK, "it starts DAGs on changes of Contacts, Tasks of connection 'insightly_default'"),
    ]


def test_no_dag(connect: Connect, session: Session) -> None:
    """If no DAG waits for the account, a warning says that all its webhooks are answered with 404."""
    add_waiting_dag(session, "tasks", "Tasks", insightly_conn_id="crm")
    add_waiting_dag(session, "by_records", names=["insightly/insightly_default/Tasks"])
    session.commit()
    assert checked(connect)[1:] == [
        (
            WARNING,
            (
                "it starts no DAG: no DAG waits for changes of records of connection 'insightly_default', so "
                "webhooks are answered with 404"
            ),
        )
    ]


def test_other_record_types(connect: Connect, session: Session) -> None:
    """A connection that accepts other record types than DAGs wait for causes a warning, too."""
    add_waiting_dag(session, "tasks", "Tasks")
    session.commit()
    assert checked(connect, record_types="Leads Contacts") == [
        (OK, "/insightly/hooks/crm accepts webhooks for Contacts, Leads"),
        (
            WARNING,
            (
                "it starts no DAG: DAGs wait for changes of Tasks of connection 'insightly_default', but the "
                "connection does not accept them"
            ),
        ),
    ]


def test_signed(connect: Connect, session: Session) -> None:
    """With a signing secret, Insightly's own webhooks are refused, and a finding says so."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    level, text = checked(connect, signing_secret=secret)[0]
    assert level == OK
    assert "accepts signed webhooks (Insightly's own are not signed)" in text


@pytest.mark.parametrize(
    ("conn_type", "extra", "finding"),
    [
        ("insightly_incoming", {"accept": "entity"}, "extra.entity_path: it is empty"),
        ("insightly_webhook", {}, "type: it is 'insightly_webhook', and 'insightly_incoming' is needed"),
    ],
)
def test_a_connection_that_cannot_be_used(
    connect: Connect, conn_type: str, extra: dict[str, Any], finding: str
) -> None:
    """Its mistake is one problem, since each request is answered with 401."""
    connect("crm", conn_type, login="insightly", password=PASSWORD, extra=extra)
    (found,) = check_incoming("crm")
    assert found.level == PROBLEM
    assert finding in found.finding
