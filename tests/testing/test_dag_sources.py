"""DAGs for ``run_dag``: from YAML files and DAG files. Their runs are tested in tests/e2e."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from airflow_insightly_hooks.core.errors import InvalidWorkflowFile
from airflow_insightly_hooks.testing.dag_sources import dags_in

WORKFLOW = "name: {name}\nrecord_type: Notes\nwebhooks: [{{name: w, conn_id: c}}]\n"
DAG_FILE = "from airflow_insightly_hooks import load_workflows\n\nload_workflows('workflows')\n"


@pytest.fixture
def dag_file(tmp_path: Path) -> Path:
    """A DAG folder: a DAG file, and a folder ``workflows`` with one workflow, ``good``."""
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "good.yaml").write_text(WORKFLOW.format(name="Good"))
    (tmp_path / "crm.py").write_text(DAG_FILE)
    return tmp_path / "crm.py"


def test_a_callback_in_the_dag_folder(dag_file: Path) -> None:
    """A DAG file, and a workflow file, can name a module of the DAG folder."""
    name = "alerts_of_dag_sources"
    (dag_file.parent / f"{name}.py").write_text("def tell(context):\n    pass\n")
    yaml_file = dag_file.parent / "workflows" / "good.yaml"
    yaml_file.write_text(WORKFLOW.format(name="Good") + f"on_failure: {name}.tell\n")
    before = list(sys.path)
    for source in (dag_file, yaml_file):
        callback = dags_in(source).wanted.on_failure_callback
        assert callback is sys.modules[name].tell
        del sys.modules[name]
    assert sys.path == before


@pytest.mark.parametrize(
    ("key", "line", "reason"),
    [
        ("schedule: 5 minutes", 4, "schedule: Airflow refuses it: "),
        ("on_failure: json.dumpz", 4, "on_failure.callback: json has no 'dumpz'"),
        ("activ: true", 4, "activ: not a key that is known here"),
    ],
)
def test_a_mistake_in_a_yaml_file_has_its_line(tmp_path: Path, key: str, line: int, reason: str) -> None:
    """Also one that shows only when the DAG is made."""
    (tmp_path / "x.yaml").write_text(WORKFLOW.format(name="X") + key + "\n")
    with pytest.raises(InvalidWorkflowFile) as caught:
        dags_in(tmp_path / "x.yaml")
    assert str(caught.value).startswith(f"x.yaml:{line}: {reason}")


def test_wrong_files_beside_the_wanted_dag(dag_file: Path) -> None:
    """They don't matter to a DAG that is asked for by its id; else they are told of."""
    (dag_file.parent / "workflows" / "bad.yaml").write_text(WORKFLOW.format(name="Bad") + "activ: true\n")
    found = dags_in(dag_file, "good")
    assert found.wanted.dag_id == "good"
    assert {"good", "good__retry"} <= {dag.dag_id for dag in found.all}
    for dag_id in ("bad", "nowhere", None):
        with pytest.raises(ImportError, match=r"bad\.yaml:4: activ"):
            dags_in(dag_file, dag_id)
