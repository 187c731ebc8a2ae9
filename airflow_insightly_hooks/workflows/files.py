"""A folder of YAML files -> DAGs, in a DAG file of two lines."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from airflow.sdk import DAG, get_parsing_context

from airflow_insightly_hooks.core.errors import InvalidWorkflow, InvalidWorkflowFile, told
from airflow_insightly_hooks.core.workflow.dag_ids import PENDING_SUFFIX, RETRY_SUFFIX
from airflow_insightly_hooks.core.workflow.definition import WorkflowDefinition
from airflow_insightly_hooks.core.workflow.yaml_file import located, read_workflows
from airflow_insightly_hooks.workflows.broken_file import BrokenFile
from airflow_insightly_hooks.workflows.dag import cursor_of, workflow_dag
from airflow_insightly_hooks.workflows.reading import shown, text_of
from airflow_insightly_hooks.workflows.workflow import Workflow

__all__ = [
    "SUFFIXES",
    "LoadedFiles",
    "load_files",
    "load_folder",
    "load_workflows",
    "located_in",
    "workflow_files",
]

SUFFIXES = (".yaml", ".yml")

log = logging.getLogger(__name__)


def load_workflows(folder: str | os.PathLike[str], **arguments: Any) -> dict[str, DAG]:
    """Make a DAG of each workflow in a folder's YAML files, those in folders below it included.

    A file that is wrong breaks its own DAGs only: the others are made, and Airflow's import errors show the
    file, with line and path of each mistake.

    :param folder: a path; a relative one is taken from the folder of the DAG file that calls.
    :param arguments: those of ``Workflow.to_dag``, for all of the workflows.
    :returns: the DAGs by their ids; they are registered with Airflow.
    :raises NotADirectoryError: if there is no such folder.
    """
    caller = Path(sys._getframe(1).f_globals.get("__file__", "."))
    return load_folder(caller.parent / folder, **arguments)


def load_folder(root: Path, **arguments: Any) -> dict[str, DAG]:
    """Make the DAGs of the workflows in a folder; ``load_workflows`` says more."""
    # While a task runs, its DAG alone is made.
    only = get_parsing_context().dag_id
    wanted = only.removesuffix(PENDING_SUFFIX).removesuffix(RETRY_SUFFIX) if only is not None else None
    if "dag_id" in arguments:
        raise TypeError("dag_id is for one workflow: give it in the file")
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder: load_workflows needs one of YAML files")
    named = [(path, shown(path.relative_to(root).as_posix())) for path in workflow_files(root)]
    loaded = load_files(named, arguments, only=wanted)
    for path, error in loaded.errors.items():
        log.error("%s", error)
        if wanted is None:  # a task needs its own DAG only
            BrokenFile(path, error)
    return loaded.dags


class LoadedFiles(NamedTuple):
    """The DAGs of workflow files by their ids, and what is wrong with the other files."""

    dags: dict[str, DAG]
    errors: dict[Path, InvalidWorkflowFile]


def load_files(
    files: Iterable[tuple[Path, str]], arguments: dict[str, Any], *, only: str | None = None
) -> LoadedFiles:
    """Make the DAGs of workflow files that are loaded together; a file that is wrong breaks its own only.

    :param files: each with the name that errors call it.
    :param arguments: those of ``Workflow.to_dag``.
    :param only: the id of the one DAG that is asked for; ``None`` asks for all.
    """
    found: list[_Found] = []
    errors: dict[Path, InvalidWorkflowFile] = {}
    for path, name in files:
        try:
            text = text_of(path, name)
            found += [_Found(path, name, text, w) for w in read_workflows(text, name, Workflow, only=only)]
        except InvalidWorkflowFile as error:
            errors[path] = error
        except Exception as error:  # what nobody has thought of must not keep back the others either
            reason = f"it can't be read: {told(error)}"
            errors[path] = InvalidWorkflowFile(name, (("", reason),), (1,))
    owners: dict[_Cursor, list[_Found]] = {}
    for one in found:
        owners.setdefault(_cursor(one.workflow), []).append(one)
    dags: dict[str, DAG] = {}
    file_of: dict[str, str] = {}
    for one in found:
        if one.path in errors:
            continue
        try:
            _check_ids(one, file_of, owners)
            with located_in(one.text, one.name, one.workflow):
                dags[one.workflow.dag_id] = workflow_dag(one.workflow, **arguments)
            file_of[one.workflow.dag_id] = one.name
        except InvalidWorkflowFile as error:
            errors[one.path] = error
    return LoadedFiles(dags, errors)


class _Found(NamedTuple):
    """A workflow, and the file that it was read from."""

    path: Path
    name: str
    text: str
    workflow: Workflow


_Cursor = tuple[str, str, str]
"""Account, record type and name."""


def _cursor(workflow: Workflow) -> _Cursor:
    return workflow.insightly_conn_id, workflow.record_type, cursor_of(workflow)


def _check_ids(one: _Found, file_of: Mapping[str, str], owners: Mapping[_Cursor, Sequence[_Found]]) -> None:
    """Refuse a workflow whose DAG's id, or whose cursor, is another one's.

    Of workflows with one cursor, those that name it are refused. The one whose DAG it belongs to is made.

    :raises InvalidWorkflowFile: if it is refused.
    """
    workflow = one.workflow
    if workflow.dag_id in file_of:
        reason = f"{workflow.dag_id!r} is that of {file_of[workflow.dag_id]}"
        raise located(one.text, one.name, workflow, InvalidWorkflow((("dag_id", reason),)))
    sharing = next((other for other in owners[_cursor(workflow)] if other is not one), None)
    if sharing is not None and workflow.cursor is not None:
        other = f"{sharing.workflow.dag_id!r} ({sharing.name})"
        reason = f"{workflow.cursor!r} is that of {other}, too: each would miss what the other one reads"
        raise located(one.text, one.name, workflow, InvalidWorkflow((("cursor", reason),)))


def workflow_files(root: Path) -> list[Path]:
    """Return what is named as a workflow file, folders included, and the folders that can't be listed."""
    found: set[Path] = set()
    walk = os.walk(root, onerror=lambda error: found.add(Path(error.filename)))
    for folder, folders, names in walk:
        found.update(Path(folder) / name for name in (*folders, *names) if name.endswith(SUFFIXES))
    # Hidden ones are an editor's, git's, or the real files behind a Kubernetes volume's links.
    return sorted(
        path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts)
    )


@contextmanager
def located_in(text: str, name: str, workflow: WorkflowDefinition) -> Iterator[None]:
    """Give errors that come up while a workflow's DAG is made the file's name, and a line.

    :param text: the file's contents.
    :param name: what errors call the file.
    :raises InvalidWorkflowFile: instead of any other error.
    """
    try:
        yield
    except InvalidWorkflow as error:
        raise located(text, name, workflow, error) from None
    except Exception as error:  # what Airflow refuses of one file must not keep back the others
        reason = f"Airflow refuses it: {type(error).__name__}: {error}"
        raise located(text, name, workflow, InvalidWorkflow((("", reason),))) from None
