"""What operators have in common that return a list, and skip what follows when it is empty."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from airflow.sdk.bases.skipmixin import SkipMixin

__all__ = ["EmptySkipMixin"]


class EmptySkipMixin(SkipMixin):
    """Has the tasks after an empty list skipped; the operator itself sets ``inherits_from_skipmixin``."""

    def skip_for_empty(self, ti: Any, tasks: Iterable[Any]) -> None:
        """Push an empty list, and have these tasks, right after this one, skipped.

        :param ti: the task instance that runs.
        """
        ti.xcom_push(key="return_value", value=[])  # skipping ends the task before Airflow would push it
        self.skip(ti=ti, tasks=tasks)
