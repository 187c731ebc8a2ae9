"""Dry runs: instead of POSTs, the log and the ledger show the messages that would have gone out.

A ledger that a real try has written is not changed. Requests to send messages again wait for a real try.
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
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.runs.task_state import UnwrittenStore

if TYPE_CHECKING:
    from airflow_insightly_hooks.core.state.state_store import StateStore

__all__ = ["DRY_RUN_REASON", "dry_report", "dry_store", "list_records", "report_of"]

SHOWN = 20
DRY_RUN_REASON = "not sent: this is a dry run"


def dry_store(store: StateStore, prefix: str = "") -> StateStore:
    """Return the store for a dry run's ledger. A ledger that a real try has written is read-only in it.

    :param store: the task's state.
    :param prefix: the prefix of the ledger's keys.
    """
    return UnwrittenStore(store) if store.get(prefix + HEAD) is not None else store


def dry_report(log: Any, payloads: Sequence[Payload], ledger: Ledger, receiver: str) -> Report:
    """Log which payloads would go out, without their contents, and return the report of the dry run.

    ``would_send`` is their number. ``undelivered`` lists the payloads for which no body can be built.

    :param receiver: the receiver's name in the log.
    """
    due = [p for p in payloads if why_undeliverable(p) is None and not ledger.is_settled(p["message_id"])]
    log.info(
        "Dry run: %d of %s would go to %s%s",
        *(len(due), counted(len(payloads), "payload"), receiver, list_records(due)),
    )
    return report_of(payloads, ledger, len(due))


def report_of(payloads: Sequence[Payload], ledger: Ledger, would_send: int, report_count: int = 1) -> Report:
    """Return the report of a dry run. ``undelivered`` lists the payloads for which no body can be built.

    :param would_send: the number of payloads that would go out.
    :param report_count: how many reports share the size limit of one.
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
    """Return a colon and the records of the first payloads; an empty text without payloads."""
    if not payloads:
        return ""
    shown = [f"{p['record_type']} {p['record_id']} {p['event']}" for p in payloads[:SHOWN]]
    more = [f"and {len(payloads) - SHOWN} more"] if len(payloads) > SHOWN else []
    return f": {', '.join([*shown, *more])}"
