"""The types of a deliver task's report, as it passes through XCom; ``report`` makes it."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["Report", "UndeliveredPayload"]


class UndeliveredPayload(TypedDict):
    """A payload that isn't acknowledged, as a report lists it."""

    message_id: str
    record_type: str
    record_id: int
    event: str
    status: int | None  # the last answer's status; None without an answer
    error: str | None  # the reason; no contents, except of a response that the connection keeps
    attempts: int  # how many POSTs there were in this round


class _WholeReport(TypedDict):
    total: int
    delivered: int
    undelivered: list[UndeliveredPayload]  # only the first ones if there are many
    attempts: int  # how many POSTs there were, of all payloads
    started_at: str  # ISO 8601, UTC: when this try started
    ended_at: str


class Report(_WholeReport, total=False):
    """What a deliver task did, as it passes through XCom."""

    undelivered_count: int  # only if ``undelivered`` doesn't list all of them
    left: int  # how many payloads the workflow's retry DAG sends
    dry_run: bool  # nothing was sent or stored
    would_send: int  # how many payloads a real run would have POSTed
