"""The settings of an Insightly account in an Airflow connection: the API's address, the key, the limits."""

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
    """The settings of a connection of type ``insightly``, checked.

    :ivar api_key: the API key; logs and errors must not show it.
    :ivar base_url: the API's address, such as ``https://api.na1.insightly.com/v3.1``.
    :ivar host: the host of the address, with the port if the connection has one.
    :ivar timeout: seconds to connect, and to wait for each piece of an answer.
    :ivar answer_timeout: seconds from the end of a request until the answer is complete.
    :ivar max_answer_bytes: the largest answer in bytes, unpacked.
    :ivar requests_per_second: the most requests that are sent in a second.
    :ivar requests_per_day: the most requests that the account may make in a day; ``None`` for the plan's
        limit.
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
    """Return the API key: the password or the login. Airflow encrypts and masks the password only.

    :raises InvalidConnection: if there is no key, if there are two, or if it can't be a key.
    """
    conn_id = connection.conn_id
    login = connection_text(connection, "login").strip()
    password = connection_text(connection, "password").strip()
    if login and password:
        raise InvalidConnection(
            conn_id, "login", "the login and the password both hold an API key: leave one of them empty"
        )
    key = login or password
    field = "login" if login else "password"
    if not key:
        raise InvalidConnection(conn_id, field, "the API key is needed (Insightly: User Settings > API)")
    if not key.isascii() or not key.isprintable() or ":" in key:
        raise InvalidConnection(
            conn_id, field, "it is not an API key, which has only printable ASCII characters and no ':'"
        )
    mask(key, base64.b64encode(f"{key}:".encode()).decode())
    return key


def _check_address(conn_id: str, url: str, *, allows_http: bool) -> None:
    """Refuse addresses that could reveal the key: plain HTTP, and a cloud's metadata service."""
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
