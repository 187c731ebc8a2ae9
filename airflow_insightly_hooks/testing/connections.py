"""Airflow connections that lead to the sandbox, for the length of a test."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.sandbox.server import RunningSandbox

if TYPE_CHECKING:
    import pytest

__all__ = ["Receiver", "SandboxConnections"]

API_EXTRA = {"requests_per_second": 10_000, "timeout": 10}
"""A test waits for no limit of requests."""


class Receiver:
    """A webhook connection, and the request bin of the sandbox that it leads to.

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
        """The requests that it has received, oldest first.

        Each has ``received_at``, ``headers``, ``body``, ``username`` and ``acknowledged_with``.
        """
        return self._sandbox.received(self.conn_id)

    @property
    def bodies(self) -> list[Any]:
        """The bodies that it has acknowledged, parsed as JSON, oldest first."""
        return [json.loads(r["body"]) for r in self.requests if 200 <= r["acknowledged_with"] < 300]

    def answer_with(self, **answer: Any) -> None:
        """Set how it answers, for example ``status=503, times=2``: see ``PUT /bin/NAME`` of the sandbox."""
        self._sandbox.answer_with(self.conn_id, **{**self._credentials, **answer})


class SandboxConnections:
    """Makes connections, through environment variables that are undone after the test.

    :param sandbox: where they lead to.
    :param monkeypatch: sets the environment variables.
    :ivar receivers: the webhook connections, by their ids.
    """

    def __init__(self, sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        self._sandbox = sandbox
        self._monkeypatch = monkeypatch
        self._accounts: set[str] = set()
        self.receivers: dict[str, Receiver] = {}

    def insightly(self, conn_id: str = "insightly_default", **extra: Any) -> str:
        """Make a connection to the sandbox's API; ``extra`` are fields of its extra. Return its id."""
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

        :param conn_id: its id: letters, digits, ``_``, ``.`` and ``-``.
        :param username: the bin asks for this user, and the connection names it.
        :param password: the bin asks for this password, and the connection has it.
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
