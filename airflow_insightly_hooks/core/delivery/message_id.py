"""The id of the message that reports a change to a receiver."""

from __future__ import annotations

import hashlib

from airflow_insightly_hooks.core.detection.changes import RecordChange

__all__ = ["message_id", "message_id_of"]


def message_id(workflow: str, record_type: str, record_id: int, event: str, changed_at: str) -> str:
    """Return the id of the message that reports a change to ``workflow``'s receiver.

    It depends only on the arguments, so retries, cleared runs and backfills send the same id.

    :returns: ``msg_`` and 24 hexadecimal digits.
    """
    # The lengths make ("ab", "c") and ("a", "bc") differ.
    parts = (workflow, record_type, str(record_id), event, changed_at)
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return f"msg_{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def message_id_of(change: RecordChange, scope: str) -> str:
    """Return the id of the message that reports a change.

    :param scope: what the id depends on besides the change, such as the workflow and the webhook.
    """
    return message_id(
        scope, change["record_type"], change["record_id"], change["event"], change["changed_at"]
    )
