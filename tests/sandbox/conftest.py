"""A sandbox without a port, and a clock that only tests move."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from airflow_insightly_hooks.sandbox.app import create_app

NOW = 1_763_980_000.25
"""2025-11-24 10:26:40.25 UTC"""


class TestClock:
    """Seconds since 1970 that stand still."""

    __test__ = False

    def __init__(self) -> None:
        self.seconds = NOW

    def __call__(self) -> float:
        return self.seconds

    def tick(self, seconds: float) -> None:
        self.seconds += seconds


class Sandbox:
    """Sends requests to the application itself, by default with the API's key."""

    def __init__(self, clock: TestClock) -> None:
        self.clock = clock
        self._loop = asyncio.new_event_loop()
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(clock, hosts=["sandbox"])),
            base_url="http://sandbox",
            auth=("sandbox-key", ""),
            trust_env=False,  # no proxy
        )
        self.configure(requests_per_second=10_000)

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._loop.run_until_complete(self._client.request(method, path, **options))

    def api(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        if body is not None:
            options["json"] = body
        return self.ask(method, f"/v3.1{path}", **options)

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the JSON of an answer that is 200."""
        response = self.api("GET", path, params=parameters)
        assert response.status_code == 200, response.text
        return response.json()

    def post(self, path: str, **fields: Any) -> Any:
        """Return the JSON of an answer that is 201."""
        response = self.api("POST", path, fields)
        assert response.status_code == 201, response.text
        return response.json()

    def put(self, path: str, **fields: Any) -> Any:
        """Return the JSON of an answer that is 201."""
        response = self.api("PUT", path, fields)
        assert response.status_code == 201, response.text
        return response.json()

    def configure(self, **settings: Any) -> Any:
        response = self.ask("PUT", "/_sandbox", json=settings)
        assert response.status_code == 200, response.text
        return response.json()

    def create(self, record_type: str, fields: Any) -> Any:
        """Create records as the CRM itself does."""
        response = self.ask("POST", f"/_sandbox/records/{record_type}", json=fields)
        assert response.status_code == 201, response.text
        return response.json()

    def close(self) -> None:
        self._loop.run_until_complete(self._client.aclose())
        self._loop.close()


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def sandbox(clock: TestClock) -> Iterator[Sandbox]:
    sandbox = Sandbox(clock)
    yield sandbox
    sandbox.close()


@pytest.fixture(scope="session")
def still() -> Iterator[Sandbox]:
    """A sandbox that no test changes, since seeding one for each test takes its time."""
    sandbox = Sandbox(TestClock())
    sandbox.configure(requests_per_second=10**9, requests_per_day=10**9)
    yield sandbox
    sandbox.close()
