"""A YAML file -> its workflows, without Airflow, to test, preview and backtest them."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from airflow_insightly_hooks.core.errors import InvalidWorkflowFile
from airflow_insightly_hooks.core.suggestions import did_you_mean
from airflow_insightly_hooks.core.workflow.yaml_file import read_workflows
from airflow_insightly_hooks.workflows.workflow import Workflow

__all__ = ["load_workflow", "shown", "text_of"]

LARGEST_FILE = 1_000_000
"""The most bytes that a workflow file may have."""
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}


def load_workflow(file: str | os.PathLike[str], *, dag_id: str | None = None) -> Workflow:
    """Return the workflow in a YAML file. Call its ``to_dag`` to make a DAG.

    :param file: the file's path. A relative path starts at the folder of the calling Python file.
    :param dag_id: the workflow's ``dag_id``, if the file has a list of workflows. Only this one is checked.
    :raises InvalidWorkflowFile: if the file can't be read, or a workflow in it is not valid. Each mistake has
        its line and path.
    :raises LookupError: if the file has several workflows and ``dag_id`` is not given, or it has no
        workflow with that id.
    """
    path = Path(sys._getframe(1).f_globals.get("__file__", ".")).parent / file
    name = shown(path.name)
    text = text_of(path, name)
    workflows = read_workflows(text, name, Workflow, only=dag_id)
    if len(workflows) == 1:
        return workflows[0]
    known = [workflow.dag_id for workflow in workflows or read_workflows(text, name, Workflow)]
    if dag_id is None:
        raise LookupError(f"{name} has several workflows: give the dag_id of one of {', '.join(known)}")
    raise LookupError(f"{name} has no workflow {dag_id!r}{did_you_mean(dag_id, known)}")


def text_of(path: Path, name: str) -> str:
    """Return the text of a regular file. Anything else, such as a pipe, is not opened.

    :raises InvalidWorkflowFile: if the path is not a regular file, is too large, or can't be read.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise _no_text(name, f"it is {_KINDS.get(stat.S_IFMT(mode), 'a device')}, not a file: rename it")
        # By now the path may be a pipe. Without O_NONBLOCK, opening it would wait for a writer.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise _no_text(name, f"it is larger than {LARGEST_FILE:,} bytes: split it into several files")
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = f"it can't be read: byte {error.start + 1} is not UTF-8; save it as UTF-8"
    except OSError as error:
        reason = f"it can't be read: {type(error).__name__}: {os.strerror(error.errno or 0)}"
    raise _no_text(name, reason)


def _no_text(name: str, reason: str) -> InvalidWorkflowFile:
    return InvalidWorkflowFile(name, (("", reason),), (1,))


def shown(path: str) -> str:
    """Return a path in a form that Airflow can store: bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
