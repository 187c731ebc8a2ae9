"""An Insightly account as an Airflow connection names it: the API's address, the key, the limits."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from airflow_insightly_hooks.core.errors import InvalidConnection
from airflow_insightly_hooks.hooks.connection_extras import ConnectionExtras
from airflow_insightly_hooks.hooks.connection_fields import INSIGHTLY_FIELDS
from airflow_insightly_hooks.hooks.masking import mask

if TYPE_CHECKING:
    from airflow.sdk import Connection

__all__ = ["Account", "base_url"]

_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_BASE_URL = re.compile(
    rf"https?://({_LABEL}(\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{{1,5}}))?(/[\w.\-/]*)?",
    re.ASCII,
)


class Account:
    """What a connection of type ``insightly`` says.

    :ivar api_key: the API key, never to be shown.
    :ivar base_url: the API's address, such as ``https://api.na1.insightly.com/v3.1``.
    :ivar host: its host, with a port where one is given.
    :ivar timeout: seconds to connect, and to wait for each piece of an answer.
    :ivar requests_per_second: how many requests go out at most.
    :ivar requests_per_day: how many the account may have made in a day; ``None`` for all that it has.
    :raises InvalidConnection: if the connection can't be used.
    """

    def __init__(self, connection: Connection) -> None:
        extras = ConnectionExtras(connection, INSIGHTLY_FIELDS)
        self.api_key = _api_key(connection)
        version = extras.text("api_version")
        if not re.fullmatch(r"v\d+(\.\d+)?", version):
            raise extras.invalid("api_version", "a version such as 'v3.1' is needed")
        self.base_url = base_url(connection, version)
        self.host = re.split(r"://|/", self.base_url)[1]
        self.timeout = extras.number("timeout")
        self.requests_per_second = extras.number("requests_per_second")
        per_day = extras.number("requests_per_day")
        if per_day != int(per_day):
            raise extras.invalid("requests_per_day", "a whole number is needed, 0 for no bound")
        self.requests_per_day = int(per_day) or None


def _api_key(connection: Connection) -> str:
    """Return the API key: the password, which Airflow encrypts and masks, or the login, which it doesn't.

    :raises InvalidConnection: if there is none, or two, or what can be none.
    """
    conn_id = connection.conn_id
    login, password = (connection.login or "").strip(), (connection.password or "").strip()
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


def base_url(connection: Connection, version: str) -> str:
    """Return the API's base URL that a connection names.

    The one rule: a host with ``://`` is the whole base URL, its version included; a bare label without
    schema and port is a pod (``na1``); anything else is a host name, to which schema (``https``), port and
    version are added.

    :raises InvalidConnection: if it names none.
    """
    conn_id, host = connection.conn_id, (connection.host or "").strip().rstrip("/")
    if not host:
        raise InvalidConnection(
            conn_id, "host", "the pod is needed, such as 'na1' (Insightly: User Settings > API)"
        )
    if "://" in host:
        if connection.schema or connection.port:
            raise InvalidConnection(conn_id, "host", "it is a whole URL: leave schema and port empty")
        url = host
    elif (
        re.fullmatch(r"[a-z0-9]+", host)
        and not connection.schema
        and not connection.port
        and host != "localhost"
    ):
        url = f"https://api.{host}.insightly.com/{version}"
    else:
        port = f":{connection.port}" if connection.port else ""
        url = f"{connection.schema or 'https'}://{host}{port}/{version}"
    match = _BASE_URL.fullmatch(url)
    if match is None or not 0 < int(match["port"] or 443) < 65536:
        raise InvalidConnection(
            conn_id, "host", "a pod, a host name or an http(s) URL without user information is needed"
        )
    return url
