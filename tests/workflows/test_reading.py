"""One workflow file, without Airflow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from airflow_insightly_hooks import Workflow, load_workflow
from airflow_insightly_hooks.core.errors import InvalidWorkflowFile

ROOT = Path(__file__).parent.parent.parent
ONE = "name: One\nrecord_type: Notes\nwebhooks: [{name: w, conn_id: c}]\n"
TWO = (
    "- {name: One, record_type: Notes, webhooks: [{name: w, conn_id: c}]}\n- {name: Two, record_type: Note}\n"
)


def test_a_file_of_one_workflow(tmp_path: Path) -> None:
    """The result is a ``Workflow`` with all its methods."""
    (tmp_path / "one.yaml").write_text(ONE)
    workflow = load_workflow(tmp_path / "one.yaml")
    assert workflow == Workflow(name="One", record_type="Notes", webhooks=[{"name": "w", "conn_id": "c"}])
    assert workflow.to_dag().dag_id == "one"
    assert workflow.backtest([]).triggering == []


def test_a_path_is_taken_from_the_folder_of_the_file_that_calls() -> None:
    """This is the same as with ``load_workflows``."""
    assert load_workflow("../../dags/workflows/opportunity_won.yaml").dag_id == "opportunity_won"


def test_one_of_several_workflows(tmp_path: Path) -> None:
    """The other workflows are not checked. The error for a wrong id lists the existing ids."""
    (tmp_path / "two.yaml").write_text(TWO)
    assert load_workflow(tmp_path / "two.yaml", dag_id="one").name == "One"
    with pytest.raises(InvalidWorkflowFile, match=r"two.yaml:2: \[1\].record_type: 'Note' is not a record"):
        load_workflow(tmp_path / "two.yaml")
    (tmp_path / "two.yaml").write_text(TWO.replace("Note}", "Notes, webhooks: [{name: w, conn_id: c}]}"))
    with pytest.raises(LookupError, match="give the dag_id of one of one, two"):
        load_workflow(tmp_path / "two.yaml")
    with pytest.raises(LookupError, match=r"two\.yaml has no workflow 'twoo'; did you mean 'two'"):
        load_workflow(tmp_path / "two.yaml", dag_id="twoo")


def test_a_file_that_is_wrong(tmp_path: Path) -> None:
    """Each mistake has its line. A missing file is a mistake, too."""
    (tmp_path / "one.yaml").write_text(ONE.replace("Notes", "Note"))
    with pytest.raises(InvalidWorkflowFile, match=r"one\.yaml:2: record_type: "):
        load_workflow(tmp_path / "one.yaml")
    with pytest.raises(InvalidWorkflowFile, match=r"two\.yaml:1: it can't be read: FileNotFoundError"):
        load_workflow(tmp_path / "two.yaml")


def test_no_airflow_is_loaded() -> None:
    """Tests, and a command that checks files, start at once for this reason."""
    code = (
        "import sys; from airflow_insightly_hooks import load_workflow; "
        f"load_workflow({str(ROOT / 'dags' / 'workflows' / 'opportunity_won.yaml')!r}); "
        "assert not any(name.partition('.')[0] == 'airflow' for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
