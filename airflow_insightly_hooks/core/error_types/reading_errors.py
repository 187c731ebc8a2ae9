"""Errors of a task that reads Insightly."""

from __future__ import annotations

from airflow_insightly_hooks.core.error_types.root import InsightlyHooksError
from airflow_insightly_hooks.core.plurals import counted

__all__ = [
    "IncompleteScan",
    "LostCursor",
    "UntrustedClock",
    "WorkerExhausted",
]


class WorkerExhausted(InsightlyHooksError):
    """This worker can't open any connection.

    Cause: Raised when the worker has no file descriptors, ports or memory left for a connection.

    Remedy: Wait for the task's next try. If it happens often, raise the worker's limits (``ulimit -n``), or
    run fewer tasks on it at once.

    :param lack: what the worker lacks.
    """

    def __init__(self, lack: str) -> None:
        super().__init__(lack)
        self.lack = lack

    def __str__(self) -> str:
        return self.lack


class LostCursor(InsightlyHooksError):
    """A task has run before, but its cursor is gone.

    Cause: Raised when the cursor was deleted from the asset's state, and no earlier run says up to when the
    task had read. Airflow deletes the state of assets that no DAG names.

    Remedy: Store the end of the task's last window under the cursor's key, as an ISO 8601 time in UTC. Or
    give the sensor an explicit ``window``.

    :param dag_id: the id of the DAG.
    :param task_id: the id of the task.
    :param asset: the name of the asset whose state should hold the cursor.
    :param key: the cursor's key.
    """

    def __init__(self, dag_id: str, task_id: str, asset: str, key: str) -> None:
        super().__init__(dag_id, task_id, asset, key)
        self.dag_id = dag_id
        self.task_id = task_id
        self.asset = asset
        self.key = key

    def __str__(self) -> str:
        return (
            f"{self.dag_id}.{self.task_id} has run before, but its cursor is missing from the state of asset "
            f"{self.asset!r} (key {self.key!r}). To start from now could miss changes. Store the end of the "
            f"task's last window there (an ISO 8601 time in UTC), or give the sensor an explicit window"
        )


class UntrustedClock(InsightlyHooksError):
    """A cursor is ahead of the API server's clock.

    Cause: Raised when the server's time is earlier than the time up to which the task has read. The server's
    clock is wrong now, or was wrong before. If it was wrong before, no window holds the changes since then.

    Remedy: If the server's clock is behind, wait. Otherwise set the cursor in the asset's state back to the
    last time that was right.

    :param server: the server's time (ISO 8601).
    :param cursor: the cursor's key.
    :param read_to: the time that the cursor holds (ISO 8601).
    """

    def __init__(self, server: str, cursor: str, read_to: str) -> None:
        super().__init__(server, cursor, read_to)
        self.server = server
        self.cursor = cursor
        self.read_to = read_to

    def __str__(self) -> str:
        return (
            f"the clock of Insightly's server says {self.server}, but {self.cursor} has been read up to "
            f"{self.read_to}, which is later. Nothing was read, because changes could be missed. If the "
            f"server's clock is behind, wait. Otherwise set the cursor in the asset's state back to the last "
            f"time that was right"
        )


class IncompleteScan(InsightlyHooksError):
    """A search could not be read to its end.

    Cause: Raised when so many records change while the search is read, or their order changes so often, that
    records may have been missed.

    Remedy: Try again when fewer records change, or read a shorter window. The task's next try reads the same
    window, because none of the records counts as read.

    :param record_type: the record type that was searched for.
    :param requests: how many requests were made.
    :param found: how many records were read.
    :param total: how many records there are; ``None`` if the API did not tell.
    """

    def __init__(self, record_type: str, requests: int, found: int, total: int | None) -> None:
        super().__init__(record_type, requests, found, total)
        self.record_type = record_type
        self.requests = requests
        self.found = found
        self.total = total

    def __str__(self) -> str:
        total = "" if self.total is None else f" (the last count was {self.total:,})"
        return (
            f"{self.record_type}: {counted(self.found, 'record')} read in "
            f"{counted(self.requests, 'request')}{total}, but some may have been missed, because records or "
            f"their order changed meanwhile. None of them counts as read. Try again when fewer records "
            f"change, or read a shorter window"
        )
