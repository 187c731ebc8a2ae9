"""Records whose webhooks are not sent although their time has come, and what a task tells of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["LISTED", "not_sent", "report_not_sent"]

NOT_SENT = "not_sent"
LISTED = 100


def not_sent(webhook: str, record_id: int, reason: str) -> dict[str, Any]:
    """Return what is told of one record."""
    return {"webhook": webhook, "record_id": record_id, "reason": reason}


def report_not_sent(log: Any, context: Context, items: list[dict[str, Any]], key: str = NOT_SENT) -> None:
    """Push what is told of records to XCom, and log the first of them."""
    if items:
        context["ti"].xcom_push(key=key, value=items)
    for item in items[:LISTED]:
        log.warning("%s: record %s is not sent: %s", *item.values())
    if len(items) > LISTED:
        log.warning("and %d more are not sent: see the XCom %s", len(items) - LISTED, key)
