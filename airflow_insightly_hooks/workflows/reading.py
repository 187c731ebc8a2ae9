"""A YAML file -> its workflows, without Airflow: to test, preview and backtest them."""

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
"""Bytes of a workflow file."""
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}


def load_workflow(file: str | os.PathLike[str], *, dag_id: str | None = None) -> Workflow:
    """Return the workflow that a YAML file holds; no DAG is made of it before its ``to_dag`` is called.

    :param file: a path; a relative one is taken from the folder of the Python file that calls.
    :param dag_id: which workflow is meant, where the file holds a list of them. Only that one is checked.
    :raises InvalidWorkflowFile: if the file can't be read, or a workflow in it is wrong; each mistake has its
        line and path.
    :raises LookupError: if the file holds several workflows and ``dag_id`` is not given, or if it holds no
        workflow of that id.
    """
    path = Path(sys._getframe(1).f_globals.get("__file__", ".")).parent / file
    name = shown(path.name)
    text = text_of(path, name)
    workflows = read_workflows(text, name, Workflow, only=dag_id)
    if len(workflows) == 1:
        return workflows[0]
    known = [workflow.dag_id for workflow in workflows or read_workflows(text, name, Workflow)]
    if dag_id is None:
        raise LookupError(f"{name} holds several workflows: give the dag_id of one of {', '.join(known)}")
    raise LookupError(f"{name} holds no workflow {dag_id!r}{did_you_mean(dag_id, known)}")


def text_of(path: Path, name: str) -> str:
    """Return the text of a regular file that isn't too large; nothing else is opened.

    :raises InvalidWorkflowFile: if it is something else, or can't be read.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise _no_text(name, f"it is {_KINDS.get(stat.S_IFMT(mode), 'a device')}, and no file")
        # It may be another one by now: to open a pipe would wait for a writer without O_NONBLOCK.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise _no_text(name, f"it is larger than {LARGEST_FILE:,} bytes: cut it into several files")
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = f"it can't be read: byte {error.start + 1} is not UTF-8"
    except OSError as error:
        reason = f"it can't be read: {type(error).__name__}: {os.strerror(error.errno or 0)}"
    raise _no_text(name, reason)


def _no_text(name: str, reason: str) -> InvalidWorkflowFile:
    return InvalidWorkflowFile(name, (("", reason),), (1,))


def shown(path: str) -> str:
    """Return a path as Airflow can store it: bytes that are no text are written out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
