"""What a deliver task tells: its report, its progress, and a table of what failed."""

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

__all__ = ["ERROR_LENGTH", "Failure", "Tally", "combined", "joint_progress", "make_report", "with_response"]

LISTED = 200
"""Undelivered payloads that a report lists one by one, at most."""
LIST_BYTES = 44_000
"""Bytes of JSON that the list has at most; the whole report stays below 48 KB."""
ERROR_LENGTH = 300
HELD = "not sent: only other messages were asked to be sent again"
KINDS_SHOWN = 20
DELIVERED_SHOWN = 20
"""Acknowledged payloads that a try's log names."""


class Failure(NamedTuple):
    """Why a payload wasn't acknowledged in this try.

    :param status: the answer's; ``None`` without an answer.
    :param error: a reason, without contents of any side.
    :param response: the beginning of the answer's body, if the connection keeps it; it may hold personal
        data. ``None`` if it doesn't.
    """

    status: int | None
    error: str
    response: str | None = None

    def __str__(self) -> str:
        return with_response(self.error, self.response)


def with_response(error: str, response: str | None) -> str:
    """Return an error's text with what is kept of the response."""
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

    :param failures: what became of the payloads that were tried and not acknowledged, by message id.
    :param why_unsent: a message id -> why it wasn't tried.
    :param report_count: how many reports share the room that there is for one.
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
        error = "the receiver will not take it (said in an earlier try)"
    elif entry.state == IN_DOUBT:
        error = "in doubt: POSTed, and what became of it is not recorded"
    elif ledger.is_held(payload["message_id"]):
        error = HELD
    elif ledger.is_settled(payload["message_id"]):
        error = f"its attempts are used up: {entry.attempts} made, {ledger.max_attempts} allowed"
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
    """Return the sum of several webhooks' reports."""
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
    """What a try has done so far.

    :param to_send: how many payloads it is to send.
    :param now: when it began, in seconds by a monotonic clock.
    :ivar started: ``now``.
    :ivar posted: POSTs that were made, whatever came of them.
    :ivar acknowledged: payloads that were acknowledged; the first of them are listed.
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
        """Return a line on how far it is."""
        done = self.acknowledged + self.failures
        rate = done / max(now - self.started, 0.001)
        left = f"about {(self.to_send - done) / rate:.0f} s left" if rate else "nothing answered yet"
        return (
            f"{done} of {self.to_send} payloads sent, {self.acknowledged} acknowledged, "
            f"{self.failures} failing, {rate:.1f}/s, {left}"
        )

    def list_delivered(self) -> str:
        """Return which payloads were acknowledged, the first of them, by records' and messages' ids."""
        more = self.acknowledged - len(self._delivered)
        return ", ".join(self._delivered) + (f" and {more} more" if more else "")

    def table(self) -> str:
        """Return what failed, by kind, the most frequent first; an empty text where nothing did."""
        rows = [f"{count:>9}  {kind}" for kind, count in self._kinds.most_common(KINDS_SHOWN)]
        if more := len(self._kinds) - len(rows):
            rows.append(f"and {more} more kinds")
        return "\n".join(["Not acknowledged, by kind:", *rows]) if rows else ""


def joint_progress(tallies: Sequence[Tally], now: float) -> str:
    """Return a line on how far deliveries to several receivers are, of which more may come."""
    acknowledged = sum(tally.acknowledged for tally in tallies)
    failing = sum(tally.failures for tally in tallies)
    rate = (acknowledged + failing) / max(now - min(tally.started for tally in tallies), 0.001)
    receivers = f" to {len(tallies)} receivers" if len(tallies) > 1 else ""
    return (
        f"{acknowledged + failing} payloads sent{receivers} so far, {acknowledged} acknowledged, "
        f"{failing} failing, {rate:.1f}/s"
    )
