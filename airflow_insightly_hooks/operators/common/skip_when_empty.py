"""Common part of operators that return a list, and skip the tasks after them when it is empty."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from airflow.sdk.bases.skipmixin import SkipMixin

__all__ = ["EmptySkipMixin"]


class EmptySkipMixin(SkipMixin):
    """Skips the tasks after an empty list. The operator itself sets ``inherits_from_skipmixin``."""

    def skip_for_empty(self, ti: Any, tasks: Iterable[Any]) -> None:
        """Push an empty list, and skip these tasks, which directly follow this one.

        :param ti: the task instance that runs.
        """
        ti.xcom_push(key="return_value", value=[])  # skipping ends the task before Airflow would push it
        self.skip(ti=ti, tasks=tasks)
