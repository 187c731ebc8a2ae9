"""Who may send webhooks: the connections of type ``insightly_incoming``, and the check of credentials.

Whether there is a connection of an id must not be told by an answer, nor by the time that it takes. So each
refusal takes the time of one lookup of an id that doesn't exist, and the rest of a short step of time.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from airflow.models import Connection
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.utils.session import create_session
from anyio import CapacityLimiter, to_thread
from sqlalchemy import select
from starlette.requests import Request

from airflow_insightly_hooks.core.errors import InvalidConnection
from airflow_insightly_hooks.hooks.incoming import IncomingSettings, InsightlyIncomingHook
from airflow_insightly_hooks.incoming.answers import overloaded, unauthorized, unavailable

__all__ = ["Sender", "Senders"]

T = TypeVar("T")

log = logging.getLogger(__name__)

CONNECTION_LASTS = 10.0
"""Seconds for which a connection is used before it is read again."""
LOOKUPS = 2
"""How many connections are looked up at once: whoever guesses ids must not use up the server's threads."""
STEP = 0.02
"""Seconds: a refusal comes at a multiple of them."""
ID_LASTS = 3600.0
"""Seconds for which a message's id is known."""
MOST_IDS = 100_000


@dataclass
class Sender:
    """Who sends by one connection, in this process.

    :param conn_id: the connection's id.
    :param settings: what it says.
    :param read_at: when it was read, by the monotonic clock.
    """

    conn_id: str
    settings: IncomingSettings
    read_at: float
    _minute: float = 0.0
    _requests: int = 0
    _ids: OrderedDict[str, float] = field(default_factory=OrderedDict, repr=False)

    def count_request(self) -> None:
        """Count a request.

        :raises Refusal: 429, if there were too many in this minute.
        """
        now = time.monotonic()
        if now - self._minute >= 60:
            self._minute, self._requests = now, 0
        self._requests += 1
        if 0 < self.settings.requests_per_minute < self._requests:
            raise overloaded(self._minute + 60 - now)

    def has_sent(self, message_id: str) -> bool:
        """Return whether a message of this id was stored within the last hour."""
        oldest = time.monotonic() - ID_LASTS
        while self._ids and next(iter(self._ids.values())) < oldest:
            self._ids.popitem(last=False)
        return message_id in self._ids

    def keep_id(self, message_id: str) -> None:
        """Remember a message that was stored."""
        self._ids[message_id] = time.monotonic()
        self._ids.move_to_end(message_id)
        if len(self._ids) > MOST_IDS:
            self._ids.popitem(last=False)


class Senders:
    """All who send to this process."""

    def __init__(self) -> None:
        self._known: dict[str, Sender] = {}
        self._limiter: CapacityLimiter | None = None

    async def authenticated(self, conn_id: str, request: Request) -> Sender:
        """Return the sender, if its credentials are right.

        :raises Refusal: 401 if not, or if there is no such connection; 503 if that can't be seen.
        """
        began = time.monotonic()
        given = _credentials(request)
        sender = await self._sender(conn_id) if given is not None else None
        expected = (sender.settings.login, sender.settings.password) if sender is not None else _NOBODY
        if _are_equal(given, expected) and sender is not None:
            return sender
        if given is not None and sender is not None:
            await self._in_thread(_look_up, secrets.token_hex(8))
        elapsed = time.monotonic() - began
        await asyncio.sleep(STEP - elapsed % STEP)
        raise unauthorized()

    async def _sender(self, conn_id: str) -> Sender | None:
        known = self._known.get(conn_id)
        if known is not None and time.monotonic() - known.read_at < CONNECTION_LASTS:
            return known
        settings = await self._in_thread(_look_up, conn_id)
        if settings is None:
            self._known.pop(conn_id, None)
            return None
        known = self._known.setdefault(conn_id, Sender(conn_id, settings, 0))
        known.settings, known.read_at = settings, time.monotonic()
        return known

    async def _in_thread(self, function: Callable[[str], T], conn_id: str) -> T:
        if self._limiter is None:  # it belongs to the event loop that is running now
            self._limiter = CapacityLimiter(LOOKUPS)
        return await to_thread.run_sync(function, conn_id, limiter=self._limiter)


def _look_up(conn_id: str) -> IncomingSettings | None:
    """Return what a connection says; ``None`` if there is none of this id and type that can be used.

    :raises Refusal: 503, if Airflow's database doesn't answer.
    """
    try:
        connection = Connection.get_connection_from_secrets(conn_id)
    except AirflowNotFoundException:
        connection = None
    except Exception as error:
        log.warning("A connection for incoming webhooks can't be read: %s", type(error).__name__)
        raise unavailable() from None
    if connection is None:
        _check_database()
        return None
    if connection.conn_type != InsightlyIncomingHook.conn_type:
        return None
    try:
        return IncomingSettings.from_connection(connection)
    except InvalidConnection as error:
        log.error("No webhook is taken by a connection that can't be used: %s", error)
        return None


def _check_database() -> None:
    """Refuse the request if Airflow's database is away: then Airflow, too, finds no connection."""
    try:
        with create_session(scoped=False) as session:
            session.scalar(select(1))
    except Exception as error:
        log.warning("Airflow's database did not answer: %s", type(error).__name__)
        raise unavailable() from None


def _credentials(request: Request) -> tuple[bytes, bytes] | None:
    """Return the user name and the password that a request has; ``None`` if it has none, or several."""
    # Airflow adds a header of its own where everybody is an administrator.
    given = [value.strip().partition(" ") for value in request.headers.getlist("authorization")]
    basic = [encoded for scheme, _, encoded in given if scheme.lower() == "basic"]
    if len(basic) != 1:
        return None
    try:
        login, colon, password = base64.b64decode(basic[0].strip(), validate=True).partition(b":")
    except (ValueError, binascii.Error):
        return None
    return (login, password) if colon else None


_NOBODY = ("", secrets.token_hex(16))


def _are_equal(given: tuple[bytes, bytes] | None, expected: tuple[str, str]) -> bool:
    """Return whether credentials are the expected ones, in a time that says nothing about them."""
    login, password = given or (b"", b"")
    # UTF-8 is what we ask for; some senders write Latin-1 all the same.
    are_equal = [
        hmac.compare_digest(_digest(login), _digest(expected[0].encode(charset)))
        & hmac.compare_digest(_digest(password), _digest(expected[1].encode(charset)))
        for charset in ("utf-8", "latin-1" if _is_latin_1(expected) else "utf-8")
    ]
    return any(are_equal)


def _is_latin_1(texts: tuple[str, str]) -> bool:
    return all(ord(character) < 256 for text in texts for character in text)


def _digest(value: bytes) -> bytes:
    """Return a digest, so that the lengths of what is compared are equal, too."""
    return hashlib.sha256(value).digest()
