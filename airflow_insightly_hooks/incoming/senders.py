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
from dataclasses import dataclass, field

from airflow.configuration import ensure_secrets_loaded
from airflow.models.connection import Connection, sanitize_conn_id
from airflow.sdk.exceptions import AirflowSecretsBackendAccessDenied
from airflow.secrets.metastore import MetastoreBackend
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request

from airflow_insightly_hooks.core.errors import InvalidConnection, told
from airflow_insightly_hooks.hooks.incoming import IncomingSettings, InsightlyIncomingHook
from airflow_insightly_hooks.incoming.answers import overloaded, unauthorized, unavailable
from airflow_insightly_hooks.incoming.threads import Threads

__all__ = ["Sender", "Senders"]

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
    :ivar refresh: reads it again.
    """

    conn_id: str
    settings: IncomingSettings
    read_at: float
    refresh: asyncio.Task[None] | None = None
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
    """All who send to this process. Known are those that have shown the right credentials."""

    def __init__(self) -> None:
        self._known: dict[str, Sender] = {}
        self._guesses = Threads(LOOKUPS)
        self._refreshes = Threads(LOOKUPS)

    async def authenticated(self, conn_id: str, request: Request) -> Sender:
        """Return the sender, if its credentials are right.

        :raises Refusal: 401 if not, or if there is no such connection; 503 if that can't be seen.
        """
        began = time.monotonic()
        given = _credentials(request)
        if given is not None:
            known = self._known.get(conn_id)
            if known is not None and not _are_equal(given, known.settings):
                # At once with a reading of the connection that is due: else that would take the time of two.
                sender, _ = await asyncio.gather(
                    self._known_sender(conn_id), self._guesses.run(_look_up, secrets.token_hex(8))
                )
            else:
                sender = await self._known_sender(conn_id)
            settings = await self._guesses.run(_look_up, conn_id) if sender is None else sender.settings
            if _are_equal(given, settings) and settings is not None:
                return sender or self._keep(conn_id, settings)
        elapsed = time.monotonic() - began
        await asyncio.sleep(STEP - elapsed % STEP)
        raise unauthorized()

    def _keep(self, conn_id: str, settings: IncomingSettings) -> Sender:
        sender = self._known.setdefault(conn_id, Sender(conn_id, settings, 0))
        sender.settings, sender.read_at = settings, time.monotonic()
        return sender

    async def _known_sender(self, conn_id: str) -> Sender | None:
        sender = self._known.get(conn_id)
        if sender is not None and time.monotonic() - sender.read_at >= CONNECTION_LASTS:
            if sender.refresh is None or sender.refresh.done():
                sender.refresh = asyncio.create_task(self._refresh(sender))
            await asyncio.shield(sender.refresh)
        return self._known.get(conn_id)

    async def _refresh(self, sender: Sender) -> None:
        """Read a sender's connection again: not behind those who guess, and once for all its requests."""
        settings = await self._refreshes.run(_look_up, sender.conn_id)
        if settings is None:
            self._known.pop(sender.conn_id, None)
        else:
            self._keep(sender.conn_id, settings)


def _look_up(conn_id: str) -> IncomingSettings | None:
    """Return what a connection says; ``None`` if no connection of this id and type can be used.

    :raises Refusal: 503, if that can't be seen, such as while Airflow's database is away.
    """
    is_possible = sanitize_conn_id(conn_id) == conn_id
    connection = _connection(conn_id if is_possible else secrets.token_hex(8))
    if connection is None or connection.conn_type != InsightlyIncomingHook.conn_type:
        return None
    try:
        return IncomingSettings.from_connection(connection)
    except InvalidConnection as error:
        log.error("No webhook is taken by a connection that can't be used: %s", error)
    except Exception as error:  # such as one that was encrypted with another key
        log.error("No webhook is taken by connection %r: it can't be read (%s)", conn_id, told(error))
    return None


def _connection(conn_id: str) -> Connection | None:
    """Return a connection, as Airflow finds it; ``None`` if no connection has this id.

    Airflow itself takes a connection for missing where a secrets backend, or its database, doesn't answer.
    And it asks no further backend once it is found: here all are asked for something, whatever they have.

    :raises Refusal: 503, if one that might have it, or the database, didn't answer.
    """
    found: Connection | None = None
    has_failed = False
    for backend in ensure_secrets_loaded():
        try:
            answer = backend.get_connection(conn_id=conn_id if found is None else secrets.token_hex(8))
        except AirflowSecretsBackendAccessDenied:
            return found
        except Exception as error:
            log.warning(
                "%s can't be asked for the connections of incoming webhooks: %s",
                *(type(backend).__name__, type(error).__name__),
            )
            # What is wrong in itself, such as encrypted with another key, is as good as missing.
            has_failed = isinstance(error, SQLAlchemyError) or not isinstance(backend, MetastoreBackend)
        else:
            if found is None and answer is not None:
                found, has_failed = answer, False
    if has_failed:
        raise unavailable()
    return found


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


def _are_equal(given: tuple[bytes, bytes], settings: IncomingSettings | None) -> bool:
    """Return whether credentials are the expected ones, in a time that says nothing about them."""
    login, password = given
    expected = _NOBODY if settings is None else (settings.login, settings.password)
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
