"""``check``: mistakes of workflow files, found before they are deployed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command

ROOT = Path(__file__).parent.parent.parent
GOOD = """\
name: {name}
record_type: Notes
webhooks: [{{name: w, conn_id: c}}]
"""
SHARED = (
    "the workflow 'same' (workflows/a.yaml) has the cursor 'same/detect', too, so each would miss the "
    "changes that the other one reads: choose another name"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "workflows" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return Path("workflows")


def test_the_examples_have_no_mistakes(command: Command) -> None:
    """A folder without mistakes prints nothing to standard output, and ends with 0."""
    ran = command("check", ROOT / "dags" / "workflows")
    assert (ran.code, ran.out, ran.err) == (0, "", "10 files checked: 0 mistakes\n")


def test_each_mistake_is_a_line(command: Command, folder: Path) -> None:
    """A mistake has the given file name, line, path and message. A good file adds no line."""
    (folder / "good.yaml").write_text(GOOD.format(name="Good"))
    (folder / "deeper" / "bad.yml").write_text(
        GOOD.format(name="Bad") + "criteria: {field: TITLE, operator: equal, value: x}\nactiv: true\n"
    )
    ran = command("check", folder)
    assert ran.code == 1
    assert ran.out.splitlines() == [
        "workflows/deeper/bad.yml:4: criteria.operator: 'equal' is not an operator; did you mean 'equals'?",
        "workflows/deeper/bad.yml:5: activ: not a key that is known here; did you mean 'active'?",
    ]
    assert ran.err == "2 files checked: 2 mistakes\n"


def test_airflow_has_its_say(command: Command, folder: Path) -> None:
    """A value that only Airflow refuses, when it makes a DAG, is a mistake with a line, too."""
    (folder / "cron.yaml").write_text(GOOD.format(name="Cron") + 'schedule: "61 * * * *"\n')
    ran = command("check", folder / "cron.yaml")
    assert ran.code == 1
    assert ran.out.startswith("workflows/cron.yaml:4: schedule: Airflow refuses it")


def test_files_are_checked_together(command: Command, folder: Path) -> None:
    """Two files with one DAG id, or one cursor, are a mistake, whether given as a folder or one by one."""
    for name in ("a", "b"):
        (folder / f"{name}.yaml").write_text(GOOD.format(name="Same"))
    (folder / "c.yaml").write_text(GOOD.format(name="Other") + "cursor: same/detect\n")
    for given in ([folder], sorted(folder.glob("*.yaml")), [folder / "a.yaml", folder]):
        ran = command("check", *given)
        assert ran.code == 1
        assert ran.out.splitlines() == [
            "workflows/b.yaml:1: dag_id: a workflow in workflows/a.yaml has 'same', too: choose another one",
            f"workflows/c.yaml:4: cursor: {SHARED}",
        ]
        assert ran.err == "3 files checked: 2 mistakes\n"


def test_a_binary_file(command: Command, folder: Path) -> None:
    """A file that is not text is one mistake."""
    (folder / "x.yaml").write_bytes(b"\x89PNG\r\n\x1a\n\xff\x00")
    ran = command("check", folder)
    assert ran.code == 1
    assert ran.out == "workflows/x.yaml:1: it can't be read: byte 1 is not UTF-8; save it as UTF-8\n"


def test_a_file_that_is_given_twice(command: Command, folder: Path) -> None:
    """It is checked once, even under two names."""
    (folder / "a.yaml").write_text(GOOD.format(name="Same"))
    ran = command("check", folder, folder.absolute() / "a.yaml")
    assert (ran.code, ran.out, ran.err) == (0, "", "1 file checked: 0 mistakes\n")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("nowhere", "error: nowhere: no such file or folder\n"),
        ("workflows", "error: no workflow files (*.yaml, *.yml) in workflows\n"),
        ("crm.py", "error: crm.py: not a YAML file (*.yaml, *.yml): give workflow files or folders\n"),
    ],
)
def test_nothing_to_check(command: Command, folder: Path, given: str, reason: str) -> None:
    """A missing path, or one without workflow files, is wrong usage, not "no mistakes"."""
    Path("crm.py").write_text("load_workflows('workflows')\n")
    ran = command("check", given)
    assert (ran.code, ran.out, ran.err) == (2, "", reason)


@pytest.mark.parametrize("configured", [False, True])
def test_a_callback_in_the_dag_folder(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, configured: bool
) -> None:
    """It is found above the given path, or in Airflow's DAG folder. ``sys.path`` is restored afterwards."""
    name = f"alerts_configured_{configured}".lower()
    dags = folder.absolute().parent
    if configured:
        dags = dags / "elsewhere"
        dags.mkdir()
        monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(dags))
    (dags / f"{name}.py").write_text("def tell(context):\n    pass\n")
    (folder / "a.yaml").write_text(GOOD.format(name="A") + f"on_failure: {name}.tell\n")
    before = list(sys.path)
    ran = command("check", folder)
    assert (ran.code, ran.out) == (0, "")
    assert sys.path == before
