"""A folder of YAML files -> DAGs. The DAG file needs two lines."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from airflow.sdk import DAG, get_parsing_context

from airflow_insightly_hooks.core.errors import InvalidWorkflow, InvalidWorkflowFile, type_and_place
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
    """Make a DAG of each workflow in the YAML files of a folder and of the folders below it.

    An invalid file affects only its own DAGs. The other DAGs are made, and Airflow's import errors show the
    file, with the line and path of each mistake.

    :param folder: the folder's path. A relative path starts at the folder of the calling DAG file.
    :param arguments: arguments of ``Workflow.to_dag``, for all workflows.
    :returns: the DAGs by their ids. They are registered with Airflow.
    :raises NotADirectoryError: if the folder does not exist.
    """
    caller = Path(sys._getframe(1).f_globals.get("__file__", "."))
    return load_folder(caller.parent / folder, **arguments)


def load_folder(root: Path, **arguments: Any) -> dict[str, DAG]:
    """Make the DAGs of the workflows in a folder. ``load_workflows`` describes them."""
    # While a task runs, only its own DAG is made.
    only = get_parsing_context().dag_id
    wanted = only.removesuffix(PENDING_SUFFIX).removesuffix(RETRY_SUFFIX) if only is not None else None
    if "dag_id" in arguments:
        raise TypeError(
            "load_workflows has no argument dag_id, since each workflow needs its own: set it in the file"
        )
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder: load_workflows needs a folder of YAML files")
    named = [(path, shown(path.relative_to(root).as_posix())) for path in workflow_files(root)]
    loaded = load_files(named, arguments, only=wanted)
    for path, error in loaded.errors.items():
        log.error("%s", error)
        if wanted is None:  # a task needs its own DAG only
            BrokenFile(path, error)
    return loaded.dags


class LoadedFiles(NamedTuple):
    """The DAGs of the valid workflow files, by their ids, and the errors of the other files."""

    dags: dict[str, DAG]
    errors: dict[Path, InvalidWorkflowFile]


def load_files(
    files: Iterable[tuple[Path, str]], arguments: dict[str, Any], *, only: str | None = None
) -> LoadedFiles:
    """Make the DAGs of workflow files that are loaded together. An invalid file affects only its own DAGs.

    :param files: the files, each with its name in errors.
    :param arguments: arguments of ``Workflow.to_dag``.
    :param only: the id of the only DAG to make; ``None`` makes all.
    """
    found: list[_Found] = []
    errors: dict[Path, InvalidWorkflowFile] = {}
    for path, name in files:
        try:
            text = text_of(path, name)
            found += [_Found(path, name, text, w) for w in read_workflows(text, name, Workflow, only=only)]
        except InvalidWorkflowFile as error:
            errors[path] = error
        except Exception as error:  # an unexpected error of one file must not stop the others
            reason = f"it can't be read: {type_and_place(error)}"
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
    """A workflow, and the file from which it was read."""

    path: Path
    name: str
    text: str
    workflow: Workflow


_Cursor = tuple[str, str, str]
"""The account's connection, the record type, and the cursor's name."""


def _cursor(workflow: Workflow) -> _Cursor:
    return workflow.insightly_conn_id, workflow.record_type, cursor_of(workflow)


def _check_ids(one: _Found, file_of: Mapping[str, str], owners: Mapping[_Cursor, Sequence[_Found]]) -> None:
    """Refuse a workflow if another one has the same DAG id or the same cursor.

    If workflows share a cursor, those with the key ``cursor`` are refused. A workflow that has the cursor by
    default, through its ``dag_id``, is accepted.

    :raises InvalidWorkflowFile: if the workflow is refused.
    """
    workflow = one.workflow
    if workflow.dag_id in file_of:
        reason = f"a workflow in {file_of[workflow.dag_id]} has {workflow.dag_id!r}, too: choose another one"
        raise located(one.text, one.name, workflow, InvalidWorkflow((("dag_id", reason),)))
    sharing = next((other for other in owners[_cursor(workflow)] if other is not one), None)
    if sharing is not None and workflow.cursor is not None:
        other = f"{sharing.workflow.dag_id!r} ({sharing.name})"
        reason = (
            f"the workflow {other} has the cursor {workflow.cursor!r}, too, so each would miss the changes "
            f"that the other one reads: choose another name"
        )
        raise located(one.text, one.name, workflow, InvalidWorkflow((("cursor", reason),)))


def workflow_files(root: Path) -> list[Path]:
    """Return all paths with a workflow file's suffix, even folders, and the folders that can't be listed."""
    found: set[Path] = set()
    walk = os.walk(root, onerror=lambda error: found.add(Path(error.filename)))
    for folder, folders, names in walk:
        found.update(Path(folder) / name for name in (*folders, *names) if name.endswith(SUFFIXES))
    # Hidden files belong to an editor or to git, or are the targets of links in a Kubernetes volume.
    return sorted(
        path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts)
    )


@contextmanager
def located_in(text: str, name: str, workflow: WorkflowDefinition) -> Iterator[None]:
    """Add the file's name and the line to errors that occur while a workflow's DAG is made.

    :param text: the file's contents.
    :param name: the file's name in errors.
    :raises InvalidWorkflowFile: instead of any other error.
    """
    try:
        yield
    except InvalidWorkflow as error:
        raise located(text, name, workflow, error) from None
    except Exception as error:  # an error of Airflow for one file must not stop the others
        reason = f"Airflow refuses it: {type(error).__name__}: {error}"
        raise located(text, name, workflow, InvalidWorkflow((("", reason),))) from None
