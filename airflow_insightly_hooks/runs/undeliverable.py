"""What tasks log of changes, and of payloads, that can't be delivered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["log_undeliverable"]

SHOWN = 20


def log_undeliverable(log: Any, changes: Sequence[Mapping[str, Any]]) -> None:
    """Log an error for each change, or payload, that can't be delivered: the first 20, and how many more."""
    found = [change for change in changes if "undeliverable" in change]
    for change in found[:SHOWN]:
        log.error(
            "%s %s can't be delivered: %s",
            change["record_type"],
            change["record_id"],
            change["undeliverable"],
        )
    if len(found) > SHOWN:
        log.error("and %d more can't be delivered", len(found) - SHOWN)
