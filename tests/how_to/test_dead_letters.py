"""docs/how-to/dead-letters.md: its alerts are sent, and its DAGs get the undelivered payloads.

The DAG of dead letters runs in tests/e2e/test_redelivery.py, with real events.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk._shared.module_loading import import_string
from airflow.serialization.serialized_objects import DagSerialization

from airflow_insightly_hooks import load_workflow
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.how_to.mail_server import MailServer, mail_server
from tests.how_to.pages import Page, commands

ROOT = Path(__file__).parent.parent.parent
HERE = Path(__file__).parent
PAGE = Page("dead-letters.md")


def test_no_block_is_without_a_test() -> None:
    """Each block of the page is executed here or in tests/e2e/test_redelivery.py."""
    assert sorted(PAGE.kinds()) == sorted(["", "", *["bash"] * 4, *["yaml"] * 3, *["python"] * 5])


def write_files(folder: Path) -> None:
    """Write the page's files as it says: modules, and workflow files beside the DAG files."""
    for kind, code in PAGE.blocks:
        if kind == "python" and code.startswith("# "):
            (folder / code.splitlines()[0].removeprefix("# ")).write_text(code, "utf-8")
    mail = yaml.safe_load(PAGE.block("yaml", "SmtpNotifier"))
    slack = mail | yaml.safe_load(PAGE.block("yaml", "SlackWebhookNotifier"))
    dead_letters = yaml.safe_load(PAGE.block("yaml", "undelivered_asset"))
    for name, workflow in (("mail", mail), ("slack", slack), ("dead_letters", dead_letters)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(workflow), "utf-8")
    (folder / "workflows").mkdir()
    without_mail = {key: value for key, value in mail.items() if key != "on_failure"}
    (folder / "workflows" / "new_contacts.yaml").write_text(yaml.safe_dump(without_mail), "utf-8")


@pytest.mark.e2e
@pytest.mark.scale
@pytest.mark.timeout(600)
def test_alerts(tmp_path: Path) -> None:
    """Runs of the page's DAGs send the promised alerts, and no others."""
    write_files(tmp_path)
    shutil.copy(HERE / "suites" / "dead_letters.py", tmp_path)
    own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    plugins = ("airflow_insightly_hooks.pytest_plugin", "no:cacheprovider", "no:schemathesis")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *(f"-p{name}" for name in plugins), "dead_letters.py"],
        cwd=tmp_path,
        env={**own, "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_workflow_files_are_right(tmp_path: Path) -> None:
    """The files that need no other package can be loaded."""
    write_files(tmp_path)
    for name in ("mail.yaml", "dead_letters.yaml", "workflows/new_contacts.yaml"):
        assert load_workflow(str(tmp_path / name)).name == "New contacts"


@pytest.fixture
def mails(monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    """The mail server of the connection ``smtp_default``."""
    extra = {"from_email": "airflow@example.com", "disable_tls": True, "disable_ssl": True}
    with mail_server() as server:
        connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": server.port, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
        yield server


def dags_of(folder: Path, workflow_file: str) -> list[Any]:
    """Return the DAGs of a workflow file as Airflow loads them, by their ids."""
    (folder / "crm.py").write_text(
        "from airflow_insightly_hooks import load_workflow\n"
        f"from airflow.sdk import DAG\nload_workflow({str(folder / workflow_file)!r}).to_dag()"
    )
    bag = DagBag(str(folder / "crm.py"))
    assert not bag.import_errors
    return [dag for _, dag in sorted(bag.dags.items())]


def failed_run_context(dag: Any) -> dict[str, Any]:
    """Return the context that Airflow's DAG processor gives to a DAG's callback, for a run without tasks."""
    return {"dag": dag, "run_id": "scheduled__1", "reason": "task_failure"}


def test_a_mail_for_a_failed_run(tmp_path: Path, mails: MailServer) -> None:
    """The workflow's notifier sends a mail for its DAG, and for its retry DAG."""
    write_files(tmp_path)
    for number in range(2):  # each failed run has a DAG processor's process, and hence a notifier, of its own
        dag = dags_of(tmp_path, "mail.yaml")[number]
        dag.on_failure_callback(failed_run_context(dag))
    subjects = [message_from_string(mail)["Subject"] for mail in mails.mails]
    assert subjects == ["Failed: new_contacts", "Failed: new_contacts__retry"]
    (part,) = message_from_string(mails.mails[0]).get_payload()
    text = part.get_payload(decode=True).decode()
    assert text == "Run scheduled__1 has failed. See Browse > Insightly webhooks."


def test_slack_for_a_failed_run(
    tmp_path: Path, sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider's notifier posts to the incoming webhook that the connection names."""
    write_files(tmp_path)
    host, _, token = sandbox.bin_url("slack").rpartition("/")
    connection = {"conn_type": "slackwebhook", "host": host, "password": token}
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_DEFAULT", json.dumps(connection))
    dag, _ = dags_of(tmp_path, "slack.yaml")
    dag.on_failure_callback(failed_run_context(dag))
    (request,) = sandbox.received("slack")
    assert json.loads(request["body"])["text"] == "new_contacts has failed: run scheduled__1"


def test_a_deadline(tmp_path: Path, mails: MailServer) -> None:
    """The workflow's DAG is serialized with the deadline, which sends a mail when it is missed."""
    write_files(tmp_path)
    bag = DagBag(str(tmp_path / "deadline.py"))
    assert not bag.import_errors
    (deadline,) = bag.dags["new_contacts"].deadline
    assert deadline.interval == timedelta(minutes=30)
    callback = deadline.callback.serialize()
    DagSerialization.serialize_dag(bag.dags["new_contacts"])
    notifier = import_string(callback["path"])(**callback["kwargs"])
    notifier({"dag": bag.dags["new_contacts"]})
    assert [message_from_string(mail)["Subject"] for mail in mails.mails] == ["Late: an Insightly workflow"]


def test_the_commands() -> None:
    """The command line has the options that they use."""
    for words in ("deliveries", "resend"):
        (command,) = commands(PAGE.block("bash", f"insightly {words}"))
        assert command[:3] == ["airflow", "insightly", words]
