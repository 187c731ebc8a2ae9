"""A file that is wrong, among Airflow's import errors under its own name, and beside DAGs that are right."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from airflow.exceptions import AirflowClusterPolicySkipDag
from airflow.sdk import DAG

from airflow_insightly_hooks.core.digest import digest_of
from airflow_insightly_hooks.core.errors import InvalidWorkflowFile
from airflow_insightly_hooks.workflows.reading import shown

__all__ = ["BrokenFile"]


class BrokenFile(DAG):
    """Stands for a file that is wrong, so that Airflow lists it among its import errors.

    An error in the DAG file itself would make all of its DAGs stale. So the error is entered into the
    ``DagBag`` that validates what the DAG file has made, where Airflow's own import errors are, and no DAG
    comes of it: neither the DAG processor nor ``airflow dags reserialize`` has anything to serialize. Airflow
    hands a DAG no other way to tell of an error of another file, so the bag is found as the caller. Where it
    isn't, the error is raised while the DAG is serialized, which the DAG processor lists, too.
    """

    def __init__(self, path: Path, error: InvalidWorkflowFile) -> None:
        self._path = path
        super().__init__(f"broken.{digest_of(os.fsencode(path))}", schedule=None)
        self._error = error
        with self:  # registers it with Airflow
            pass

    def validate(self) -> None:
        """Enter the error into the bag that asks; it takes nothing else of this DAG."""
        bag = sys._getframe(1).f_locals.get("self")
        errors = getattr(bag, "import_errors", None)
        if not isinstance(errors, dict):
            return
        errors[self.relative_fileloc or self.fileloc] = str(self._error)
        raise AirflowClusterPolicySkipDag

    def get_serialized_fields(self) -> Any:  # type: ignore[override]  # asked of the instance
        """Raise what is wrong with the file."""
        raise self._error

    @property
    def relative_fileloc(self) -> str | None:
        """The YAML file, relative to the bundle as the DAG file is."""
        return self._relative

    @relative_fileloc.setter
    def relative_fileloc(self, dag_file: str | None) -> None:
        beside = os.path.relpath(self._path, Path(self.fileloc).parent) if dag_file else None
        file = os.path.normpath(Path(dag_file).parent / beside) if dag_file and beside else None
        self._relative = None if file is None else shown(file)
