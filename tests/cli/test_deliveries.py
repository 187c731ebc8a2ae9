"""``deliveries`` and ``resend``: lists, questions and exit codes."""

from __future__ import annotations

import json
import sys
from io import StringIO

import pytest
from airflow.models.task_state_store import TaskStateStoreModel
from sqlalchemy import update
from sqlalchemy.orm import Session

from airflow_insightly_hooks.cli.commands import deliveries as module
from airflow_insightly_hooks.cli.definitions.deliveries import STATES
from airflow_insightly_hooks.core.delivery import stored_deliveries
from airflow_insightly_hooks.core.delivery.resend_requests import read_requests
from airflow_insightly_hooks.database.deliveries import UNDELIVERED, TaskKey
from airflow_insightly_hooks.database.state import DatabaseStateStore
from tests.cli.conftest import Command
from tests.database.test_deliveries import add_run, write
from tests.database.test_deliveries import session as database_session

session = database_session


@pytest.fixture
def keys(session: Session) -> dict[str, TaskKey]:
    """A run that has delivered one of two messages, and one of a paused DAG that has delivered one."""
    made = {"one": add_run(session, "one"), "two": add_run(session, "two", "paused", "success")}
    write(session, made["one"], {"msg_a": (1, "A", 1), "msg_b": (2, "F", 2)})
    write(session, made["two"], {"msg_c": (1, "A", 3)}, conn_id="erp", receiver="https://erp.example.com/")
    return made


def requested(session: Session, key: TaskKey) -> list[set[str]]:
    session.expire_all()
    return [set(request.messages[""]) for request in read_requests(DatabaseStateStore(session, key))]


def test_the_states_are_those_of_the_record() -> None:
    """Each state that a message can have can be asked for, and ``undelivered``."""
    known = {state.replace(" ", "-") for state in (*stored_deliveries.STATES, UNDELIVERED)}
    assert set(STATES) == known


@pytest.mark.usefixtures("keys")
def test_a_list(command: Command) -> None:
    """The newest comes first. JSON has all fields, and a table has those that fit into the terminal."""
    ran = command("deliveries", "--output", "json")
    rows = json.loads(ran.out)
    assert [row["message_id"] for row in rows] == ["msg_c", "msg_b", "msg_a"]
    assert rows[1] == {
        "at": "2026-01-31T08:02:00Z",
        "state": "failed",
        "record": "Contacts:2",
        "event": "updated",
        "changed_at": "2026-01-31T08:00:00Z",
        "receiver": "billing",
        "attempts": 1,
        "status": 503,
        "seconds": 0.1,
        "error": "answered 503",
        "message_id": "msg_b",
        "dag_id": "flow",
        "run_id": "one",
        "task_id": "deliver",
    }
    assert (ran.code, ran.err) == (0, "")
    plain = command("deliveries", "--output", "plain", "--limit", 1).out.splitlines()
    assert plain[0].split() == list(module.COLUMNS)
    assert "msg_c" in plain[1]


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--record", "1"], ["msg_c", "msg_a"]),
        (["--record", "Leads:1"], []),
        (["--record", "Leads:1", "Contacts:2"], ["msg_b"]),
        (["--record", "1", "--record", "2"], ["msg_c", "msg_b", "msg_a"]),
        (["--receiver", "erp"], ["msg_c"]),
        (["--state", "undelivered"], ["msg_b"]),
        (["--state", "in-doubt"], []),
        (["--dag-id", "flow", "--run-id", "one", "--task-id", "deliver"], ["msg_b", "msg_a"]),
        (["--message", "msg_a", "msg_c"], ["msg_c", "msg_a"]),
        (["--message", "msg_a", "--message", "msg_c"], ["msg_c", "msg_a"]),
        (["--since", "2026-01-31T08:02:00Z", "--until", "2026-01-31T08:03:00Z"], ["msg_b"]),
        (["--limit", "1", "--offset", "1"], ["msg_b"]),
    ],
)
def test_filters(command: Command, arguments: list[str], found: list[str]) -> None:
    """Each argument filters by its own criterion."""
    rows = json.loads(command("deliveries", "-o", "json", *arguments).out)
    assert [row["message_id"] for row in rows] == found


def test_a_workflows_other_dags(command: Command, session: Session, keys: dict[str, TaskKey]) -> None:
    """Messages of the retry DAG and the pending DAG belong to the workflow."""
    session.execute(
        update(TaskStateStoreModel).where(TaskStateStoreModel.dag_id == "paused").values(dag_id="flow__retry")
    )
    session.commit()
    rows = json.loads(command("deliveries", "--dag-id", "flow", "-o", "json").out)
    assert [row["message_id"] for row in rows] == ["msg_c", "msg_b", "msg_a"]


@pytest.mark.usefixtures("keys")
def test_more_than_are_listed(command: Command) -> None:
    """The output says that there are more, without their number."""
    ran = command("deliveries", "--limit", 2, "-o", "json")
    assert ran.err == "2 messages listed, and there are more: use --limit and --offset\n"


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["deliveries", "--run-id", "one"], "--run-id: name the run's DAG with --dag-id"),
        (["deliveries", "--task-id", "deliver"], "--task-id: name the run with --run-id"),
        (["deliveries", "--record", "x"], "--record: a record's id is needed, as in 7 or Contacts:7"),
        (["deliveries", "--record", "Contact:7"], "--record: "),
        (["deliveries", "--since", "yesterday"], "--since: a time"),
        (["resend", "--run-id", "one"], "--run-id: name the run's DAG with --dag-id"),
        (["resend", "--task-id", "deliver"], "--task-id: name the run with --run-id"),
        (["resend", "--yes"], "say which messages to send again: --message"),
    ],
)
def test_wrong_usage(command: Command, arguments: list[str], error: str) -> None:
    """One line says what is needed."""
    ran = command(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {error}")
    assert ran.err.count("\n") == 1


def test_what_is_undelivered_is_sent_again(
    command: Command, session: Session, keys: dict[str, TaskKey]
) -> None:
    """By default, the undelivered messages that match the filter are sent again."""
    ran = command("resend", "--receiver", "billing", "--yes", "-o", "json")
    assert ran.code == 0
    (row,) = json.loads(ran.out)
    assert row == {
        "dag_id": "flow",
        "run_id": "one",
        "task_id": "deliver",
        "messages": 1,
        "outcome": "cleared",
        "reason": "",
    }
    assert ran.err == "1 message will be sent again; 'deliveries' shows the result\n"
    assert requested(session, keys["one"]) == [{"msg_b"}]


def test_a_record_is_sent_again_although_it_was_delivered(
    command: Command, session: Session, keys: dict[str, TaskKey]
) -> None:
    """Named messages are sent to each of their receivers. A paused DAG is reported."""
    ran = command("resend", "--record", "1", "--yes", "-o", "json")
    assert [(row["run_id"], row["reason"]) for row in json.loads(ran.out)] == [
        ("one", ""),
        ("two", "the DAG is paused: unpause it"),
    ]
    assert [requested(session, keys[name]) for name in ("one", "two")] == [[{"msg_a"}], [{"msg_c"}]]


def test_what_cannot_be_sent_again(command: Command, session: Session, keys: dict[str, TaskKey]) -> None:
    """The exit code is 1, and a line has the reason and the remedy. Other messages are sent."""
    from airflow.models.xcom import XComModel

    session.query(XComModel).where(XComModel.run_id == "one").delete()
    session.commit()
    ran = command("resend", "--record", "1", "--yes", "-o", "json")
    assert ran.code == 1
    refused = json.loads(ran.out)[0]
    assert refused["outcome"] == "refused"
    assert refused["reason"].startswith("its payloads are gone from XCom: clear the run's first task")
    assert ran.err.endswith("1 message can't be sent again: see the reasons\n")
    assert [requested(session, keys[name]) for name in ("one", "two")] == [[], [{"msg_c"}]]


class Terminal(StringIO):
    """A terminal with a user who types."""

    def isatty(self) -> bool:
        return True


def test_the_question_says_how_many_and_to_whom(
    command: Command, session: Session, keys: dict[str, TaskKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a yes no request is made."""
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    ran = command("resend", "--record", "1")
    assert "Send 2 messages again (erp: 1, billing: 1)?" in ran.out + ran.err
    assert (ran.code, requested(session, keys["one"])) == (1, [])


@pytest.mark.usefixtures("keys")
def test_nothing_matches(command: Command) -> None:
    """The output says so, and the exit code is 1."""
    ran = command("resend", "--record", "99", "--yes")
    assert (ran.code, ran.out, ran.err) == (1, "", "no message matches\n")
