"""Report an invalid workflow file among Airflow's import errors, without breaking the DAGs of other files."""

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
    """Stands for an invalid workflow file, so that Airflow lists the file among its import errors.

    An error in the DAG file itself would make all of its DAGs stale. So the error is added to the import
    errors of the ``DagBag`` that validates the DAGs of the DAG file. The bag then drops this DAG, so neither
    the DAG processor nor ``airflow dags reserialize`` has to serialize it. Airflow gives a DAG no other way
    to report an error of another file, so the bag is taken from the caller's frame. If it isn't found there,
    the error is raised while the DAG is serialized. The DAG processor lists that error, too.

    :param path: the workflow file.
    :param error: what is wrong with the file.
    """

    def __init__(self, path: Path, error: InvalidWorkflowFile) -> None:
        self._path = path
        super().__init__(f"broken.{digest_of(os.fsencode(path))}", schedule=None)
        self._error = error
        with self:  # registers it with Airflow
            pass

    def validate(self) -> None:
        """Add the error to the bag that calls this method, and make the bag drop this DAG."""
        bag = sys._getframe(1).f_locals.get("self")
        errors = getattr(bag, "import_errors", None)
        if not isinstance(errors, dict):
            return
        errors[self.relative_fileloc or self.fileloc] = str(self._error)
        raise AirflowClusterPolicySkipDag

    def get_serialized_fields(self) -> Any:  # type: ignore[override]  # Airflow calls it on the instance
        """Raise the file's error."""
        raise self._error

    @property
    def relative_fileloc(self) -> str | None:
        """The YAML file's path, relative to the bundle, like a DAG file's."""
        return self._relative

    @relative_fileloc.setter
    def relative_fileloc(self, dag_file: str | None) -> None:
        beside = os.path.relpath(self._path, Path(self.fileloc).parent) if dag_file else None
        file = os.path.normpath(Path(dag_file).parent / beside) if dag_file and beside else None
        self._relative = None if file is None else shown(file)
