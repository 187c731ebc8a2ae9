"""Errors of a task that reads Insightly."""

from __future__ import annotations

from airflow_insightly_hooks.core.error_types.root import InsightlyHooksError

__all__ = [
    "IncompleteScan",
    "LostCursor",
    "UntrustedClock",
    "WorkerExhausted",
]


class WorkerExhausted(InsightlyHooksError):
    """This worker lacks what it takes to connect to anybody; ``lack`` says what. Trying later may help."""

    def __init__(self, lack: str) -> None:
        super().__init__(lack)
        self.lack = lack

    def __str__(self) -> str:
        return self.lack


class LostCursor(InsightlyHooksError):
    """``dag_id.task_id`` has run before, and there is no cursor of it in the state of asset ``asset``."""

    def __init__(self, dag_id: str, task_id: str, asset: str, key: str) -> None:
        super().__init__(dag_id, task_id, asset, key)
        self.dag_id = dag_id
        self.task_id = task_id
        self.asset = asset
        self.key = key

    def __str__(self) -> str:
        return (
            f"{self.dag_id}.{self.task_id} has run before, but the state of asset {self.asset!r} holds no "
            f"time up to which it has read (key {self.key!r}). To begin now could miss changes: store the "
            f"end of its last window there (an ISO 8601 time in UTC), or give the sensor an explicit window"
        )


class UntrustedClock(InsightlyHooksError):
    """The API server's clock says ``server``, yet ``cursor`` has been read up to ``read_to`` (ISO 8601).

    One of the two readings was wrong. If it was the earlier one, changes since then are in no window.
    """

    def __init__(self, server: str, cursor: str, read_to: str) -> None:
        super().__init__(server, cursor, read_to)
        self.server = server
        self.cursor = cursor
        self.read_to = read_to

    def __str__(self) -> str:
        return (
            f"Insightly's server says that it is {self.server}, but {self.cursor} has been read up to "
            f"{self.read_to}. Nothing is read, since changes could be missed: set the cursor back in the "
            f"asset's state to the last time that was right, or wait if the server's clock is behind"
        )


class IncompleteScan(InsightlyHooksError):
    """A search of ``record_type`` wasn't read to its end in so many ``requests``.

    ``found`` records were read; ``total`` is how many there are, where the API told.
    """

    def __init__(self, record_type: str, requests: int, found: int, total: int | None) -> None:
        super().__init__(record_type, requests, found, total)
        self.record_type = record_type
        self.requests = requests
        self.found = found
        self.total = total

    def __str__(self) -> str:
        of = "" if self.total is None else f" of {self.total}"
        return (
            f"{self.record_type}: {self.found} records{of} after {self.requests} requests, and no certainty "
            f"that none was passed over: too much changes while they are read, or their order does. Nothing "
            f"counts as read. Try again when less is going on, or read a shorter window"
        )
