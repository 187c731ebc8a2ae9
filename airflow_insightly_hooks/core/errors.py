"""The errors of the package, and the tree of all.

InsightlyHooksError
├── UnknownRecordType          a name that is no record type of Insightly's API
├── InvalidTime                text that is no time as Insightly writes it
├── InvalidDuration            text that is no duration such as '3d'
├── InvalidWindow              a window without both ends, or that ends before it starts
├── InvalidCriteria            criteria that cannot be compiled; says where in them
├── InvalidWorkflow            a workflow with mistakes; holds each with its path
│   └── InvalidWorkflowFile        a workflow file with mistakes; holds each with its line
├── InvalidChange              an object that is not a change; says what is missing
├── InvalidPayload             an object that is not a payload; says what is missing
├── InvalidConnection          an Airflow connection that cannot be used; says which field
├── WorkerExhausted            this worker has no file descriptors or the like left to connect with
├── LostCursor                 a sensor's cursor is gone although it has run before
├── UntrustedClock             a sensor's cursor is ahead of the API server's clock
├── IncompleteScan             a search that couldn't be read to its end
├── InsightlyAPIError          an answer of Insightly's API that is none of the following
│   ├── InsightlyUnreachable       no answer, or a server error each time (hooks.api.api_errors)
│   ├── InsightlyAccessError       401, 403, 404 or 405: asking again changes nothing
│   └── InsightlyRateLimitError    429 for longer than could be waited, or the day is spent
├── InvalidState               state that this version can't read
├── StoppedError               a task that was told to end before it was done
├── SupersededError            a later try of the same task has taken over; this one stops
├── LostPayloads               payloads that a run has left are gone from its XCom
├── MissingPayloadsError       messages are to be sent again, and have no payload (operators.webhook)
├── MissingChunkError          a chunk of payloads is gone from XCom (operators.common.payload_chunks)
├── OtherModeError             a run was begun in its workflow's other mode (operators.common.mode_change)
├── UnreadableQueueError       what waits for a receiver can't be read (operators.retry_queue)
├── OrphanedMessagesError      messages wait for a webhook that is gone (operators.retry_queue)
├── MissingInletError          a task has no place for its cursor (runs.received_changes)
├── DatabaseNotFound           Airflow's database isn't at hand (database.presence)
├── PendingDagNotFound         no DAG sends what is pending of a webhook (database.pending)
└── UndeliveredError           payloads that no receiver has acknowledged; holds the report
    └── UndeliverableError         the receiver will never take them (operators.webhook)

No message holds a password, an API key, a URI's user information, or a record's contents. Each class
builds its message from its attributes, which are its arguments, so that errors survive pickling.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.core.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_insightly_hooks.core.delivery.report_types import Report

__all__ = [
    "IncompleteScan",
    "InsightlyHooksError",
    "InvalidChange",
    "InvalidConnection",
    "InvalidCriteria",
    "InvalidDuration",
    "InvalidPayload",
    "InvalidState",
    "InvalidTime",
    "InvalidWindow",
    "InvalidWorkflow",
    "InvalidWorkflowFile",
    "LostCursor",
    "StoppedError",
    "SupersededError",
    "UndeliveredError",
    "UnknownRecordType",
    "UntrustedClock",
    "WorkerExhausted",
    "missing_keys",
    "told",
]


class InsightlyHooksError(Exception):
    """The root of every error that this package raises."""


class UnknownRecordType(InsightlyHooksError, KeyError):
    """``name`` is no record type of Insightly's API; ``known`` are those there are."""

    def __init__(self, name: object, known: tuple[str, ...]) -> None:
        super().__init__(name, known)
        self.name = name
        self.known = known

    def __str__(self) -> str:
        return (
            f"{self.name!r} is not a record type of Insightly's API (there are {', '.join(self.known)}, and "
            f"custom objects, whose names end in '__c'){did_you_mean(self.name, self.known)}"
        )


class InvalidTime(InsightlyHooksError, ValueError):
    """A text that is no time as Insightly writes it. ``where`` names the field, not the value."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where

    def __str__(self) -> str:
        return f"{self.where} is not a time such as '2017-03-10 08:00:00' or '2017-03-10T08:00:00Z'"


class InvalidDuration(InsightlyHooksError, ValueError):
    """A text that is no duration. ``where`` names the argument, not the value."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where

    def __str__(self) -> str:
        return f"{self.where} is not a duration such as '45s', '30m', '2h', '3d' or '1w'"


class InvalidWindow(InsightlyHooksError, ValueError):
    """A window that cannot be read; ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"window: {self.reason}"


class InvalidCriteria(InsightlyHooksError, ValueError):
    """Criteria that cannot be compiled: ``path`` says where (``criteria.all[1].operator``).

    ``others`` are the paths and reasons of further mistakes; ``problems`` are those of all.
    """

    def __init__(self, path: str, reason: str, others: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(path, reason, others)
        self.path = path
        self.reason = reason
        self.others = others

    @classmethod
    def of(cls, mistakes: list[InvalidCriteria]) -> InvalidCriteria:
        """Return one error for one mistake or more."""
        first, *others = (problem for mistake in mistakes for problem in mistake.problems)
        return cls(*first, tuple(others))

    @property
    def problems(self) -> tuple[tuple[str, str], ...]:
        """Path and reason of each mistake."""
        return ((self.path, self.reason), *self.others)

    def __str__(self) -> str:
        most = InvalidWorkflow.SHOWN
        return str(InvalidWorkflow(self.problems[:most], max(len(self.problems) - most, 0)))


class InvalidWorkflow(InsightlyHooksError, ValueError):
    """A workflow with mistakes: ``problems`` are their paths (``webhooks[0].name``) and reasons.

    Of many, the first ones are there, and ``more`` counts the others.
    """

    SHOWN = 20

    def __init__(self, problems: tuple[tuple[str, str], ...], more: int = 0) -> None:
        super().__init__(problems, more)
        self.problems = problems
        self.more = more

    def __str__(self) -> str:
        lines = [f"{_printable(path) or 'workflow'}: {_printable(reason)}" for path, reason in self.problems]
        return "\n".join([*lines, *self._rest()])

    def _rest(self) -> list[str]:
        return [f"and {self.more} more"] if self.more else []


class InvalidWorkflowFile(InvalidWorkflow):
    """A workflow file with mistakes: ``file``'s name, and with each path and reason its line, from 1."""

    def __init__(
        self, file: str, problems: tuple[tuple[str, str], ...], lines: tuple[int, ...], more: int = 0
    ) -> None:
        super().__init__(problems, more)
        self.args = (file, problems, lines, more)
        self.file = file
        self.lines = lines

    def __str__(self) -> str:
        shown = [
            ": ".join([f"{_printable(self.file)}:{line}", *map(_printable, filter(None, problem))])
            for line, problem in zip(self.lines, self.problems, strict=True)
        ]
        return "\n".join([*shown, *self._rest()])


class InvalidChange(InsightlyHooksError, ValueError):
    """The ``index``-th of what should be changes is none; ``reason`` says why."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(index, reason)
        self.index = index
        self.reason = reason

    def __str__(self) -> str:
        return f"changes[{self.index}]: {self.reason}"


class InvalidPayload(InsightlyHooksError, ValueError):
    """A payload that cannot be built or sent: ``where`` says which, ``reason`` why."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(where, reason)
        self.where = where
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class InvalidConnection(InsightlyHooksError, ValueError):
    """An Airflow connection that cannot be used: ``field`` of ``conn_id``, and ``reason``."""

    def __init__(self, conn_id: str, field: str, reason: str) -> None:
        super().__init__(conn_id, field, reason)
        self.conn_id = conn_id
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        return f"connection {self.conn_id!r}, {self.field}: {self.reason}"


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


class InvalidState(InsightlyHooksError):
    """State under ``key`` that this version cannot read; ``reason`` says why."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return f"state {self.key!r}: {self.reason}"


class StoppedError(InsightlyHooksError):
    """The task was told to end before it was done; what it has done is recorded."""

    def __str__(self) -> str:
        return "the task was stopped before it was done: its next try goes on from what is recorded"


class SupersededError(InsightlyHooksError):
    """A later try of the same task has claimed what this one was working on."""

    def __str__(self) -> str:
        return "a later try of this task has taken over: this one sends nothing more"


class UndeliveredError(InsightlyHooksError):
    """Payloads that no receiver has acknowledged; ``report`` is the deliver task's whole report.

    ``retry_after`` is how many seconds the receiver asked to wait; ``None`` where it didn't.
    """

    SHOWN = 20

    def __init__(self, report: Report, retry_after: float | None = None) -> None:
        super().__init__(report, retry_after)
        self.report = report
        self.retry_after = retry_after

    def __str__(self) -> str:
        total, missing = self.report["total"], self.report["total"] - self.report["delivered"]
        shown = self.report["undelivered"][: self.SHOWN]
        lines = [f"{item['record_type']} {item['record_id']} ({item['error']})" for item in shown]
        if missing > len(shown):
            lines.append(f"and {missing - len(shown)} more")
        return f"{missing} of {total} payloads are undelivered: {', '.join(lines)}"


class LostPayloads(InsightlyHooksError):
    """Payloads that runs have left are gone from XCom; ``sources``: DAG id, run id and number of each run."""

    SHOWN = 20

    def __init__(self, sources: list[tuple[str, str, int]]) -> None:
        super().__init__(sources)
        self.sources = sources

    def __str__(self) -> str:
        count = sum(number for _, _, number in self.sources)
        runs = ", ".join(f"{run_id!r} of {dag_id!r}" for dag_id, run_id, _ in self.sources[: self.SHOWN])
        return (
            f"{count} payloads are undelivered: they are gone from the XCom of {len(self.sources)} runs "
            f"({runs}). Were these deleted? What they have found can be sent by a backfill, or by a run over "
            f"the same window"
        )


LONGEST_SHOWN = 2_000
"""Characters of a path or a reason that a message shows."""


def _printable(text: str) -> str:
    """Return a text as a log and Airflow's database can hold it: cut, control characters written out."""
    if len(text) > LONGEST_SHOWN:
        text = f"{text[:LONGEST_SHOWN]}…"
    # PostgreSQL takes no U+0000, and nobody half of a surrogate pair.
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def missing_keys(value: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Return the ``keys`` that ``value`` lacks, quoted and joined by commas."""
    return ", ".join(repr(key) for key in keys if key not in value)


def told(error: BaseException) -> str:
    """Return what may be said of an error whose text may hold anything: its class, and where it was raised.

    Such as ``KeyError at post_threads.py:42``.
    """
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"
