"""List what one webhook would send, in a dry run that reads its workflow's changes batch by batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from airflow_insightly_hooks.core.delivery.ledger import ACKNOWLEDGED
from airflow_insightly_hooks.core.delivery.report_types import Report
from airflow_insightly_hooks.core.detection.changes import RecordChange
from airflow_insightly_hooks.core.payload import why_undeliverable
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.operators.delivery.delivery import record_unsent
from airflow_insightly_hooks.operators.delivery.dry_run import DRY_RUN_REASON, list_records, report_of
from airflow_insightly_hooks.operators.one_task.batch_delivery import BatchDelivery

__all__ = ["DryBatchDelivery"]


class DryBatchDelivery(BatchDelivery):
    """The messages of one webhook in a dry run of a task that reads its changes batch by batch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ledger.about["dry_run"] = True
        self._would_send = self._acknowledged = 0

    def deliver(self, changes: Iterable[RecordChange]) -> None:
        """Build the payloads, and log which of them a real run would send."""
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
        self._log.info(
            "Dry run: %s: %s would go out%s",
            self._webhook.name,
            counted(len(due), "payload"),
            list_records(due),
        )

    def may_go_on(self) -> bool:
        """Return ``False``: a later try of a dry run has nothing to send."""
        return False

    def report(self, *, is_read: bool, report_count: int) -> Report:  # noqa: ARG002 — as in a real run
        """Return the report of the dry run."""
        report = report_of(list(self._undeliverable.values()), self._ledger, self._would_send, report_count)
        report["total"] += self._would_send + self._acknowledged
        report["delivered"] += self._acknowledged
        return report
