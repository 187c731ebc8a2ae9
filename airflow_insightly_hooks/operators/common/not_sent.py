"""Records whose webhooks are not sent although they are due, and how a task reports them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.core.plurals import counted

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["LISTED", "not_sent", "report_not_sent"]

NOT_SENT = "not_sent"
LISTED = 100


def not_sent(webhook: str, record_id: int, reason: str) -> dict[str, Any]:
    """Return the item that reports one record."""
    return {"webhook": webhook, "record_id": record_id, "reason": reason}


def report_not_sent(log: Any, context: Context, items: list[dict[str, Any]], key: str = NOT_SENT) -> None:
    """Push the reported records to XCom, and log a warning for each of the first ``LISTED``."""
    if items:
        context["ti"].xcom_push(key=key, value=items)
    for item in items[:LISTED]:
        log.warning("%s: record %s is not sent: %s", *item.values())
    if len(items) > LISTED:
        more = counted(len(items) - LISTED, "more message")
        log.warning("not sent: %s; the XCom %s lists all", more, key)
