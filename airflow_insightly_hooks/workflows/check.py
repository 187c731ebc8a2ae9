"""Check workflow files before they are deployed, and find the mistakes that ``load_workflows`` would find."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from airflow_insightly_hooks.core.errors import InvalidWorkflowFile
from airflow_insightly_hooks.workflows.files import load_files, workflow_files
from airflow_insightly_hooks.workflows.import_path import folders_above, importable

__all__ = ["CheckedFiles", "check_workflows"]


class CheckedFiles(NamedTuple):
    """The number of workflow files, and the errors of the invalid ones."""

    files: int
    errors: list[InvalidWorkflowFile]

    @property
    def mistakes(self) -> int:
        """The number of mistakes in all files."""
        return sum(len(error.problems) + error.more for error in self.errors)


def check_workflows(paths: Iterable[Path]) -> CheckedFiles:
    """Check workflow files, as if all of them were in one folder.

    Their DAGs are made as ``load_workflows`` makes them. Neither a database nor a connection is needed.
    Functions that they name (``on_failure``) are imported. They may also be in Airflow's DAG folder or in the
    folders above the paths.

    :param paths: folders and single files. Folders below a folder are included. Errors name the files by
        these paths.
    """
    from airflow.configuration import conf

    paths = list(paths)
    files: dict[Path, str] = {}
    for path in paths:
        for file in workflow_files(path) if path.is_dir() else [path]:
            files.setdefault(file.absolute(), str(file))
    dags_folder = Path(conf.get_mandatory_value("core", "dags_folder")).expanduser()
    with importable([dags_folder, *(folder for path in paths for folder in folders_above(path))]):
        loaded = load_files(files.items(), {})
    return CheckedFiles(len(files), list(loaded.errors.values()))
