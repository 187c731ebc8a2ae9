"""A deliver task's report, its progress, and its table of failures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.delivery.ledger import ACKNOWLEDGED, GONE, IN_DOUBT, Ledger
from airflow_insightly_hooks.core.delivery.report_types import Report, UndeliveredPayload
from airflow_insightly_hooks.core.payload import Payload, why_undeliverable
from airflow_insightly_hooks.core.plurals import counted

__all__ = ["ERROR_LENGTH", "Failure", "Tally", "combined", "joint_progress", "make_report", "with_response"]

LISTED = 200
"""How many undelivered payloads a report lists at most."""
LIST_BYTES = 44_000
"""How many bytes of JSON the list has at most, so that the whole report stays below 48 KB."""
ERROR_LENGTH = 300
HELD = "not sent: this try sends only the messages that were requested again"
KINDS_SHOWN = 20
DELIVERED_SHOWN = 20
"""How many acknowledged payloads a try's log names."""


class Failure(NamedTuple):
    """Why a payload wasn't acknowledged in this try.

    :param status: the answer's status; ``None`` without an answer.
    :param error: the reason; it holds no contents of the payload or of the answer.
    :param response: the beginning of the answer's body, which may hold personal data; ``None`` if the
        connection doesn't keep it.
    """

    status: int | None
    error: str
    response: str | None = None

    def __str__(self) -> str:
        return with_response(self.error, self.response)


def with_response(error: str, response: str | None) -> str:
    """Return an error's text with the part of the response that is kept."""
    return error if response is None else f"{error}; the response: {response}"


def make_report(
    payloads: Iterable[Payload],
    ledger: Ledger,
    failures: Mapping[str, Failure],
    why_unsent: Callable[[str], str],
    started_at: datetime,
    ended_at: datetime,
    report_count: int = 1,
) -> Report:
    """Return the report of a try.

    :param failures: by message id, why payloads that were tried are not acknowledged.
    :param why_unsent: returns, for a message id, why it wasn't tried.
    :param report_count: how many reports share the size of one.
    """
    total = attempts = undelivered = size = 0
    listed: list[UndeliveredPayload] = []
    is_full = False
    for payload in payloads:
        entry = ledger[payload["message_id"]]
        total += 1
        attempts += entry.attempts
        if entry.state == ACKNOWLEDGED:
            continue
        undelivered += 1
        if is_full:
            continue
        item = _item(payload, ledger, failures.get(payload["message_id"]), why_unsent)
        size += len(json.dumps(item)) + 2
        is_full = size > LIST_BYTES // report_count or len(listed) == LISTED // report_count
        if not is_full:
            listed.append(item)
    report: Report = {
        "total": total,
        "delivered": total - undelivered,
        "undelivered": listed,
        "attempts": attempts,
        "started_at": iso_time(started_at),
        "ended_at": iso_time(ended_at),
    }
    if len(listed) < undelivered:
        report["undelivered_count"] = undelivered
    return report


def _item(
    payload: Payload, ledger: Ledger, failure: Failure | None, why_unsent: Callable[[str], str]
) -> UndeliveredPayload:
    entry = ledger[payload["message_id"]]
    reason = why_undeliverable(payload)
    if reason is not None:
        error = f"no body can be built: {reason}"
    elif failure is not None:
        error = str(failure)
    elif entry.state == GONE:
        error = "the receiver said in an earlier try that it will never accept it (410)"
    elif entry.state == IN_DOUBT:
        error = "in doubt: it was POSTed, but the outcome is not recorded"
    elif ledger.is_held(payload["message_id"]):
        error = HELD
    elif ledger.is_settled(payload["message_id"]):
        made = counted(entry.attempts, "attempt")
        error = f"no attempt is left: {made} made, {ledger.max_attempts} allowed"
    else:
        error = why_unsent(payload["message_id"])
    return {
        "message_id": payload["message_id"],
        "record_type": payload["record_type"],
        "record_id": payload["record_id"],
        "event": payload["event"],
        "status": failure.status if failure is not None else None,
        "error": error[:ERROR_LENGTH],
        "attempts": entry.attempts,
    }


def combined(reports: Sequence[Report]) -> Report:
    """Return one report that adds up several webhooks' reports."""
    total: Report = {
        "total": sum(report["total"] for report in reports),
        "delivered": sum(report["delivered"] for report in reports),
        "undelivered": [item for report in reports for item in report["undelivered"]],
        "attempts": sum(report["attempts"] for report in reports),
        "started_at": min(report["started_at"] for report in reports),
        "ended_at": max(report["ended_at"] for report in reports),
    }
    undelivered = total["total"] - total["delivered"]
    if len(total["undelivered"]) < undelivered:
        total["undelivered_count"] = undelivered
    return total


class Tally:
    """Counts what a try has done so far.

    :param to_send: how many payloads the try is to send.
    :param now: when it began, in seconds of a monotonic clock.
    :ivar started: when it began.
    :ivar posted: how many POSTs were made, with any outcome.
    :ivar acknowledged: how many payloads were acknowledged.
    :ivar failures: how many payloads were tried and not acknowledged.
    """

    def __init__(self, to_send: int, now: float) -> None:
        self.to_send = to_send
        self.posted = self.acknowledged = self.failures = 0
        self._kinds: Counter[str] = Counter()
        self._delivered: list[str] = []
        self.started = now

    def delivered(self, payload: Payload) -> None:
        """Count a payload that was acknowledged."""
        self.acknowledged += 1
        if len(self._delivered) < DELIVERED_SHOWN:
            about = payload["record_type"], payload["record_id"], payload["message_id"]
            self._delivered.append("{} {} ({})".format(*about))

    def failed(self, kind: str) -> None:
        """Count a payload that was tried and not acknowledged."""
        self.failures += 1
        self._kinds[kind] += 1

    def progress(self, now: float) -> str:
        """Return a line that shows the progress."""
        done = self.acknowledged + self.failures
        rate = done / max(now - self.started, 0.001)
        left = f"about {(self.to_send - done) / rate:.0f} s left" if rate else "no answer yet"
        return (
            f"{done} of {counted(self.to_send, 'payload')} sent, {self.acknowledged} acknowledged, "
            f"{self.failures} failing, {rate:.1f}/s, {left}"
        )

    def list_delivered(self) -> str:
        """Return the first of the acknowledged payloads, by the ids of their records and messages."""
        more = self.acknowledged - len(self._delivered)
        return ", ".join(self._delivered) + (f" and {more} more" if more else "")

    def table(self) -> str:
        """Return the failures by kind, the most frequent first; an empty text if there are no failures."""
        rows = [f"{count:>9}  {kind}" for kind, count in self._kinds.most_common(KINDS_SHOWN)]
        if more := len(self._kinds) - len(rows):
            rows.append(f"and {counted(more, 'more kind')}")
        return "\n".join(["Not acknowledged, by kind:", *rows]) if rows else ""


def joint_progress(tallies: Sequence[Tally], now: float) -> str:
    """Return a line that shows the progress of deliveries to several receivers. More payloads may follow."""
    acknowledged = sum(tally.acknowledged for tally in tallies)
    failing = sum(tally.failures for tally in tallies)
    rate = (acknowledged + failing) / max(now - min(tally.started for tally in tallies), 0.001)
    receivers = f" to {len(tallies)} receivers" if len(tallies) > 1 else ""
    return (
        f"{counted(acknowledged + failing, 'payload')} sent{receivers} so far, {acknowledged} acknowledged, "
        f"{failing} failing, {rate:.1f}/s"
    )
