"""Log the changes and payloads that can't be delivered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["log_undeliverable"]

SHOWN = 20


def log_undeliverable(log: Any, changes: Sequence[Mapping[str, Any]]) -> None:
    """Log an error for each of the first 20 changes or payloads that can't be delivered, and how many follow.

    :param changes: changes or payloads. If one can't be delivered, its key ``undeliverable`` has the reason.
    """
    found = [change for change in changes if "undeliverable" in change]
    for change in found[:SHOWN]:
        log.error(
            "%s %s can't be delivered: %s",
            change["record_type"],
            change["record_id"],
            change["undeliverable"],
        )
    if len(found) > SHOWN:
        log.error("%d more can't be delivered", len(found) - SHOWN)
