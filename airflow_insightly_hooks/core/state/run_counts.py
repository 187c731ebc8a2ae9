"""Counts that a task keeps in its own state, for pages that must not scan XCom.

They are stored under the key ``run_counts``, for example as ``{"version": 1, "detected": 12}``. Unknown
counts are left out. The counts are only information: no decision depends on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.errors import InvalidState
from airflow_insightly_hooks.core.state.state_store import count_in
from airflow_insightly_hooks.core.state.versions import check_version

__all__ = ["RUN_COUNTS", "RunCounts"]

RUN_COUNTS = "run_counts"
"""The key of the task's state."""
VERSION = 1
CONNECTION = "insightly_conn_id"


class RunCounts(NamedTuple):
    """The counts of one task of one run; ``None``: the task doesn't know the count.

    :param detected: how many changes were in the window.
    :param met: how many changes met the criteria and were passed on; with ``until_triggered``, how many
        triggered. Changes that can't be delivered don't count, because it is not known whether they meet the
        criteria.
    :param requests_left: how many of the account's requests of the day were left then.
    :param requests_a_day: how many requests the account has a day.
    :param insightly_conn_id: the connection of that account.
    """

    detected: int | None = None
    met: int | None = None
    requests_left: int | None = None
    requests_a_day: int | None = None
    insightly_conn_id: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as a JSON object; ``of`` reads it."""
        return {"version": VERSION, **{k: v for k, v in self._asdict().items() if v is not None}}

    @classmethod
    def of(cls, value: object) -> RunCounts:
        """Return the counts that ``as_dict`` wrote.

        :raises InvalidState: if the value can't be read.
        """
        if not isinstance(value, Mapping):
            raise InvalidState(RUN_COUNTS, "it is not an object")
        check_version(RUN_COUNTS, value, VERSION)
        if count_in(RUN_COUNTS, value, "version") != VERSION:
            raise InvalidState(RUN_COUNTS, "its version is missing")
        connection = value.get(CONNECTION)
        if connection is not None and not isinstance(connection, str):
            raise InvalidState(RUN_COUNTS, f"its {CONNECTION} is not a text")
        names = [name for name in cls._fields if name != CONNECTION and name in value]
        counts = {name: count_in(RUN_COUNTS, value, name) for name in names}
        return cls(**counts, insightly_conn_id=connection)
