"""``pending``: webhooks that wait for their time are listed, cancelled and sent, after a question."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from airflow import settings
from airflow.models import DagModel
from sqlalchemy import create_engine, update
from sqlalchemy.orm import Session

from airflow_insightly_hooks.cli import confirmation
from tests.cli.conftest import Command
from tests.database.test_pending import add_run, add_workflow, book, entry, queued
from tests.metadata_database import metadata_database

CHANGED_AT = "2026-01-09T12:00:00Z"
CHECK = {
    "due": "2026-01-10T13:00:00Z",
    "dag_id": "won",
    "webhook": "check_later",
    "record_type": "Contacts",
    "record_id": 1,
    "event": "added",
    "changed_at": CHANGED_AT,
    "sent_by": "won__pending",
}


@pytest.fixture
def session() -> Iterator[Session]:
    """A database with two workflows; three webhooks are pending."""
    with metadata_database() as sessions, sessions() as session:
        add_workflow(session, "Won", "Check later")
        add_workflow(session, "Lost", "Ask why")
        book(session, "won", "check_later").add([entry(1, 1), entry(2, 2, "2026-01-09 12:00:00")])
        book(session, "lost", "ask_why").add([entry(1, 3)])
        yield session


class Terminal(StringIO):
    """A terminal with a user who types."""

    def isatty(self) -> bool:
        return True


def answers(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("".join(f"{line}\n" for line in lines)))


def entries(session: Session, dag_id: str) -> list[Any]:
    requests = [run.conf.get("pending_request") for run in queued(session, dag_id)]
    return [request["entries"] for request in requests if request]


def test_a_list(command: Command, session: Session) -> None:
    """The next one comes first. Times are in UTC, in whatever form the API has written them."""
    ran = command("pending", "list", "--output", "json")
    second = {**CHECK, "due": "2026-01-10T14:00:00Z", "record_id": 2}
    third = {
        **CHECK,
        "due": "2026-01-10T15:00:00Z",
        "dag_id": "lost",
        "webhook": "ask_why",
        "sent_by": "lost__pending",
    }
    assert (ran.code, json.loads(ran.out), ran.err) == (0, [CHECK, second, third], "")
    ran = command("pending", "list", "--limit", 1, "--offset", 1, "-o", "json")
    assert json.loads(ran.out) == [second]
    assert ran.err == "1 of 3 pending webhooks; --limit and --offset show others\n"
    ran = command(
        "pending", "list", "--record", 1, "--dag-id", "lost", "won", "-w", "Check later", "-o", "json"
    )
    assert json.loads(ran.out) == [CHECK]
    ran = command("pending", "list", "--record", 99)
    assert (ran.code, ran.out, ran.err) == (0, "", "No data found\n")


def test_what_is_odd_is_said(command: Command, session: Session) -> None:
    """The list names paused DAGs, runs without entries yet, webhooks that no DAG sends, and lost state."""
    session.execute(update(DagModel).where(DagModel.dag_id == "won__pending").values(is_paused=True))
    add_run(session, "won__pending", "from__1", "queued")
    session.execute(update(DagModel).where(DagModel.dag_id == "lost__pending").values(is_stale=True))
    book(session, "broken", "check").add([entry(1)])
    book(session, "broken", "check")._store.delete("pending/broken/check")
    session.commit()
    ran = command("pending", "list", "--output", "json")
    assert [found["sent_by"] for found in json.loads(ran.out)] == ["won__pending", "won__pending", None]
    said = ran.err.splitlines()
    assert said[0].startswith("not listed: ")
    assert "pending/broken/check" in said[0]
    assert said[1:3] == [
        "won__pending is paused: it sends nothing until you unpause it",
        "won__pending: 1 queued run will add more webhooks, which are not listed yet",
    ]
    assert said[3].startswith("lost/ask_why: no DAG sends its 1 pending message.")
    ran = command("pending", "cancel", "--all", "--yes")
    assert ran.code == 0
    assert entries(session, "won__pending") == [
        {"check_later": {"1": CHANGED_AT, "2": "2026-01-09 12:00:00"}}
    ]
    assert "won__pending is paused: its run waits until you unpause it" in ran.err


@pytest.mark.parametrize(
    ("name", "question", "said"),
    [
        (
            "cancel",
            "Cancel 2 pending webhooks (lost: 1, won: 1)?",
            "Requested to cancel 2 webhooks, in 2 runs.",
        ),
        (
            "send-now",
            "Send 2 pending webhooks now (lost: 1, won: 1)?",
            "Requested to send 2 webhooks now, in 2 runs.",
        ),
    ],
)
def test_the_question_has_the_number(
    command: Command, session: Session, monkeypatch: pytest.MonkeyPatch, name: str, question: str, said: str
) -> None:
    """Without the answer yes, no request is made. The run has the name of the user at the terminal."""
    monkeypatch.setattr(confirmation, "getuser", lambda: "anna")
    answers(monkeypatch, "what?", "n")
    ran = command("pending", name, "--record", 1)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines()[0] == f"{question} [y/n]"
    assert ran.err.splitlines()[-1] == "nothing was done"
    assert queued(session, "won__pending") == []
    answers(monkeypatch, "y")
    ran = command("pending", name, "--record", 1, "--output", "json")
    assert ran.code == 0
    (run,) = queued(session, "won__pending")
    assert {(found["dag_id"], found["webhooks"]) for found in json.loads(ran.out)} == {
        ("won__pending", 1),
        ("lost__pending", 1),
    }
    assert run.run_id in ran.out
    assert run.triggering_user_name == "anna"
    assert run.conf["pending_request"]["action"] == name.replace("-", "_")
    assert entries(session, "won__pending") == [{"check_later": {"1": CHANGED_AT}}]
    assert said in ran.err


def test_without_a_terminal_yes_must_be_given(
    command: Command, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script would wait for an answer that never comes."""
    monkeypatch.setattr(sys, "stdin", StringIO())
    ran = command("pending", "cancel", "--all")
    assert (ran.code, ran.out) == (2, "")
    assert "error: there is no terminal to ask for a confirmation: add --yes. The question is: " in ran.err
    assert queued(session, "won__pending") == []
    assert command("pending", "cancel", "--dag-id", "won", "--yes").code == 0
    assert len(queued(session, "won__pending")) == 1


def test_a_selection_must_be_given(command: Command) -> None:
    """A command without arguments doesn't mean everything. This is checked before the database is opened."""
    ran = command("pending", "cancel", "--yes")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "error: name webhooks with --dag-id, --webhook or --record, or give --all\n"


@pytest.mark.parametrize("name", ["cancel", "send-now"])
def test_nothing_that_was_asked_for(command: Command, session: Session, name: str) -> None:
    """The output says so, and the exit code tells a script."""
    ran = command("pending", name, "--record", 99, "--yes")
    assert (ran.code, ran.out, ran.err) == (1, "", "no pending webhook matches\n")


def test_without_a_database(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """An error says where to run the command. No empty database is made, and no address is shown."""
    file = tmp_path / "airflow.db"
    monkeypatch.setattr(settings, "engine", create_engine(f"sqlite:///{file}"))
    ran = command("pending", "list")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith(f"error: Airflow's database can't be read: there is no file {file}.")
    assert not file.exists()
    with metadata_database(with_tables=False):
        ran = command("pending", "list")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("error: Airflow's database can't be read: OperationalError. Run this command")
