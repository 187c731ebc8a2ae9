"""What the plugin does to those who have it and don't use it: nothing. Its runs are tested in tests/e2e."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
UNUSED = """
import os, sys

def test_nothing_is_loaded():
    heavy = ("airflow", "requests", "uvicorn", "starlette", "pydantic")
    assert [name for name in heavy if name in sys.modules] == []
    assert not [name for name in sys.modules if name.startswith("airflow_insightly_hooks.testing")]
    assert not [name for name in os.environ if name.startswith("AIRFLOW")]
"""
TEMPORARY_HOME = """
import os
from pathlib import Path

def test_the_home_is_temporary():
    home = Path(os.environ["AIRFLOW_HOME"])
    assert home.is_dir() and not list(home.iterdir())
    assert os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == f"sqlite:///{home}/airflow.db"
    print("home:", home)
"""


def run_pytest(folder: Path, test: str, *arguments: str, ini: str = "", **env: str) -> tuple[int, str]:
    (folder / "test_it.py").write_text(test)
    (folder / "pytest.ini").write_text(f"[pytest]\nfilterwarnings = error\n{ini}")
    own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    plugin = ("-p", "airflow_insightly_hooks.pytest_plugin")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, *plugin, "--strict-config"],
        cwd=folder,
        env={**own, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_it_costs_nothing_unused(tmp_path):
    """Tests that don't use the fixtures get no module, no environment variable and no warning of it."""
    code, shown = run_pytest(tmp_path, UNUSED)
    assert code == 0, shown
    assert "1 passed" in shown


def test_the_fixtures_are_described(tmp_path):
    """``pytest --fixtures`` tells of the three fixtures."""
    code, shown = run_pytest(tmp_path, UNUSED, "--fixtures")
    assert code == 0
    for name in ("insightly_sandbox", "insightly_connections", "run_dag"):
        assert f"\n{name} -- " in shown


def test_a_temporary_home_is_set_before_anything_is_imported(tmp_path):
    """The setting hides the user's AIRFLOW_HOME and database, and the folder is gone in the end."""
    ini = "insightly_temporary_airflow_home = true\n"
    own = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://prod"}
    code, shown = run_pytest(tmp_path, TEMPORARY_HOME, "-s", ini=ini, **own)
    assert code == 0, shown
    home = Path(shown.partition("home: ")[2].splitlines()[0])
    assert home != tmp_path
    assert not home.exists()


def test_a_temporary_home_that_comes_too_late_is_an_error(tmp_path):
    """A plugin that imports Airflow first is named as the reason, rather than the user's home be used."""
    early = "import sys, types; sys.modules['airflow'] = types.ModuleType('airflow')"
    (tmp_path / "early.py").write_text(early)
    ini = "insightly_temporary_airflow_home = true\n"
    code, shown = run_pytest(
        tmp_path, TEMPORARY_HOME, "-p", "early", ini=ini, PYTHONPATH=f"{ROOT}:{tmp_path}"
    )
    assert code == 4
    assert "insightly_temporary_airflow_home: Airflow is imported already" in shown
