"""What a task keeps in its own state of what it has counted, for pages that must not scan XCom.

Under the key ``run_counts``, such as ``{"version": 1, "detected": 12}``. What isn't known is left out. Counts
are information: nothing is decided by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.errors import InvalidState
from airflow_insightly_hooks.core.state.state_store import count_in

__all__ = ["RUN_COUNTS", "RunCounts"]

RUN_COUNTS = "run_counts"
"""The key of the task's state."""
VERSION = 1
CONNECTION = "insightly_conn_id"


class RunCounts(NamedTuple):
    """What one task of one run has counted; ``None`` is what it doesn't know.

    :param detected: changes in the window.
    :param met: changes that met the criteria and went on; of ``until_triggered``, those that triggered. One
        that can't be delivered isn't counted, since nobody can tell whether it meets them.
    :param requests_left: requests that the account's day had left then.
    :param requests_a_day: requests that it has in all.
    :param insightly_conn_id: the connection of that account.
    """

    detected: int | None = None
    met: int | None = None
    requests_left: int | None = None
    requests_a_day: int | None = None
    insightly_conn_id: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it; ``of`` reads it again."""
        return {"version": VERSION, **{k: v for k, v in self._asdict().items() if v is not None}}

    @classmethod
    def of(cls, value: object) -> RunCounts:
        """Return the counts that ``as_dict`` gave.

        :raises InvalidState: if it can't be read.
        """
        if not isinstance(value, Mapping):
            raise InvalidState(RUN_COUNTS, "it is not an object")
        if count_in(RUN_COUNTS, value, "version") != VERSION:
            raise InvalidState(RUN_COUNTS, "it was written by another version of airflow-insightly-hooks")
        connection = value.get(CONNECTION)
        if connection is not None and not isinstance(connection, str):
            raise InvalidState(RUN_COUNTS, f"its {CONNECTION} is not a text")
        names = [name for name in cls._fields if name != CONNECTION and name in value]
        counts = {name: count_in(RUN_COUNTS, value, name) for name in names}
        return cls(**counts, insightly_conn_id=connection)
