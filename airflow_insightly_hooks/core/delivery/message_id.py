"""The id of the message that tells a receiver of a change."""

from __future__ import annotations

import hashlib

from airflow_insightly_hooks.core.detection.changes import RecordChange

__all__ = ["message_id", "message_id_of"]


def message_id(workflow: str, record_type: str, record_id: int, event: str, changed_at: str) -> str:
    """Return the id of the message that tells ``workflow``'s receiver of a change.

    It depends on its arguments alone, so retries, cleared runs and backfills send the same one.

    :returns: ``msg_`` and 24 hexadecimal digits.
    """
    # Lengths keep ("ab", "c") and ("a", "bc") apart.
    parts = (workflow, record_type, str(record_id), event, changed_at)
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return f"msg_{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def message_id_of(change: RecordChange, scope: str) -> str:
    """Return the id of the message that tells of a change.

    :param scope: what the message belongs to besides.
    """
    return message_id(
        scope, change["record_type"], change["record_id"], change["event"], change["changed_at"]
    )
