"""Airflow connections to the sandbox. They exist as long as a test runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.sandbox.server import RunningSandbox

if TYPE_CHECKING:
    import pytest

__all__ = ["Receiver", "SandboxConnections"]

API_EXTRA = {"requests_per_second": 10_000, "timeout": 10}
"""With so many requests a second, no test waits for the limit."""


class Receiver:
    """A webhook connection, and its request bin in the sandbox.

    :ivar conn_id: the connection's id, which is the bin's name, too.
    :ivar url: the bin's address.
    """

    def __init__(self, conn_id: str, sandbox: RunningSandbox, answer: Mapping[str, Any]) -> None:
        self.conn_id = conn_id
        self.url = sandbox.bin_url(conn_id)
        self._sandbox = sandbox
        self._credentials = dict(answer)
        if answer:
            self.answer_with()

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The requests that the bin has received, oldest first.

        Each has ``received_at``, ``headers``, ``body``, ``username`` and ``acknowledged_with``.
        """
        return self._sandbox.received(self.conn_id)

    @property
    def bodies(self) -> list[Any]:
        """The bodies that the bin has acknowledged, parsed as JSON, oldest first."""
        return [json.loads(r["body"]) for r in self.requests if 200 <= r["acknowledged_with"] < 300]

    def answer_with(self, **answer: Any) -> None:
        """Set how the bin answers, for example ``status=503, times=2``.

        ``PUT /bin/NAME`` of the sandbox describes the arguments.
        """
        self._sandbox.answer_with(self.conn_id, **{**self._credentials, **answer})


class SandboxConnections:
    """Makes connections to the sandbox, as environment variables that are removed after the test.

    :param sandbox: the sandbox.
    :param monkeypatch: sets the environment variables.
    :ivar receivers: the webhook connections, by their ids.
    """

    def __init__(self, sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        self._sandbox = sandbox
        self._monkeypatch = monkeypatch
        self._accounts: set[str] = set()
        self.receivers: dict[str, Receiver] = {}

    def insightly(self, conn_id: str = "insightly_default", **extra: Any) -> str:
        """Make a connection to the sandbox's API, and return its id.

        :param conn_id: the connection's id.
        :param extra: fields of the connection's extra.
        """
        self._accounts.add(conn_id)
        return self._set(
            conn_id,
            "insightly",
            host=self._sandbox.api_url,
            password=self._sandbox.api_key,
            extra={**API_EXTRA, **extra},
        )

    def receiver(
        self,
        conn_id: str = "webhook_default",
        *,
        username: str | None = None,
        password: str | None = None,
        **extra: Any,
    ) -> Receiver:
        """Make a webhook connection to a request bin of the same name.

        :param conn_id: the connection's id: letters, digits, ``_``, ``.`` and ``-``.
        :param username: the user name that the connection sends and the bin expects.
        :param password: the password that the connection sends and the bin expects.
        :param extra: fields of the connection's extra, such as ``signing_secret``.
        """
        given = {"username": username, "password": password}
        credentials = {name: value for name, value in given.items() if value is not None}
        receiver = Receiver(conn_id, self._sandbox, credentials)
        fields = {"login": username, "password": password, "host": receiver.url, "extra": extra}
        self._set(conn_id, "insightly_webhook", **{k: v for k, v in fields.items() if v})
        self.receivers[conn_id] = receiver
        return receiver

    def add_missing(self, accounts: Iterable[str], receivers: Iterable[str]) -> None:
        """Make the connections with these ids that the test has not made itself."""
        for conn_id in sorted(set(accounts) - self._accounts):
            self.insightly(conn_id)
        for conn_id in sorted(set(receivers) - self.receivers.keys()):
            self.receiver(conn_id)

    def __getitem__(self, conn_id: str) -> Receiver:
        """Return the receiver of a webhook connection."""
        return self.receivers[conn_id]

    def _set(self, conn_id: str, conn_type: str, **fields: Any) -> str:
        value = json.dumps({"conn_type": conn_type, **fields})
        self._monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", value)
        return conn_id
