"""Errors of a task that delivers, and of the state that it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_insightly_hooks.core.error_types.root import InsightlyHooksError
from airflow_insightly_hooks.core.plurals import counted

if TYPE_CHECKING:
    from airflow_insightly_hooks.core.delivery.report_types import Report

__all__ = [
    "InvalidState",
    "LostPayloads",
    "NewerState",
    "StoppedError",
    "SupersededError",
    "UndeliveredError",
]


class InvalidState(InsightlyHooksError):
    """A value in Airflow's state store can't be read.

    Cause: Raised when another version of this package wrote the value, or when the value or a part of it was
    changed or deleted.

    Remedy: If another version wrote it, install that version or a newer one. Otherwise restore the value, or
    delete all values that belong to it. What they held is then lost: messages may be sent twice, or records
    may trigger again.

    :param key: the key of the value.
    :param reason: what is wrong.
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return f"state {self.key!r}: {self.reason}"


class NewerState(InvalidState):
    """A value in Airflow's state store was written by a newer release.

    Cause: Raised when a newer release wrote the value, and this release was installed afterwards.

    Remedy: Install the newer release, or a later one, on all machines that run Airflow. Then clear the task.

    :param key: the key of the value.
    :param version: the version of the value.
    :param latest: the latest version that this release can read.
    """

    def __init__(self, key: str, version: int, latest: int) -> None:
        reason = (
            f"a newer release of airflow-insightly-hooks has written it, in version {version}; this release "
            f"reads versions up to {latest}. Install that release, or a later one, wherever Airflow runs. "
            f"Then clear the task"
        )
        super().__init__(key, reason)
        self.args = (key, version, latest)  # by which it is unpickled
        self.version = version
        self.latest = latest


class StoppedError(InsightlyHooksError):
    """A task was stopped before it had finished.

    Cause: Raised when Airflow stops the task, for example because a user has marked it, or its worker shuts
    down.

    Remedy: You need not do anything: what the task has done is recorded, and its next try continues from
    there. If it has no try left, clear the task.
    """

    def __str__(self) -> str:
        return "the task was stopped before it had finished: its next try continues from what is recorded"


class SupersededError(InsightlyHooksError):
    """A later try of the same task has taken over.

    Cause: Raised when Airflow started another try of the task while this one was still running.

    Remedy: You need not do anything: the later try continues the work, and this one sends nothing more.
    """

    def __str__(self) -> str:
        return "a later try of this task has taken over: this one sends nothing more"


class UndeliveredError(InsightlyHooksError):
    """The receiver did not acknowledge some of the payloads.

    Cause: Raised at the end of a try when payloads are not acknowledged. The report names the error of each.

    Remedy: Airflow's retries send them again. If no retry is left, correct the cause and clear the task: it
    sends only what is not acknowledged.

    :param report: the deliver task's whole report.
    :param retry_after: how many seconds the receiver asked to wait; ``None`` if it did not ask.
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
        verb = "is" if missing == 1 else "are"
        return (
            f"{missing} of {counted(total, 'payload')} {verb} undelivered: {', '.join(lines)}. When no retry "
            f"is left, clear the task to send only these again"
        )


class LostPayloads(InsightlyHooksError):
    """Payloads that waited to be sent again are gone from XCom.

    Cause: Raised when a run's XComs were deleted while its payloads waited for their receiver.

    Remedy: Send the changes again with a backfill, or with a run over the same window.

    :param sources: the DAG id, the run id and the number of payloads of each run.
    """

    SHOWN = 20

    def __init__(self, sources: list[tuple[str, str, int]]) -> None:
        super().__init__(sources)
        self.sources = sources

    def __str__(self) -> str:
        count = sum(number for _, _, number in self.sources)
        runs = ", ".join(f"{run_id!r} of {dag_id!r}" for dag_id, run_id, _ in self.sources[: self.SHOWN])
        are, they_are = ("is", "it is") if count == 1 else ("are", "they are")
        return (
            f"{counted(count, 'payload')} {are} undelivered: {they_are} gone from the XCom of "
            f"{counted(len(self.sources), 'run')} ({runs}). Send the changes again with a backfill, or with "
            f"a run over the same window"
        )
