"""A folder of workflow files as DAGs."""

from __future__ import annotations

import contextlib
import os
import socket
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization

from airflow_insightly_hooks.core.errors import InvalidWorkflowFile
from airflow_insightly_hooks.workflows import files, reading
from airflow_insightly_hooks.workflows.broken_file import BrokenFile
from airflow_insightly_hooks.workflows.files import load_folder
from tests.conftest import Logged

ROOT = Path(__file__).parent.parent.parent
GOOD = """\
name: {name}
record_type: Notes
webhooks: [{{name: w, conn_id: c}}]
"""
DAG_FILE = """\
from airflow_insightly_hooks import load_workflows

dags = load_workflows("workflows")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A DAG folder with the two-line DAG file in a folder of its own."""
    (tmp_path / "crm" / "workflows" / "deeper").mkdir(parents=True)
    (tmp_path / "crm" / "crm.py").write_text(DAG_FILE)
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    (folder / "crm" / "workflows" / name).write_text(textwrap.dedent(text))


@contextlib.contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    """Work in the folder, since a socket's path must be short."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def parsed(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the DAGs that Airflow finds, and the import errors that it shows, by file.

    The retry DAGs of the workflows are left out.
    """
    bag = DagBag(str(folder), bundle_path=folder, bundle_name="b")
    dags, errors = {}, dict(bag.import_errors)
    for dag in bag.dags.values():
        try:
            dags[dag.dag_id] = DagSerialization.to_dict(dag)
        except Exception as error:
            errors[dag.relative_fileloc or dag.fileloc] = str(error)
    return {dag_id: dag for dag_id, dag in dags.items() if not dag_id.endswith("__retry")}, errors


def test_each_file_is_a_dag(folder: Path) -> None:
    """This includes files in subfolders. Other files than YAML are ignored."""
    write(folder, "one.yaml", GOOD.format(name="One"))
    write(folder, "deeper/two.yml", GOOD.format(name="Two"))
    write(folder, "notes.txt", "not: a workflow")
    dags, errors = parsed(folder)
    assert set(dags) == {"one", "two"}
    assert errors == {}


def test_a_wrong_file_breaks_its_own_dag_only(folder: Path) -> None:
    """The import error has the file's own name, with line and path."""
    write(folder, "good.yaml", GOOD.format(name="Good"))
    write(folder, "deeper/wrong.yaml", GOOD.format(name="Wrong").replace("conn_id", "con_id"))
    write(folder, "broken.yaml", "name: [")
    (folder / "crm" / "workflows" / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    dags, errors = parsed(folder)
    assert set(dags) == {"good"}
    assert set(errors) == {f"crm/workflows/{name}.yaml" for name in ("deeper/wrong", "broken", "binary")}
    wrong = errors["crm/workflows/deeper/wrong.yaml"]
    assert wrong.splitlines() == [
        "deeper/wrong.yaml:3: webhooks[0].con_id: not a key that is known here; did you mean 'conn_id'?"
    ]
    assert "binary.yaml:1: it can't be read" in errors["crm/workflows/binary.yaml"]


def test_a_wrong_file_leaves_nothing_to_serialize(folder: Path) -> None:
    """``airflow dags reserialize`` stops at a DAG that can't be serialized."""
    write(folder, "good.yaml", GOOD.format(name="Good"))
    write(folder, "broken.yaml", "name: [")
    bag = DagBag(str(folder), bundle_path=folder, bundle_name="b")
    assert set(bag.dags) == {"good", "good__retry"}
    assert set(bag.import_errors) == {"crm/workflows/broken.yaml"}


def test_a_wrong_file_is_shown_where_nobody_takes_its_error(folder: Path) -> None:
    """The DAG processor shows an error for each DAG that it can't serialize."""
    write(folder, "broken.yaml", "name: [")
    error = InvalidWorkflowFile("broken.yaml", (("", "not YAML"),), (1,))
    broken = BrokenFile(folder / "crm" / "workflows" / "broken.yaml", error)

    class Bag:
        """Has no import errors."""

        def take(self) -> None:
            broken.validate()

    Bag().take()
    with pytest.raises(InvalidWorkflowFile):
        broken.get_serialized_fields()


def test_what_is_no_regular_file(folder: Path) -> None:
    """Pipes, sockets, devices, folders and broken links are shown as errors, without waiting for them."""
    workflows = folder / "crm" / "workflows"
    write(folder, "good.yaml", GOOD.format(name="Good"))
    (folder / "crm" / "elsewhere").write_text(GOOD.format(name="Linked"))
    (workflows / "link.yaml").symlink_to(folder / "crm" / "elsewhere")
    os.mkfifo(workflows / "pipe.yaml")
    (workflows / "linked_pipe.yaml").symlink_to("pipe.yaml")
    (workflows / "device.yaml").symlink_to("/dev/zero")
    (workflows / "loop.yaml").symlink_to("loop.yaml")
    (workflows / "nowhere.yaml").symlink_to("nothing")
    (workflows / "folder.yaml").mkdir()
    write(folder, "folder.yaml/within.yaml", GOOD.format(name="Within"))
    with socket.socket(socket.AF_UNIX) as listening, in_folder(workflows):
        listening.bind("socket.yaml")
    dags, errors = parsed(folder)
    assert set(dags) == {"good", "linked", "within"}
    reasons = {
        "pipe": "it is a named pipe, not a file: rename it",
        "linked_pipe": "it is a named pipe, not a file: rename it",
        "device": "it is a device, not a file: rename it",
        "loop": "it can't be read: OSError: Too many levels of symbolic links",
        "nowhere": "it can't be read: FileNotFoundError: No such file or directory",
        "folder": "it is a folder, not a file: rename it",
        "socket": "it is a socket, not a file: rename it",
    }
    assert {path.rpartition("/")[2] for path in errors} == {f"{name}.yaml" for name in reasons}
    for name, reason in reasons.items():
        assert errors[f"crm/workflows/{name}.yaml"] == f"{name}.yaml:1: {reason}"


def test_a_pipe_that_takes_a_files_place_is_not_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipe comes between the check and the opening of the file."""
    write(folder, "good.yaml", GOOD.format(name="Good"))
    os.mkfifo(folder / "crm" / "workflows" / "pipe.yaml")
    monkeypatch.setattr(reading.stat, "S_ISREG", lambda mode: True)
    dags, errors = parsed(folder)
    assert set(dags) == {"good"}
    assert "pipe.yaml:1: the file is empty" in errors["crm/workflows/pipe.yaml"]


def test_contents_that_are_no_text(folder: Path) -> None:
    """Binary content, other encodings, and more than a megabyte stop their own file only."""
    workflows = folder / "crm" / "workflows"
    write(folder, "good.yaml", GOOD.format(name="Good"))
    (workflows / "latin.yaml").write_bytes(GOOD.format(name="Müller").encode("latin-1"))
    (workflows / "utf16.yaml").write_bytes(GOOD.format(name="A").encode("utf-16"))
    (workflows / "binary.yaml").write_bytes(bytes(range(256)))
    (workflows / "large.yaml").write_text(GOOD.format(name="Large") + "#" * 1_000_000)
    (workflows / "bom.yaml").write_bytes(GOOD.format(name="Marked").encode("utf-8-sig"))
    laughs = (f"{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))
    write(folder, "laughs.yaml", f"0: &a0 [x, x]\n{''.join(laughs)}")
    write(folder, "deep.yaml", "[" * 100_000)
    write(
        folder,
        "number.yaml",
        GOOD.format(name="N") + f"criteria: {{field: TITLE, operator: in, value: [{2**64}]}}",
    )
    write(folder, "nul.yaml", GOOD.format(name='"a\\0"'))
    dags, errors = parsed(folder)
    assert set(dags) == {"good", "marked"}
    expected = {
        "latin": "1: it can't be read: byte 8 is not UTF-8; save it as UTF-8",
        "utf16": "1: it can't be read: byte 1 is not UTF-8; save it as UTF-8",
        "binary": "1: it can't be read: byte 129 is not UTF-8; save it as UTF-8",
        "large": "1: it is larger than 1,000,000 bytes: split it into several files",
        "laughs": "the file holds more than 100,000 values: use fewer",
        "deep": "1: it nests more than 250 levels deep: use fewer levels",
        "number": "4: criteria.value[0]: a number beyond 64 bits can't be stored: write it as a text",
        "nul": "1: it holds U+0000",
    }
    assert {path.rpartition("/")[2].removesuffix(".yaml") for path in errors} == set(expected)
    for name, reason in expected.items():
        assert f"{name}.yaml:" in errors[f"crm/workflows/{name}.yaml"]
        assert reason in errors[f"crm/workflows/{name}.yaml"]


def test_a_name_that_is_no_text(folder: Path) -> None:
    """Airflow could not store it, and would lose all DAGs of the DAG file."""
    name = os.fsdecode(b"caf\xe9.yaml")
    write(folder, "good.yaml", GOOD.format(name="Good"))
    write(folder, name, "[")
    write(folder, os.fsdecode(b"caf\xe8.yaml"), GOOD.format(name="Fine"))
    dags, errors = parsed(folder)
    assert set(dags) == {"good", "fine"}
    ((path, error),) = errors.items()
    assert path == r"crm/workflows/caf\xe9.yaml"
    assert r"caf\xe9.yaml:2: not YAML" in error
    (path + error).encode()


def test_what_airflow_hands_on(folder: Path) -> None:
    """The DAG processor packs all DAGs of the folder into one message. No file's contents may stop them."""
    from airflow.sdk.execution_time.comms import _RequestFrame

    write(
        folder,
        "large.yaml",
        GOOD.format(name="L") + f"criteria: {{field: TITLE, operator: in, value: ['{2**64}', {2**64 - 1}]}}",
    )
    dags, errors = parsed(folder)
    assert errors == {}
    assert _RequestFrame(id=1, body={"dags": dags}).as_bytes()


def test_an_error_that_nobody_has_thought_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops its own file, and shows none of its contents."""
    read = files.read_workflows

    def fail(text: str, name: str, *rest: Any, **more: Any) -> Any:
        if name == "strange.yaml":
            raise RecursionError(text)
        return read(text, name, *rest, **more)

    monkeypatch.setattr(files, "read_workflows", fail)
    write(folder, "good.yaml", GOOD.format(name="Good"))
    write(folder, "strange.yaml", GOOD.format(name="Strange"))
    dags, errors = parsed(folder)
    assert set(dags) == {"good"}
    assert "strange.yaml:1: it can't be read: RecursionError at test_files.py:" in str(errors)
    assert "Notes" not in str(errors)


@pytest.mark.slow
def test_thousands_of_files(folder: Path) -> None:
    """The time grows with the number of files, not its square, also for broken files and shared cursors."""
    for number in range(2_000):
        write(folder, f"{number}.yaml", GOOD.format(name="Same") + "cursor: one\n")
    started = time.process_time()
    assert len(load_folder(folder / "crm" / "workflows")) == 0
    assert time.process_time() - started < 30


@pytest.mark.parametrize(
    "wrong",
    ["uri: nonsense", "conn_id: c, headers: {host: x}, after: 1d, before: 1d", "uri: 'https://a b/'"],
)
def test_whatever_is_wrong_with_a_file(folder: Path, wrong: str) -> None:
    """A wrong file never stops the others."""
    write(folder, "good.yaml", GOOD.format(name="Good"))
    write(folder, "wrong.yaml", GOOD.format(name="Wrong").replace("conn_id: c", wrong))
    dags, errors = parsed(folder)
    assert set(dags) == {"good"}
    assert set(errors) == {"crm/workflows/wrong.yaml"}


def test_what_airflow_refuses_of_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unexpected errors of Airflow stop their own file only."""

    def refuse(workflow: Any, **_arguments: Any) -> None:
        raise ValueError("no such luck")

    monkeypatch.setattr(files, "workflow_dag", refuse)
    write(folder, "any.yaml", GOOD.format(name="Any"))
    assert "any.yaml:1: Airflow refuses it: ValueError: no such luck" in str(parsed(folder)[1])


def test_each_broken_file_is_shown(folder: Path) -> None:
    """This holds even for similar names."""
    for name in ("a-b.yaml", "a_b.yaml", "A B.yaml"):
        write(folder, name, "[")
    assert len(parsed(folder)[1]) == 3


def test_one_dag_id_cannot_be_for_all(folder: Path) -> None:
    """One DAG would take the place of the others."""
    with pytest.raises(TypeError, match="load_workflows has no argument dag_id"):
        load_folder(folder / "crm" / "workflows", dag_id="x")


def test_hidden_files_are_not_looked_at(folder: Path, logged: Logged) -> None:
    """A Kubernetes volume's files are links into a hidden folder. Each file must count once."""
    hidden = folder / "crm" / "workflows" / "..2026_01"
    hidden.mkdir()
    (hidden / "one.yaml").write_text(GOOD.format(name="One"))
    (folder / "crm" / "workflows" / "..data").symlink_to(hidden)
    (folder / "crm" / "workflows" / "one.yaml").symlink_to(Path("..data") / "one.yaml")
    write(folder, ".editor.yaml", "[")
    write(folder, "two.yaml", GOOD.format(name="Two"))
    assert set(load_folder(folder / "crm" / "workflows")) == {"one", "two"}
    assert "yaml:" not in logged.text


def test_a_folder_that_cannot_be_listed_is_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error shows it, since its workflows are missing."""
    write(folder, "good.yaml", GOOD.format(name="Good"))
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("deeper"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert set(load_folder(folder / "crm" / "workflows")) == {"good"}
    monkeypatch.undo()
    monkeypatch.setattr(files, "workflow_files", lambda root: [root / "deeper", root / "good.yaml"])
    dags, errors = parsed(folder)
    assert set(dags) == {"good"}
    assert "it is a folder" in errors["crm/workflows/deeper"]


def test_two_workflows_of_one_id(folder: Path) -> None:
    """The second workflow is refused, since it would replace the first."""
    write(folder, "a.yaml", GOOD.format(name="Same"))
    write(folder, "b.yaml", GOOD.format(name="same!"))
    dags, errors = parsed(folder)
    assert set(dags) == {"same"}
    assert "b.yaml:1: dag_id: a workflow in a.yaml has 'same', too" in errors["crm/workflows/b.yaml"]


def test_a_schedule_that_airflow_refuses(folder: Path) -> None:
    """It breaks its own file only, and the error has its line."""
    write(folder, "good.yaml", GOOD.format(name="Good"))
    write(folder, "bad.yaml", GOOD.format(name="Bad") + "schedule: every day\n")
    listed = textwrap.indent(GOOD.format(name="Worse") + "schedule: 99 * * * *\n", "  ")
    write(folder, "list.yaml", f"-\n{textwrap.indent(GOOD.format(name='Fine'), '  ')}-\n{listed}")
    dags, errors = parsed(folder)
    assert set(dags) == {"good", "fine"}
    assert "list.yaml:9: [1].schedule: Airflow refuses it" in errors["crm/workflows/list.yaml"]
    assert "bad.yaml:4: schedule: Airflow refuses it" in errors["crm/workflows/bad.yaml"]


def test_arguments_are_for_all(folder: Path) -> None:
    """All files get arguments such as default arguments and tags."""
    write(folder, "one.yaml", GOOD.format(name="One"))
    dags = load_folder(folder / "crm" / "workflows", schedule=None, tags=["mine"])
    assert dags["one"].tags == {"mine"}
    assert dags["one"].schedule is None


def test_a_task_loads_its_own_dag_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other files are not even checked, so a task starts fast even with 200 files."""
    write(folder, "one.yaml", GOOD.format(name="One").replace("conn_id: c", "conn_id: c, after: 1d"))
    write(folder, "two.yaml", GOOD.format(name="Two"))
    write(folder, "wrong.yaml", GOOD.format(name="Wrong").replace("Notes", "Nothing"))
    for wanted in ("one", "one__pending", "one__retry"):
        monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", wanted)
        dags, errors = parsed(folder)
        assert set(dags) == {"one", "one__pending"}
        assert errors == {}


def test_a_folder_that_is_none_says_so(folder: Path) -> None:
    """The error says where the folder was looked for."""
    with pytest.raises(NotADirectoryError, match=r"crm/nowhere is not a folder"):
        load_folder(folder / "crm" / "nowhere")


def test_an_error_is_logged_as_well(folder: Path, logged: Logged) -> None:
    """Users who load a folder outside of Airflow see the error in the log."""
    write(folder, "wrong.yaml", "- 3")
    assert load_folder(folder / "crm" / "workflows") == {}
    assert "wrong.yaml:1: [0]: a workflow is needed" in logged.text


def test_the_examples_load() -> None:
    """The examples of this repository load without errors."""
    bag = DagBag(str(ROOT / "dags" / "insightly_workflows.py"))
    assert bag.import_errors == {}
    assert len([dag_id for dag_id in bag.dags if not dag_id.endswith(("__pending", "__retry"))]) == 10


def test_two_workflows_of_a_folder_share_no_cursor(folder: Path) -> None:
    """Each would miss the other's changes. A file with another file's cursor is refused, with its line."""
    write(folder, "a.yaml", GOOD.format(name="A copy") + "cursor: one/detect\n")
    write(folder, "one.yaml", GOOD.format(name="One"))
    write(folder, "old_1.yaml", GOOD.format(name="Old 1") + "cursor: old\n")
    write(folder, "old_2.yaml", GOOD.format(name="Old 2") + "cursor: old\n")
    write(folder, "other.yaml", GOOD.format(name="Other") + "cursor: old\ninsightly_conn_id: other\n")
    dags, errors = parsed(folder)
    assert set(dags) == {"one", "other"}
    assert set(errors) == {f"crm/workflows/{name}.yaml" for name in ("a", "old_1", "old_2")}
    reason = (
        "the workflow 'one' (one.yaml) has the cursor 'one/detect', too, so each would miss the changes that "
        "the other one reads: choose another name"
    )
    assert errors["crm/workflows/a.yaml"] == f"a.yaml:4: cursor: {reason}"
    assert "the workflow 'old_2' (old_2.yaml) has the cursor 'old', too" in errors["crm/workflows/old_1.yaml"]
    assert "the workflow 'old_1' (old_1.yaml) has the cursor 'old', too" in errors["crm/workflows/old_2.yaml"]
