"""The metric of incoming webhooks, as the API server sends it."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.api_fastapi.app import _initialize_api_server_stats
from airflow.observability.metrics import stats_utils

from airflow_insightly_hooks.incoming.metrics import count_webhook


class SentMetrics:
    """The metrics that a server receives."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def incr(self, name: str, count: int = 1, *_rate: float, tags: dict[str, str]) -> None:
        self.calls.append((name, count, tags))


def test_received(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes to the same place as the API server's metrics. Airflow's SDK has another client, for tasks."""
    sent = SentMetrics()
    with monkeypatch.context() as patch:
        patch.setattr(stats_utils, "get_stats_factory", lambda: lambda: sent)
        _initialize_api_server_stats()
        count_webhook(401)
    _initialize_api_server_stats()
    assert sent.calls == [("insightly_webhook.received", 1, {"status": "401"})]
