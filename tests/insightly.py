"""An Insightly API with scripted answers, and the hook for it."""

from __future__ import annotations

import base64
import json
from typing import Any

from airflow_insightly_hooks.hooks.insightly import InsightlyHook
from tests.conftest import Connect
from tests.servers import Server, answer

__all__ = ["ENCODED_KEY", "KEY", "as_json", "hook_for"]

KEY = "the-key-of-the-tests"
ENCODED_KEY = base64.b64encode(f"{KEY}:".encode()).decode()


def hook_for(connect: Connect, server: Server, **extra: Any) -> InsightlyHook:
    """Return a hook whose connection ``crm`` leads to the server."""
    extra = {"requests_per_second": 10_000, "timeout": 0.3, **extra}
    connect("crm", "insightly", host=f"{server.url}/v3.1", password=KEY, extra=extra)
    return InsightlyHook("crm")


def as_json(value: Any, status: str = "200 OK", *headers: str) -> bytes:
    """Return an answer of the API."""
    return answer(status, "Content-Type: application/json", *headers, body=json.dumps(value).encode())
