"""The pytest plugin in separate pytest sessions, with a real Airflow, without a server.

Each session takes seconds to start, so all tests that need no special settings share one session.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "how-to" / "test-dags.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SUITE = Path(__file__).parent / "pytest_plugin_suite"

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def run_pytest(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a folder, as a user without an Airflow does."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    home = folder / "home"
    home.mkdir(exist_ok=True)
    plugins = ("airflow_insightly_hooks.pytest_plugin", "no:cacheprovider", "no:schemathesis")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *(f"-p{name}" for name in plugins), *arguments],
        cwd=folder,
        env={**own, "HOME": str(home), "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_pages_recipes(tmp_path):
    """The tests that docs/how-to/test-dags.md shows pass, under the setting it shows, without a warning."""
    assert [kind for kind, _ in BLOCKS] == ["python", "python", "ini"]
    (tmp_path / "test_recipes.py").write_text("".join(text for kind, text in BLOCKS if kind == "python"))
    (tmp_path / "pytest.ini").write_text(BLOCKS[-1][1] + "filterwarnings = error\n")
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.scale
@pytest.mark.parametrize(
    "files", [["runs.py"], ["modes.py", "retention.py", "personal_data.py", "how_to.py"]]
)
def test_every_kind_of_dag(tmp_path, files):
    """The tests in pytest_plugin_suite pass: DAGs, files, retries, time triggers, modes and deletions."""
    shutil.copytree(SUITE, tmp_path, dirs_exist_ok=True)
    done = run_pytest(tmp_path, *files, "-W", "error")
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


OWN_AIRFLOW = """
from airflow import settings
from airflow.models import Connection
from airflow.sdk import DAG
from airflow.utils.session import create_session
from sqlalchemy import select

from airflow_insightly_hooks import Webhook, Workflow

ENGINE = settings.engine
CHAT = Workflow(name="Chat", record_type="Tasks", webhooks=[Webhook(name="Chat", conn_id="chat_webhook")])

def connections():
    with create_session() as session:
        return [connection.conn_id for connection in session.scalars(select(Connection))]

def test_before():
    assert connections() == ["my_own"]

def test_run(insightly_sandbox, run_dag):
    insightly_sandbox.create("Tasks", TITLE="Call back")
    assert connections() == []
    assert len(run_dag(CHAT).requests["chat_webhook"]) == 1

def test_after():
    assert settings.engine is ENGINE
    assert connections() == ["my_own"]
"""


@pytest.mark.scale
def test_the_users_airflow_is_left_alone(tmp_path):
    """The user's database, secrets backend and XCom backend are neither read nor written."""
    home = tmp_path / "airflow"
    xcoms = tmp_path / "xcoms"
    xcoms.mkdir()
    database = home / "airflow.db"
    secrets = tmp_path / "secrets.json"
    secrets.write_text(
        '{"insightly_default": "insightly://key@127.0.0.1:9", "chat_webhook": "http://[::1]:9"}'
    )
    env = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database}",
        "AIRFLOW__SECRETS__BACKEND": "airflow.secrets.local_filesystem.LocalFilesystemBackend",
        "AIRFLOW__SECRETS__BACKEND_KWARGS": f'{{"connections_file_path": "{secrets}"}}',
        "AIRFLOW__CORE__XCOM_BACKEND": "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend",
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": xcoms.as_uri(),
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "0",
    }
    for command in ("db migrate", "connections add my_own --conn-type http"):
        subprocess.run(
            [sys.executable, "-m", "airflow", *command.split()], env={**os.environ, **env}, check=True
        )
    before = hashlib.sha256(database.read_bytes()).digest()
    (tmp_path / "test_own.py").write_text(OWN_AIRFLOW)
    done = run_pytest(tmp_path, **env)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout
    assert hashlib.sha256(database.read_bytes()).digest() == before
    assert list(xcoms.iterdir()) == []
