"""``airflow insightly``, with connections in Airflow's database, and where there is no database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from airflow_insightly_hooks.cli.definition import COMMANDS
from airflow_insightly_hooks.sandbox.server import RunningSandbox, running_sandbox
from tests.e2e.conftest import API_KEY, PASSWORD, USERNAME

pytestmark = [pytest.mark.e2e, pytest.mark.scale, pytest.mark.timeout(600)]

ROOT = Path(__file__).parent.parent.parent
WON = "dags/workflows/opportunity_won.yaml"
OURS = [sys.executable, "-m", "airflow_insightly_hooks"]
AIRFLOWS = ["airflow", "insightly"]


class Shell(NamedTuple):
    """A machine with an Airflow home of its own, and with the sandbox."""

    home: Path
    crm: RunningSandbox

    def run(self, *command: object, code: int = 0) -> str:
        """Return a command's standard output. Neither it nor standard error may hold a secret."""
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "_AIRFLOW", "COV_"))}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        env = {**outside, "PATH": path, "AIRFLOW_HOME": str(self.home), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [str(part) for part in command], env=env, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert API_KEY not in done.stdout + done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    with running_sandbox() as crm:
        yield Shell(tmp_path_factory.mktemp("airflow"), crm)


def test_without_a_database(shell: Shell) -> None:
    """Both programs show their commands, check files, and say that there is no connection."""
    assert not (shell.home / "airflow.db").exists()
    for entry in (AIRFLOWS, OURS):
        help_text = shell.run(*entry, "--help")
        assert {c.name for c in COMMANDS} <= set(help_text.split())
        assert shell.run(*entry, "check", "dags/workflows") == ""
        shell.run(*entry, "fields", "Contacts", code=3)


def test_with_connections_in_the_database(shell: Shell) -> None:
    """The commands find the connections, and standard output holds the result alone."""
    shell.run("airflow", "db", "migrate")
    add = ("airflow", "connections", "add")
    shell.run(
        *(*add, "insightly_default", "--conn-type", "insightly"),
        *("--conn-host", shell.crm.api_url, "--conn-password", API_KEY),
    )
    shell.run(
        *(*add, "sales_webhook", "--conn-type", "insightly_webhook"),
        *("--conn-host", shell.crm.bin_url("sales"), "--conn-login", USERNAME, "--conn-password", PASSWORD),
    )
    won = shell.crm.create(
        "Opportunities", OPPORTUNITY_NAME="The one", OPPORTUNITY_STATE="WON", OPPORTUNITY_VALUE=30_000
    )["OPPORTUNITY_ID"]
    for sent, entry in enumerate((AIRFLOWS, OURS), 1):
        fields = json.loads(shell.run(*entry, "fields", "Opportunities", "-o", "json"))
        assert {"OPPORTUNITY_ID", "Channel__c"} < {field["field"] for field in fields}
        preview = json.loads(
            shell.run(*entry, "preview", WON, "--record", won, "--send", "--yes", "-o", "json")
        )
        (message,) = preview["messages"]
        assert message["receiver"] == shell.crm.bin_url("sales")
        assert message["headers"]["Authorization"] == "Basic ***"
        received = shell.crm.received("sales")
        assert len(received) == sent
        assert received[-1]["body"] == message["body"]
        assert received[-1]["username"] == USERNAME
        past = json.loads(
            shell.run(*entry, "backtest", WON, "--since", "1h", "--until", "2100-01-01", "-o", "json")
        )
        assert won in [trigger["record_id"] for trigger in past["first"]]
    shell.crm.answer_with("sales", status=503)
    result = json.loads(shell.run(*AIRFLOWS, "send-test", "sales_webhook", "-o", "json", code=1))
    assert (result["acknowledged"], result["status"]) == (False, 503)
