"""Read the argument ``WORKFLOW``: a workflow file, a folder of workflow files, or a Python object."""

from __future__ import annotations

import re
import sys
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from airflow_insightly_hooks.cli.run import UsageError
from airflow_insightly_hooks.core.errors import InvalidWorkflowFile, type_and_place
from airflow_insightly_hooks.core.workflow.yaml_file import read_workflows
from airflow_insightly_hooks.workflows.files import SUFFIXES, workflow_files
from airflow_insightly_hooks.workflows.reading import text_of
from airflow_insightly_hooks.workflows.workflow import Workflow

__all__ = ["workflow_of"]

_PYTHON = re.compile(r"(?P<module>[\w.]+|.*\.py):(?P<attribute>[A-Za-z_]\w*)")


def workflow_of(text: str) -> Workflow:
    """Return the workflow that an argument names.

    :param text: ``file.yaml`` or ``folder``, followed by ``#dag_id`` if it holds several workflows; or
        ``module:attribute`` or ``file.py:attribute``.
    :raises UsageError: if the text names no workflow or several, or a file has mistakes.
    """
    python = _PYTHON.fullmatch(text)
    if python is not None and not Path(text).exists():
        return _of_python(python["module"], python["attribute"])
    path, dag_id = Path(text), ""
    if not path.exists():
        name, _, dag_id = text.rpartition("#")
        path = Path(name or text)
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder (or module:attribute){_folder_hint(text)}")
    read = [_read(file) for file in (workflow_files(path) if path.is_dir() else [path])]
    workflows = [workflow for one in read if isinstance(one, list) for workflow in one]
    found = [workflow for workflow in workflows if dag_id in ("", workflow.dag_id)]
    mistakes = [str(one) for one in read if isinstance(one, InvalidWorkflowFile)]
    # If the user names a workflow, mistakes in other files don't matter.
    if len(found) == 1 and (dag_id or not mistakes):
        return found[0]
    if mistakes:
        raise UsageError("\n".join(mistakes))
    ids = ", ".join(workflow.dag_id for workflow in workflows) or "no workflows"
    if dag_id:
        raise UsageError(f"{path}: there is no workflow {dag_id!r}; there are: {ids}")
    raise UsageError(f"{path}: name one workflow: add # and the dag_id of one of these: {ids}")


def _folder_hint(text: str) -> str:
    """Return a hint for users that may have given a ``dag_id`` without a folder."""
    is_path = "#" in text or Path(text).name != text or Path(text).suffix in SUFFIXES
    return "" if is_path else f"; write a dag_id after its folder: dags/workflows#{text}"


def _read(file: Path) -> list[Workflow] | InvalidWorkflowFile:
    name = str(file)
    try:
        return read_workflows(text_of(file, name), name, Workflow)
    except InvalidWorkflowFile as error:
        return error


def _of_python(module: str, attribute: str) -> Workflow:
    try:
        with redirect_stdout(sys.stderr):  # what the module prints is not this command's output
            loaded = _of_file(Path(module)) if module.endswith(".py") else _of_name(module)
    except UsageError:
        raise
    except ModuleNotFoundError as error:
        raise UsageError(f"{module} can't be imported: there is no module {error.name!r}") from None
    except Exception as error:
        raise UsageError(f"{module} can't be imported: {type_and_place(error)}") from None
    workflow = getattr(loaded, attribute, None)
    if not isinstance(workflow, Workflow):
        there = [name for name, value in vars(loaded).items() if isinstance(value, Workflow)]
        raise UsageError(
            f"{module}: its attribute {attribute!r} is not a Workflow; "
            + (f"it has these workflows: {', '.join(there)}" if there else "it has no workflows")
        )
    return workflow


def _of_name(name: str) -> ModuleType:
    if "" not in sys.path:  # python -m adds it; airflow doesn't
        sys.path.insert(0, "")
    return import_module(name)


def _of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    name = f"_workflow_argument_{path.stem}"  # another module may have the file's own name
    spec = spec_from_file_location(name, path)
    assert spec is not None  # noqa: S101 — the name ends in .py
    assert spec.loader is not None  # noqa: S101 — the name ends in .py
    module = module_from_spec(spec)
    sys.modules[name] = module  # as an import does: some modules look themselves up there
    spec.loader.exec_module(module)
    return module
