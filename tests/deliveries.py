"""Payloads for the deliver task, and what its ledger says of them."""

from __future__ import annotations

import json
from typing import Any

from tests.conftest import StateStore

__all__ = ["CANARY", "payloads", "recorded"]

CANARY = "canary-of-a-record"
"""Stands in every body, and must never be seen elsewhere."""


def payloads(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "message_id": f"msg_{number}",
            "record_type": "Contacts",
            "record_id": number,
            "event": "added",
            "changed_at": "2017-03-10T08:00:00Z",
            "body": json.dumps({"entity": {"CONTACT_ID": number, "FIRST_NAME": CANARY}}),
        }
        for number in range(first, first + count)
    ]


def recorded(store: StateStore) -> dict[str, str]:
    """Return what the ledger in a store says: message ids, and a state's letter with a number of POSTs."""
    token = store.get("delivery")["token"]
    head = store.get(f"delivery/{token}/head") or {"blocks": 0}
    return {m: e for n in range(head["blocks"]) for m, e in store.get(f"delivery/{token}/{n}").items()}
