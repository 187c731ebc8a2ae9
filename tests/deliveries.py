"""Payloads for the deliver task, and their state in its ledger."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from typing import Any

import pytest

from airflow_insightly_hooks.core.delivery.ledger import Ledger
from airflow_insightly_hooks.core.delivery.resend_requests import ResendRequest, add_request
from airflow_insightly_hooks.core.errors import UndeliveredError
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from tests.conftest import StateStore

__all__ = [
    "CANARY",
    "ask_again",
    "deliver",
    "outstanding_of",
    "payload_of",
    "payloads",
    "recorded",
    "undelivered",
]

CANARY = "canary-of-a-record"
"""Stands in every body, and must never be seen elsewhere."""


def payload_of(message_id: str, record_id: int, body: str) -> dict[str, Any]:
    return {
        "message_id": message_id,
        "record_type": "Contacts",
        "record_id": record_id,
        "event": "added",
        "changed_at": "2017-03-10T08:00:00Z",
        "body": body,
    }


def payloads(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        payload_of(
            f"msg_{number}", number, json.dumps({"entity": {"CONTACT_ID": number, "FIRST_NAME": CANARY}})
        )
        for number in range(first, first + count)
    ]


def deliver(context: dict[str, Any], given: Any, **arguments: Any) -> Any:
    """Run the deliver task. Return its report."""
    return WebhookOperator(task_id="deliver", payloads=given, **arguments).execute(context)


def undelivered(context: dict[str, Any], given: Any, **arguments: Any) -> UndeliveredError:
    """Run a deliver task that must fail. Return its error."""
    with pytest.raises(UndeliveredError) as caught:
        deliver(context, given, **arguments)
    return caught.value


def ask_again(context: dict[str, Any], *numbers: int, clears: bool = True) -> None:
    """Ask to send payloads again, by their numbers in ``payloads``. Clear the task as Airflow does."""
    messages = {f"msg_{number}": f"Contacts {number} added 2017-03-10T08:00:00Z" for number in numbers}
    request = ResendRequest(secrets.token_hex(6), "somebody", "2026-01-01T00:00:00Z", clears, {"": messages})
    assert add_request(context["task_state_store"], request, begun=())
    if clears:
        context["ti"].max_tries += 3


def outstanding_of(ledger: Ledger, messages: Iterable[str]) -> list[str]:
    """Return the messages that are still to be POSTed, in order."""
    return [message for message in messages if not ledger.is_settled(message)]


def recorded(store: StateStore) -> dict[str, str]:
    """Return the ledger of a store: for each message id its state's letter and its number of POSTs.

    Messages without a POST, and the ledger's other values, are left out.
    """
    token = store.get("delivery")["token"]
    head = store.get(f"delivery/{token}/head") or {"blocks": 0}
    blocks = [store.get(f"delivery/{token}/{number}") for number in range(head["blocks"])]
    found = {message: text.split(" ")[0] for block in blocks for message, text in block.items()}
    return {message: entry for message, entry in found.items() if entry != "F0"}
