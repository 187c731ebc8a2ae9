"""Tries of a deliver task whose receiver keeps connections open, over http, https, or a proxy's tunnel."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_insightly_hooks.core.errors import UndeliveredError
from tests import deliveries
from tests.certificates import Authority
from tests.conftest import Connect
from tests.network import tunnel
from tests.receiver import Receiver, Script, answer_all, receiving
from tests.servers import serving

__all__ = ["PROMPT", "Try", "Way", "tried", "tries"]

HOST = "receiver.example.com"
CONNECTING = 0.02
"""Seconds that a connection takes to be made, as between two cities."""
PROMPT = 5.0
"""Seconds within which a try ends if the receiver doesn't make it wait."""


class Way:
    """How a deliver task reaches its receiver.

    ``with way(script) as receiver:`` runs a receiver and makes the connection ``webhook_default`` to it.

    :ivar kind: ``http``, ``https``, or ``tunnel``: https through the tunnel of a proxy on http.
    """

    def __init__(self, kind: str, folder: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kind = kind
        self._connect, self._monkeypatch = connect, monkeypatch
        self._authority = Authority(folder)
        self.take_to_connect(CONNECTING)

    def take_to_connect(self, seconds: float) -> None:
        """Have each connection take this time to be made. The time for which it is kept depends on it."""
        dial = socket.socket.connect

        def slowly(connection: socket.socket, address: Any) -> None:
            time.sleep(seconds)
            dial(connection, address)

        self._monkeypatch.setattr(socket.socket, "connect", slowly)

    @contextmanager
    def __call__(
        self,
        *scripts: Script,
        default: Script = answer_all,
        window: int | None = None,
        newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        **extra: Any,
    ) -> Iterator[Receiver]:
        """Run a receiver until the end of the block; see ``receiving``.

        :param newest: the newest version of TLS that the receiver speaks.
        :param extra: the extra fields of the connection to the receiver.
        """
        extra = {"timeout": 3, "verify": str(self._authority.file), **extra}
        host = HOST if self.kind == "tunnel" else "127.0.0.1"
        tls = None if self.kind == "http" else self._authority.server(host, newest=newest)
        with receiving(*scripts, default=default, tls=tls, window=window) as receiver:
            if self.kind != "tunnel":
                self._connect("webhook_default", host=receiver.url, extra=extra)
                yield receiver
                return
            with serving(tunnel(receiver.port)) as proxy:
                self._monkeypatch.setenv("https_proxy", proxy.url)
                self._connect("webhook_default", host=f"https://{HOST}/", extra=extra)
                yield receiver


@dataclass(frozen=True)
class Try:
    """The results of one try of a deliver task.

    :ivar ledger: for each message id, the letter of its state and the number of its POSTs, such as ``A1``.
    """

    report: dict[str, Any]
    ledger: dict[str, str]
    elapsed: float

    @property
    def undelivered(self) -> dict[str, dict[str, Any]]:
        """Return what the report lists as undelivered, by message id."""
        return {item["message_id"]: item for item in self.report["undelivered"]}


def tried(
    receiver: Receiver, context: dict[str, Any], given: Any, *, is_exact: bool = True, **arguments: Any
) -> Try:
    """Run one try. Check that its ledger and report agree with each other and with the receiver.

    Only messages that the receiver has truly acknowledged count as acknowledged, and every POST is counted.

    :param is_exact: whether the receiver has read every POST.
    """
    started = time.monotonic()
    try:
        report = dict(deliveries.deliver(context, given, **arguments))
    except UndeliveredError as error:
        report = dict(error.report)
    elapsed = time.monotonic() - started
    done = Try(report, deliveries.recorded(context["task_state_store"]), elapsed)
    acknowledged = {message for message, entry in done.ledger.items() if entry.startswith("A")}
    attempts = {message: int(entry[1:]) for message, entry in done.ledger.items()}
    assert acknowledged <= receiver.taken, "a lost message was not reported"
    assert report["delivered"] == len(acknowledged)
    assert set(done.undelivered) == {payload["message_id"] for payload in given} - acknowledged
    assert report["attempts"] == sum(attempts.values())
    for message in receiver.counts.keys() | attempts.keys():
        counted, read = attempts.get(message, 0), receiver.counts[message]
        assert counted == read if is_exact else counted >= read, f"POSTs of {message}: {counted}, not {read}"
    return done


def tries(receiver: Receiver, context: dict[str, Any], given: Any, **arguments: Any) -> list[Try]:
    """Run a task's tries until all messages are delivered. There are three tries at most."""
    done: list[Try] = []
    while not done or done[-1].report["delivered"] < len(given):
        assert len(done) < 3, done[-1].report
        done.append(tried(receiver, context, given, **arguments))
    return done
