"""Checking workflow files before they are deployed: what ``load_workflows`` would refuse."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from airflow_insightly_hooks.core.errors import InvalidWorkflowFile
from airflow_insightly_hooks.workflows.files import load_files, workflow_files
from airflow_insightly_hooks.workflows.import_path import folders_above, importable

__all__ = ["CheckedFiles", "check_workflows"]


class CheckedFiles(NamedTuple):
    """How many workflow files there are, and what is wrong with some of them."""

    files: int
    errors: list[InvalidWorkflowFile]

    @property
    def mistakes(self) -> int:
        """How many mistakes there are in all."""
        return sum(len(error.problems) + error.more for error in self.errors)


def check_workflows(paths: Iterable[Path]) -> CheckedFiles:
    """Return what is wrong with workflow files, taken together as those of one folder are.

    Their DAGs are made, as ``load_workflows`` would make them; neither a database nor a connection is needed.
    Functions that they name (``on_failure``) are imported, from Airflow's DAG folder and from the folders
    above the paths, too.

    :param paths: folders, those below them included, and single files; errors name files as these do.
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
