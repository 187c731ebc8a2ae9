"""Check the credentials of incoming webhooks against the connections of type ``insightly_incoming``.

Neither an answer nor the time that it takes may reveal whether a connection exists. So each refusal takes as
long as one lookup of an id that doesn't exist, rounded up to a short step of time.
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

from airflow_insightly_hooks.core.errors import InvalidConnection, type_and_place
from airflow_insightly_hooks.hooks.incoming import IncomingSettings, InsightlyIncomingHook
from airflow_insightly_hooks.incoming.answers import overloaded, unauthorized, unavailable
from airflow_insightly_hooks.incoming.threads import Threads

__all__ = ["Sender", "Senders"]

log = logging.getLogger(__name__)

CONNECTION_LASTS = 10.0
"""Seconds for which a connection is used before it is read again."""
LOOKUPS = 2
"""How many connections are looked up at once. Guessed ids must not use up the server's threads."""
STEP = 0.02
"""Seconds. The time of a refusal is rounded up to a multiple of it."""
ID_LASTS = 3600.0
"""Seconds for which a message's id is remembered."""
MOST_IDS = 100_000
"""How many messages' ids are remembered for each connection."""


@dataclass
class Sender:
    """The sender of one connection, in this process.

    :param conn_id: the connection's id.
    :param settings: the connection's settings.
    :param read_at: when the connection was read, by the monotonic clock.
    :ivar refresh: the task that reads it again.
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
    """All senders of this process that have sent the right credentials."""

    def __init__(self) -> None:
        self._known: dict[str, Sender] = {}
        self._guesses = Threads(LOOKUPS)
        self._refreshes = Threads(LOOKUPS)

    async def authenticated(self, conn_id: str, request: Request) -> Sender:
        """Return the sender, if its credentials are right.

        :raises Refusal: 401, if the credentials are wrong or the connection doesn't exist; 503, if the
            connection can't be read.
        """
        began = time.monotonic()
        given = _credentials(request)
        if given is not None:
            known = self._known.get(conn_id)
            if known is not None and not _are_equal(given, known.settings):
                # If the connection is due to be read again, do both at once, or it would take twice the time.
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
        """Read a sender's connection again, once for all its requests. Guessed ids don't delay it."""
        settings = await self._refreshes.run(_look_up, sender.conn_id)
        if settings is None:
            self._known.pop(sender.conn_id, None)
        else:
            self._keep(sender.conn_id, settings)


def _look_up(conn_id: str) -> IncomingSettings | None:
    """Return a connection's settings; ``None`` if no connection of this id and type can be used.

    :raises Refusal: 503, if it can't be read, for example while Airflow's database doesn't answer.
    """
    is_possible = sanitize_conn_id(conn_id) == conn_id
    connection = _connection(conn_id if is_possible else secrets.token_hex(8))
    if connection is None or connection.conn_type != InsightlyIncomingHook.conn_type:
        return None
    try:
        return IncomingSettings.from_connection(connection)
    except InvalidConnection as error:
        log.error("Webhooks are refused, since their connection can't be used: %s", error)
    except Exception as error:  # for example, it was encrypted with another key
        log.error(
            "Webhooks of connection %r are refused, since it can't be read (%s): check [core] fernet_key, or "
            "save the connection again",
            *(conn_id, type_and_place(error)),
        )
    return None


def _connection(conn_id: str) -> Connection | None:
    """Return the connection that Airflow would find; ``None`` if no connection has this id.

    If a secrets backend or the database doesn't answer, Airflow itself treats the connection as missing. It
    also asks no further backend after it has found one. Here every backend is asked, so that the time is the
    same whether or not the connection exists.

    :raises Refusal: 503, if the database, or a backend that might have the connection, didn't answer.
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
                "%s can't read the connections of incoming webhooks: %s",
                *(type(backend).__name__, type(error).__name__),
            )
            # A connection that is itself broken, for example encrypted with another key, counts as missing.
            has_failed = isinstance(error, SQLAlchemyError) or not isinstance(backend, MetastoreBackend)
        else:
            if found is None and answer is not None:
                found, has_failed = answer, False
    if has_failed:
        raise unavailable()
    return found


def _credentials(request: Request) -> tuple[bytes, bytes] | None:
    """Return the request's user name and password; ``None`` if it has none, or several."""
    # If everybody is an administrator, Airflow adds an authorization header of another scheme.
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
    """Return whether credentials are the expected ones. The time that it takes reveals nothing about them."""
    login, password = given
    expected = _NOBODY if settings is None else (settings.login, settings.password)
    # The endpoint asks for UTF-8, but some senders use Latin-1.
    are_equal = [
        hmac.compare_digest(_digest(login), _digest(expected[0].encode(charset)))
        & hmac.compare_digest(_digest(password), _digest(expected[1].encode(charset)))
        for charset in ("utf-8", "latin-1" if _is_latin_1(expected) else "utf-8")
    ]
    return any(are_equal)


def _is_latin_1(texts: tuple[str, str]) -> bool:
    return all(ord(character) < 256 for text in texts for character in text)


def _digest(value: bytes) -> bytes:
    """Return a digest, so that the compared values have equal lengths."""
    return hashlib.sha256(value).digest()
