"""Checking workflow files before they are deployed: what ``load_workflows`` would refuse."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from airflow_insightly_hooks.core.errors import InvalidWorkflowFile
from airflow_insightly_hooks.workflows.files import load_files, workflow_files

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

    :param paths: folders, those below them included, and single files; errors name files as these do.
    """
    files: dict[Path, str] = {}
    for path in paths:
        for file in workflow_files(path) if path.is_dir() else [path]:
            files.setdefault(file.absolute(), str(file))
    return CheckedFiles(len(files), list(load_files(files.items(), {}).errors.values()))
