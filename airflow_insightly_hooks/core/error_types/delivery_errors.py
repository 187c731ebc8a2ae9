"""Errors of a task that delivers, and of the state that it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_insightly_hooks.core.error_types.root import InsightlyHooksError

if TYPE_CHECKING:
    from airflow_insightly_hooks.core.delivery.report_types import Report

__all__ = [
    "InvalidState",
    "LostPayloads",
    "StoppedError",
    "SupersededError",
    "UndeliveredError",
]


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
