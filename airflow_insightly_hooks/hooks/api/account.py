"""An Insightly account as an Airflow connection names it: the API's address, the key, the limits."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_insightly_hooks.core.errors import InvalidConnection
from airflow_insightly_hooks.hooks.api.base_url import VERSION, base_url
from airflow_insightly_hooks.hooks.blocked_addresses import (
    is_loopback,
    literal_address,
    why_not_sent_to,
)
from airflow_insightly_hooks.hooks.connection_extras import ConnectionExtras, connection_text
from airflow_insightly_hooks.hooks.connection_fields import INSIGHTLY_FIELDS
from airflow_insightly_hooks.hooks.masking import mask

if TYPE_CHECKING:
    from airflow.sdk import Connection

__all__ = ["Account"]


class Account:
    """What a connection of type ``insightly`` says.

    :ivar api_key: the API key, never to be shown.
    :ivar base_url: the API's address, such as ``https://api.na1.insightly.com/v3.1``.
    :ivar host: its host, with a port where one is given.
    :ivar timeout: seconds to connect, and to wait for each piece of an answer.
    :ivar answer_timeout: seconds from a request's end until its answer is whole.
    :ivar max_answer_bytes: how large an answer may be, unpacked.
    :ivar requests_per_second: how many requests go out at most.
    :ivar requests_per_day: how many the account may have made in a day; ``None`` for all that it has.
    :raises InvalidConnection: if the connection can't be used.
    """

    def __init__(self, connection: Connection) -> None:
        extras = ConnectionExtras(connection, INSIGHTLY_FIELDS)
        self.api_key = _api_key(connection)
        version = extras.text("api_version")
        if not VERSION.fullmatch(version):
            raise extras.invalid("api_version", "a version such as 'v3.1' is needed")
        self.base_url = base_url(connection, version)
        self.host = re.split(r"://|/", self.base_url)[1]
        _check_address(connection.conn_id, self.base_url, allows_http=extras.flag("allow_insecure_http"))
        self.timeout = extras.number("timeout")
        self.answer_timeout = extras.number("answer_timeout")
        self.max_answer_bytes = extras.whole_number("max_answer_bytes")
        self.requests_per_second = extras.number("requests_per_second")
        self.requests_per_day = extras.whole_number("requests_per_day") or None


def _api_key(connection: Connection) -> str:
    """Return the API key: the password, which Airflow encrypts and masks, or the login, which it doesn't.

    :raises InvalidConnection: if there is none, or two, or what can be none.
    """
    conn_id = connection.conn_id
    login = connection_text(connection, "login").strip()
    password = connection_text(connection, "password").strip()
    if login and password:
        raise InvalidConnection(conn_id, "login", "an API key stands here and in the password: give one")
    key = login or password
    field = "login" if login else "password"
    if not key:
        raise InvalidConnection(conn_id, field, "the API key is needed (Insightly: User Settings > API)")
    if not key.isascii() or not key.isprintable() or ":" in key:
        raise InvalidConnection(conn_id, field, "an API key has printable ASCII characters and no ':'")
    mask(key, base64.b64encode(f"{key}:".encode()).decode())
    return key


def _check_address(conn_id: str, url: str, *, allows_http: bool) -> None:
    """Refuse to show the key to whoever listens on the way, or to a cloud's metadata service."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    address = literal_address(host)
    refusal = why_not_sent_to(address) if address else None
    if refusal is not None:
        raise InvalidConnection(conn_id, "host", refusal)
    if parts.scheme == "http" and not is_loopback(host) and not allows_http:
        raise InvalidConnection(
            conn_id, "host", "plain http shows the API key: use https (or allow_insecure_http)"
        )
