"""The pytest plugin: fixtures to test DAGs and workflows against the sandbox (docs/how-to/test-dags.md).

If no test uses the fixtures, the plugin loads nothing and changes nothing.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_insightly_hooks.sandbox.server import RunningSandbox
    from airflow_insightly_hooks.testing.connections import SandboxConnections
    from airflow_insightly_hooks.testing.dag_runs import DagRuns

__all__ = ["insightly_connections", "insightly_sandbox", "pytest_addoption", "run_dag"]

TEMPORARY_HOME = "insightly_temporary_airflow_home"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the plugin's setting."""
    parser.addini(
        TEMPORARY_HOME,
        "Set AIRFLOW_HOME to a temporary folder before conftest.py and the tests are imported.",
        type="bool",
        default=False,
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Set AIRFLOW_HOME to a temporary folder, if the project's settings ask for it."""
    if not early_config.getini(TEMPORARY_HOME):
        return
    if "airflow" in sys.modules:
        raise pytest.UsageError(
            f"{TEMPORARY_HOME}: Airflow is imported already, by a plugin or by -p: remove that, or turn this "
            f"setting off and set AIRFLOW_HOME before pytest starts"
        )
    folder = tempfile.mkdtemp(prefix="airflow-home-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["AIRFLOW_HOME"] = folder
    os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{folder}/airflow.db"


@pytest.fixture(scope="session")
def _insightly_running_sandbox() -> Iterator[RunningSandbox]:
    from airflow_insightly_hooks.sandbox.server import running_sandbox

    with running_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def _insightly_test_began(_insightly_running_sandbox: RunningSandbox) -> datetime:
    _insightly_running_sandbox.reset()
    _insightly_running_sandbox.configure(requests_per_second=10_000)  # so that no test waits for the limit
    return _insightly_running_sandbox.now()


@pytest.fixture
def insightly_sandbox(
    _insightly_running_sandbox: RunningSandbox, _insightly_test_began: datetime
) -> RunningSandbox:
    """Return a sandbox: a CRM with its seeded records, and request bins, on a free port."""
    return _insightly_running_sandbox


@pytest.fixture
def insightly_connections(
    insightly_sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> SandboxConnections:
    """Return an object that makes connections to the sandbox. ``insightly_default`` exists already."""
    from airflow_insightly_hooks.testing.connections import SandboxConnections

    connections = SandboxConnections(insightly_sandbox, monkeypatch)
    connections.insightly()
    return connections


@pytest.fixture(scope="session")
def _insightly_new_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from airflow_insightly_hooks.testing.own_airflow import new_database

    return new_database(tmp_path_factory.mktemp("airflow"))


@pytest.fixture
def run_dag(
    insightly_sandbox: RunningSandbox,
    insightly_connections: SandboxConnections,
    _insightly_test_began: datetime,
    _insightly_new_database: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[DagRuns]:
    """Return a function that runs DAGs, ``run_dag(dag)``, in a real Airflow with its own database."""
    from airflow_insightly_hooks.testing.dag_runs import DagRuns
    from airflow_insightly_hooks.testing.own_airflow import own_airflow

    with own_airflow(tmp_path_factory.mktemp("airflow"), _insightly_new_database):
        yield DagRuns(insightly_sandbox, insightly_connections, _insightly_test_began)
