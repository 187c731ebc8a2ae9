"""What a dry run does instead of POSTs: it says what would have gone out, in the log and in the ledger.

A ledger that a real try has written stays as it is: requests to send messages again are for a real one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.core.delivery.ledger import ACKNOWLEDGED, Ledger
from airflow_insightly_hooks.core.delivery.ledger_store import HEAD
from airflow_insightly_hooks.core.delivery.report import make_report
from airflow_insightly_hooks.core.delivery.report_types import Report
from airflow_insightly_hooks.core.payload import Payload, why_undeliverable
from airflow_insightly_hooks.runs.task_state import UnwrittenStore

if TYPE_CHECKING:
    from airflow_insightly_hooks.core.state.state_store import StateStore

__all__ = ["DRY_RUN_REASON", "dry_report", "dry_store", "list_records", "report_of"]

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
    log.info(
        "Dry run: %d of %d payloads would go to %s%s", len(due), len(payloads), receiver, list_records(due)
    )
    return report_of(payloads, ledger, len(due))


def report_of(payloads: Sequence[Payload], ledger: Ledger, would_send: int, report_count: int = 1) -> Report:
    """Return the report of a dry run; under ``undelivered`` stand those of which no body can be built.

    :param would_send: how many payloads would go out.
    :param report_count: how many reports share the room that there is for one.
    """
    now = datetime.now(timezone.utc)
    bad = [payload for payload in payloads if why_undeliverable(payload) is not None]
    report = make_report(bad, ledger, {}, lambda _message: DRY_RUN_REASON, now, now, report_count)
    report["total"] = len(payloads)
    report["delivered"] = sum(ledger[p["message_id"]].state == ACKNOWLEDGED for p in payloads)
    report["dry_run"] = True
    report["would_send"] = would_send
    return report


def list_records(payloads: Sequence[Payload]) -> str:
    """Return which records payloads are of, the first of them, behind a colon; empty without payloads."""
    if not payloads:
        return ""
    shown = [f"{p['record_type']} {p['record_id']} {p['event']}" for p in payloads[:SHOWN]]
    more = [f"and {len(payloads) - SHOWN} more"] if len(payloads) > SHOWN else []
    return f": {', '.join([*shown, *more])}"
