"""Fixtures for tests of workflows in one task."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.conftest import Connect, Logged
from tests.deliveries import CANARY

PASSWORD = "Pa55-of-the-tests"


@pytest.fixture
def nothing_logged(logged: Logged) -> Iterator[None]:
    """No log line contains a password or a record's contents."""
    yield
    assert PASSWORD not in logged.text
    assert CANARY not in logged.text


@pytest.fixture
def crm(insightly: RunningSandbox, connect: Connect) -> RunningSandbox:
    """The sandbox as the account, and as the receivers ``out`` and ``other``."""
    for name in ("out", "other"):
        connect(name, host=insightly.bin_url(name), login="user", password=PASSWORD, extra={"timeout": 5})
    return insightly
