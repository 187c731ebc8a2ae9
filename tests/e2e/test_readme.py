"""Every code block of the README does what the README says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def block(language: str, words: str) -> str:
    """Return the one block that holds ``words``."""
    (found,) = [text for kind, text in BLOCKS if kind == language and words in text]
    return found


def run(command: list[str], home: Path) -> str:
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "COV_"))}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**outside, "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "PATH": path}
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_no_block_is_without_a_test() -> None:
    """The tests below execute every block of the README."""
    assert sorted(kind for kind, _ in BLOCKS) == ["bash", "bash", "python", "python", "yaml"]


def test_the_workflow_becomes_dags(tmp_path: Path) -> None:
    """With the DAG file that the README gives."""
    (tmp_path / "dags" / "workflows").mkdir(parents=True)
    (tmp_path / "dags" / "workflows" / "won.yaml").write_text(block("yaml", "name:"))
    (tmp_path / "dags" / "crm.py").write_text(block("python", "load_workflows"))
    show = (
        "import sys; from airflow.dag_processing.dagbag import DagBag;"
        "bag = DagBag(sys.argv[1]); assert not bag.import_errors, bag.import_errors; print(sorted(bag.dags))"
    )
    found = run([sys.executable, "-c", show, str(tmp_path / "dags")], tmp_path).splitlines()[-1]
    assert found == "['opportunity_won', 'opportunity_won__pending', 'opportunity_won__retry']"


def test_the_dag_is_loaded_by_airflow(tmp_path: Path) -> None:
    """The DAG of the README loads without an error, with its four tasks in a row."""
    code = block("python", "with DAG")
    assert len([line for line in code.splitlines() if line.strip()]) <= 16
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "readme.py").write_text(code)
    show = (
        "import json, sys; from airflow.dag_processing.dagbag import DagBag;"
        "bag = DagBag(sys.argv[1]); assert not bag.import_errors, bag.import_errors;"
        "dag = bag.dags['new_french_contacts'];"
        "print(json.dumps({t.task_id: sorted(t.downstream_task_ids) for t in dag.tasks}))"
    )
    tasks = json.loads(run([sys.executable, "-c", show, str(tmp_path / "dags")], tmp_path).splitlines()[-1])
    assert tasks == {"detect": ["evaluate"], "evaluate": ["build"], "build": ["deliver"], "deliver": []}


def test_the_commands_make_connections_that_the_hooks_can_use(tmp_path: Path) -> None:
    """The README's ``airflow connections add`` commands make connections that both hooks can read."""
    commands = block("bash", "airflow connections add")
    run(["airflow", "db", "migrate"], tmp_path)
    run(["bash", "-euc", commands], tmp_path)
    show = (
        "import os; from airflow.models.connection import Connection as C;"
        "names = ('insightly_default', 'billing_webhook');"
        # Outside of a task, hooks see the environment's connections only.
        "kept = {f'AIRFLOW_CONN_{n.upper()}': C.get_connection_from_secrets(n).as_json() for n in names};"
        "os.environ.update(kept);"
        "from airflow_insightly_hooks.hooks.insightly import InsightlyHook;"
        "from airflow_insightly_hooks.hooks.webhook import WebhookHook;"
        "print(InsightlyHook().base_url, InsightlyHook().get_conn().auth);"
        "endpoint = WebhookHook('billing_webhook').get_conn();"
        "print(endpoint.url, endpoint.username, endpoint.password)"
    )
    assert run([sys.executable, "-c", show], tmp_path).splitlines()[-2:] == [
        "https://api.na1.insightly.com/v3.1 ('YOUR-API-KEY', '')",
        "https://billing.example.com/insightly YOUR-USER YOUR-PASSWORD",
    ]


def test_make_demo_delivers(tmp_path: Path) -> None:
    """``make demo`` (with ONCE=1, which ends it) shows the body that arrived and ends with 0.

    Before it ends, it looks the delivery up on the page in Airflow's UI.
    """
    command = block("bash", "make demo").strip()
    shown = run([*command.split(), "ONCE=1"], tmp_path)
    assert '"TITLE": "Call back about the offer"' in shown
    assert "Attempts: 1 (200)" in shown
    assert "From change to acknowledgement: " in shown
    assert re.search(r"Its delivery, in Airflow: http://127.0.0.1:\d+/plugin/insightly-webhooks\n", shown)
