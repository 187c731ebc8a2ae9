"""What a dry run does instead of POSTs: it says what would have gone out, in the log and in the ledger.

A ledger that a real try has written stays as it is: requests to send messages again are for a real one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.core.delivery.ledger import ACKNOWLEDGED, Ledger
from airflow_insightly_hooks.core.delivery.ledger_store import HEAD
from airflow_insightly_hooks.core.delivery.report import make_report
from airflow_insightly_hooks.core.delivery.report_types import Report
from airflow_insightly_hooks.core.detection.changes import RecordChange
from airflow_insightly_hooks.core.payload import Payload, why_undeliverable
from airflow_insightly_hooks.operators.delivery.batch_delivery import BatchDelivery
from airflow_insightly_hooks.operators.delivery.delivery import record_unsent
from airflow_insightly_hooks.runs.task_state import UnwrittenStore

if TYPE_CHECKING:
    from airflow_insightly_hooks.core.state.state_store import StateStore

__all__ = ["DRY_RUN_REASON", "DryBatchDelivery", "dry_report", "dry_store"]

SHOWN = 20
DRY_RUN_REASON = "not sent: this is a dry run"


def dry_store(store: StateStore, prefix: str = "") -> StateStore:
    """Return where a dry run keeps its ledger: what a real try has written is read, and not written.

    :param store: the task's state.
    :param prefix: of the ledger's keys.
    """
    return UnwrittenStore(store) if store.get(prefix + HEAD) is not None else store


def dry_report(log: Any, payloads: Sequence[Payload], ledger: Ledger, receiver: str) -> Report:
    """Log which payloads would go out, without contents, and return the report of a dry run.

    It counts them under ``would_send``. Under ``undelivered`` stand those of which no body can be built.

    :param receiver: what the log calls the receiver.
    """
    due = [p for p in payloads if why_undeliverable(p) is None and not ledger.is_settled(p["message_id"])]
    log.info("Dry run: %d of %d payloads would go to %s%s", len(due), len(payloads), receiver, _listed(due))
    return _report(payloads, ledger, len(due))


class DryBatchDelivery(BatchDelivery):
    """The messages of one webhook in a dry run of a task that reads its changes batch by batch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ledger.about["dry_run"] = True
        self._would_send = self._acknowledged = 0

    def deliver(self, changes: Iterable[RecordChange]) -> None:
        """Build the payloads, and log which ones would go out."""
        payloads = [self._payload(change) for change in changes]
        for payload in payloads:
            if why_undeliverable(payload) is not None:
                self._undeliverable[payload["message_id"]] = payload
        states = [self._ledger[payload["message_id"]].state for payload in payloads]
        self._acknowledged += states.count(ACKNOWLEDGED)
        due = [
            payload
            for payload in payloads
            if payload["message_id"] not in self._undeliverable
            and not self._ledger.is_settled(payload["message_id"])
        ]
        self._would_send += len(due)
        record_unsent(self._writer, payloads, lambda _message: DRY_RUN_REASON)
        self._log.info("Dry run: %s: %d payloads would go out%s", self._webhook.name, len(due), _listed(due))

    def may_go_on(self) -> bool:
        """Return that a later try has nothing to send."""
        return False

    def report(self, *, is_read: bool, report_count: int) -> Report:  # noqa: ARG002 — as that of a real run
        """Return the report of the dry run."""
        report = _report(list(self._undeliverable.values()), self._ledger, self._would_send, report_count)
        report["total"] += self._would_send + self._acknowledged
        report["delivered"] += self._acknowledged
        return report


def _report(payloads: Sequence[Payload], ledger: Ledger, would_send: int, report_count: int = 1) -> Report:
    now = datetime.now(timezone.utc)
    bad = [payload for payload in payloads if why_undeliverable(payload) is not None]
    report = make_report(bad, ledger, {}, lambda _message: DRY_RUN_REASON, now, now, report_count)
    report["total"] = len(payloads)
    report["delivered"] = sum(ledger[p["message_id"]].state == ACKNOWLEDGED for p in payloads)
    report["dry_run"] = True
    report["would_send"] = would_send
    return report


def _listed(payloads: Sequence[Payload]) -> str:
    """Return which records they are of, the first of them."""
    if not payloads:
        return ""
    shown = [f"{p['record_type']} {p['record_id']} {p['event']}" for p in payloads[:SHOWN]]
    more = [f"and {len(payloads) - SHOWN} more"] if len(payloads) > SHOWN else []
    return f": {', '.join([*shown, *more])}"
