"""Where a record's contents lie after its workflow has run, as docs/how-to/personal-data.md says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import delete, select

import airflow_insightly_hooks
from airflow_insightly_hooks import Webhook, Workflow

PAGE = Path(airflow_insightly_hooks.__file__).parent.parent / "docs" / "how-to" / "personal-data.md"
NAME = "Quixotethal"
OF_THE_PAGE = re.compile(r"`([\w{}]+)`")


def places(text: str) -> set[str]:
    """Return the tables and columns of Airflow's database that hold a text."""
    with create_session() as session:
        found = set()
        for table in sqlalchemy.inspect(session.get_bind()).get_table_names():
            for row in session.execute(sqlalchemy.text(f'SELECT * FROM "{table}"')).mappings():  # noqa: S608
                found |= {f"{table}.{column}" for column, value in row.items() if text in str(value)}
        return found


def xcoms(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield DAG, task and key of each XCom that holds a text."""
    with create_session() as session:
        for row in session.scalars(select(XComModel)):
            if text in str(row.value):
                yield row.dag_id, row.task_id, row.key


def workflow(mode: str) -> Workflow:
    return Workflow(
        name="Newcomers",
        record_type="Contacts",
        evaluate="until_triggered",
        mode=mode,
        webhooks=[
            Webhook(name="Desk", conn_id="desk"),
            Webhook(name="Later", conn_id="later", after="3d"),
        ],
    )


def test_contents_are_in_xcoms_that_the_page_names(insightly_sandbox, run_dag):
    """The rows of one person are found, and once they are deleted nothing of the person is left."""
    contact = insightly_sandbox.create("Contacts", LAST_NAME=NAME, EMAIL_ADDRESS="quixote@example.com")
    assert run_dag(workflow("tasks")).state == "success"
    insightly_sandbox.advance(days=3, minutes=1)
    run_dag.due()
    assert len(insightly_sandbox.received("later")) == 1
    assert places(NAME) == places("quixote@example.com") == {"xcom.value"}
    assert set(xcoms(NAME)) == {
        ("newcomers", "detect", "return_value"),
        ("newcomers", "evaluate", "return_value"),
        ("newcomers", "build_desk", "return_value"),
        ("newcomers__pending", "due_later", "return_value"),
        ("newcomers__pending", "build_later", "return_value"),
    }
    named = set(OF_THE_PAGE.findall(PAGE.read_text("utf-8")))
    assert {"detect", "evaluate", "build_{webhook}", "due_{webhook}", "return_value"} <= named

    with create_session() as session:
        session.execute(
            delete(XComModel).where(sqlalchemy.cast(XComModel.value, sqlalchemy.Text).contains(NAME))
        )
    assert places(NAME) == places("quixote@example.com") == set()
    assert "xcom.value" in places(str(contact["CONTACT_ID"])), "rows with the id alone may stay"


def test_one_task_keeps_no_contents(insightly_sandbox, run_dag):
    """No table holds a record that was read and sent by one task."""
    insightly_sandbox.create("Contacts", LAST_NAME=NAME)
    assert len(run_dag(workflow("one_task")).requests["desk"]) == 1
    assert places(NAME) == set()


def test_logs_hold_no_contents(insightly_sandbox, run_dag, capfd, caplog):
    """Neither does what the tasks log."""
    insightly_sandbox.create("Contacts", LAST_NAME=NAME)
    run_dag(workflow("tasks"))
    logged = "".join(capfd.readouterr()) + caplog.text
    assert "Contacts" in logged
    assert NAME not in logged
