"""``doctor``: its output and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.fernet import Fernet

from airflow_insightly_hooks.diagnosis import diagnosis
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.cli.conftest import Command, Ran
from tests.conftest import Connect

PASSWORD = "Pa55-of-the-tests"
KEYS = ["subject", "level", "finding", "what_to_do"]


@pytest.fixture(autouse=True)
def _only_our_connections(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("AIRFLOW_CONN_"):
            monkeypatch.delenv(name)
    # Another file than that of the configuration; it doesn't exist.
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{tmp_path / 'none.db'}")


@pytest.fixture
def billing(sandbox: RunningSandbox, connect: Connect) -> str:
    return connect(
        "billing", host=f"{sandbox.url}/bin/billing", login="user", password=PASSWORD, extra={"timeout": 5}
    )


def findings_of(ran: Ran) -> dict[str, list[str]]:
    """Return the levels by subject."""
    assert PASSWORD not in ran.out + ran.err
    by_subject: dict[str, list[str]] = {}
    for finding in json.loads(ran.out):
        assert list(finding) == KEYS
        by_subject.setdefault(finding["subject"], []).append(finding["level"])
    return by_subject


def test_what_the_environment_holds(
    command: Command, insightly: RunningSandbox, billing: str, connect: Connect
) -> None:
    """Without ids, all connections of this package's types are checked. Without a problem it ends with 0."""
    connect("hooks", "insightly_incoming", login="insightly", password=PASSWORD)
    connect("other", "http", host="https://other.example.com")
    ran = command("doctor", "--output", "json", "--record-types", "Contacts")
    found = findings_of(ran)
    assert ran.code == 0
    assert list(found) == [
        "Airflow",
        "[state_store] of airflow.cfg",
        "Airflow's components",
        "connection insightly_default",
        "connection billing",
        "connection hooks",
    ]
    assert found["Airflow's components"] == ["skipped"]
    assert found["connection insightly_default"] == ["warning", "ok", "ok", "ok", "ok"]  # the key's place
    assert ran.err == "0 problems, 1 warning, 1 skipped\n"


def test_named_connections(command: Command, insightly: RunningSandbox, billing: str) -> None:
    """With ids, only these connections are checked. A problem makes the exit code 1."""
    ran = command("doctor", "--receiver", billing, "nope", "--receiver", "nor_this", "--output", "json")
    found = findings_of(ran)
    assert ran.code == 1
    assert [subject for subject in found if subject.startswith("connection")] == [
        "connection billing",
        "connection nope",
        "connection nor_this",
    ]
    assert found["connection nope"] == ["problem"]
    assert ran.err == "2 problems, 0 warnings, 1 skipped\n"


def test_named_incoming_webhooks(command: Command, billing: str, connect: Connect) -> None:
    """If only connections for Insightly's own webhooks are named, nothing else is checked."""
    connect("hooks", "insightly_incoming", login="insightly", password="")
    ran = command("doctor", "--incoming", "hooks", "--output", "json")
    found = findings_of(ran)
    assert (ran.code, found["connection hooks"]) == (1, ["problem"])
    assert "connection billing" not in found


def test_nothing_is_posted_unless_asked(command: Command, sandbox: RunningSandbox, billing: str) -> None:
    """``--post`` alone sends something: an empty object."""
    for arguments, received in (((), []), (("--post",), ["{}"])):
        assert command("doctor", "--receiver", billing, *arguments).code == 0
        assert [kept["body"] for kept in sandbox.received("billing")] == received


def test_no_connections(command: Command) -> None:
    """If a type has no connection, a warning says so: the connection may be in a secrets backend."""
    ran = command("doctor", "--output", "json")
    assert (ran.code, findings_of(ran)["connections"]) == (0, ["warning", "warning"])


def test_a_variable_that_holds_no_connection(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning names the variable, without its value."""
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", f'{{"password": "{PASSWORD}"')
    ran = command("doctor", "--output", "json")
    assert findings_of(ran)["connection broken"] == ["warning"]


def test_an_unknown_record_type(command: Command, insightly: RunningSandbox) -> None:
    """A record type that doesn't exist is wrong usage, and nothing is asked."""
    ran = command("doctor", "--record-types", "Contakts")
    assert (ran.code, ran.out) == (2, "")
    assert "did you mean 'Contacts'?" in ran.err
    assert not sum(insightly.configure()["requests"].values())


def test_a_check_that_fails(
    command: Command, insightly: RunningSandbox, billing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in one check makes one finding without the error's text. The other checks go on."""

    def check(*_: Any) -> Any:
        yield from ()
        raise KeyError(PASSWORD)

    monkeypatch.setattr(diagnosis, "check_account", check)
    ran = command("doctor", "--output", "json")
    found = findings_of(ran)
    assert (ran.code, found["connection insightly_default"], found["connection billing"]) == (
        1,
        ["problem"],
        ["ok"],
    )


@pytest.mark.parametrize("output", ["table", "plain", "yaml"])
def test_formats(command: Command, billing: str, output: str) -> None:
    """The findings come as a table, plain or as YAML, too."""
    ran = command("doctor", "--receiver", billing, "--output", output)
    assert ran.code == 0
    if output == "yaml":
        assert next(list(finding) for finding in yaml.safe_load(ran.out)) == KEYS
    else:
        assert all(key in ran.out.splitlines()[0] for key in KEYS)
        assert "accepts connections" in ran.out


SCRIPT = """
import json, sys
from datetime import datetime, timedelta, timezone
from airflow.jobs.job import Job
from airflow.models import Connection, import_all_models
from airflow.models.base import Base
from airflow import settings
from airflow.utils.session import create_session

import_all_models()
Base.metadata.create_all(settings.engine)
with create_session() as session:
    for job_type, age in (("SchedulerJob", 1), ("TriggererJob", 3600)):
        beat = datetime.now(timezone.utc) - timedelta(seconds=age)
        job = Job()
        job.job_type, job.state, job.latest_heartbeat = job_type, "running", beat
        session.add(job)
    session.add(Connection("stored", "insightly_webhook", host="http://127.0.0.1:9", password=sys.argv[1]))
    session.add(Connection("billing", "insightly_webhook", host="http://127.0.0.1:9"))
    session.add(Connection("other", "http", host="http://127.0.0.1:9"))
from airflow_insightly_hooks.__main__ import main
main(["doctor", "--output", "json"])
"""


def test_with_a_database(billing: str, tmp_path: Path) -> None:
    """Connections of the database follow the environment's. Components are judged by their heartbeats."""
    database = f"sqlite:///{tmp_path / 'airflow.db'}"
    settings = {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
    }
    env = {**os.environ, **settings}
    env.pop("_AIRFLOW_PROCESS_CONTEXT", None)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, PASSWORD], env=env, capture_output=True, text=True, timeout=60
    )
    found = findings_of(Ran(done.returncode, done.stdout, done.stderr))
    assert done.returncode == 1
    assert {name.removeprefix("Airflow's "): levels for name, levels in found.items() if "'s" in name} == {
        "scheduler": ["ok"],
        "triggerer": ["problem"],
        "dag-processor": ["problem"],
    }
    assert found["Airflow"] == ["ok", "ok"]
    assert found["connection billing"] == ["ok"]  # the environment's
    assert found["connection stored"] == ["problem"]
    assert "connection other" not in found
