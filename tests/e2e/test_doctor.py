"""``airflow insightly doctor`` beside a real Airflow whose triggerer dies."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from airflow_insightly_hooks.demo.airflow_stack import AirflowStack, wait_for
from airflow_insightly_hooks.sandbox.server import RunningSandbox

pytestmark = [pytest.mark.e2e, pytest.mark.scale, pytest.mark.timeout(600)]

PASSWORD = "password-of-the-doctor-7c3e"
HEARTBEATS = {
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
}


@pytest.fixture
def airflow(tmp_path: Path, sandbox: RunningSandbox) -> Iterator[AirflowStack]:
    """A separate Airflow, since its triggerer is killed. No other component runs."""
    connections = {
        "insightly_default": {"conn_type": "insightly", "host": sandbox.api_url, "password": "sandbox-key"},
    }
    (tmp_path / "dags").mkdir()
    stack = AirflowStack(tmp_path / "home", tmp_path / "dags", connections, settings=HEARTBEATS)
    try:
        stack.migrate()
        yield stack
    finally:
        stack.stop()


def findings(airflow: AirflowStack, code: int, *arguments: str) -> dict[str, list[str]]:
    """Return the command's findings: levels by subject."""
    command = [sys.executable, "-m", "airflow", "insightly", "doctor", "--output", "json", *arguments]
    done = subprocess.run(command, env=airflow.env, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    found: dict[str, list[str]] = {}
    for finding in json.loads(done.stdout):
        found.setdefault(finding["subject"], []).append(finding["level"])
    return found


def test_a_triggerer_that_dies(airflow: AirflowStack, sandbox: RunningSandbox) -> None:
    """The command tells a live triggerer from a dead one, and checks the database's connections, too."""
    sandbox_host = ("--conn-host", f"{sandbox.url}/bin/doctor")
    credentials = ("--conn-login", "user", "--conn-password", PASSWORD)
    airflow.cli(
        "connections", "add", "stored", "--conn-type", "insightly_webhook", *sandbox_host, *credentials
    )
    airflow.start("triggerer")

    def triggerer(level: str) -> bool:
        airflow.processes.check()
        return findings(airflow, 1)["Airflow's triggerer"] == [level]

    wait_for("a triggerer that is alive", lambda: triggerer("ok"), 120)
    found = findings(airflow, 1)
    assert found["Airflow's scheduler"] == ["problem"]
    assert found["connection stored"] == ["ok"]
    assert set(found["connection insightly_default"]) == {"ok"}
    assert sandbox.received("doctor") == []
    children = psutil.Process(airflow.processes.pid("triggerer")).children(recursive=True)
    airflow.processes.kill("triggerer")
    for child in children:  # they would live on
        with suppress(psutil.NoSuchProcess):
            child.kill()
    wait_for("a triggerer that is dead", lambda: triggerer("problem"), 60)
