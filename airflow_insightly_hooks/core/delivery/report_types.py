"""What a deliver task's report holds, as it passes through XCom; ``report`` makes it."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["Report", "UndeliveredPayload"]


class UndeliveredPayload(TypedDict):
    """A payload that isn't acknowledged, as a report lists it."""

    message_id: str
    record_type: str
    record_id: int
    event: str
    status: int | None  # the last answer's; None without one
    error: str | None  # why; no contents, but for a response that its connection keeps
    attempts: int  # POSTs in this round


class _WholeReport(TypedDict):
    total: int
    delivered: int
    undelivered: list[UndeliveredPayload]  # the first of them, where there are many
    attempts: int  # POSTs, of all payloads
    started_at: str  # ISO 8601, UTC: this try's
    ended_at: str


class Report(_WholeReport, total=False):
    """What a deliver task did, as it passes through XCom."""

    undelivered_count: int  # where ``undelivered`` doesn't list them all
    left: int  # payloads that a workflow's retry DAG sends
    dry_run: bool  # nothing was sent, and nothing kept
    would_send: int  # payloads that a run which is no dry run would have POSTed
