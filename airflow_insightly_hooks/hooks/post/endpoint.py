"""Where a webhook goes, and with which credentials: read from a connection or a URI, checked, redacted.

The one rule for a connection's address: a host with ``://`` is the whole URI, and schema and port must be
empty; else the address is ``schema`` (``https``), host and port. The extra ``path`` is added to either.
Credentials are the connection's login and password, or the URI's user information; not both.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import idna

from airflow_insightly_hooks.core.errors import InvalidConnection
from airflow_insightly_hooks.hooks.blocked_addresses import is_loopback
from airflow_insightly_hooks.hooks.connection_extras import NOT_WRITABLE, connection_text, is_writable

if TYPE_CHECKING:
    from airflow.sdk import Connection

__all__ = ["Endpoint"]

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SAFE_IN_TARGET = re.compile(r"[^\x21-\x7e]")
_LABEL = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_ZONE = re.compile(r"[A-Za-z0-9._~-]+")
_HOST_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")


@dataclass(frozen=True)
class Endpoint:
    """A receiver's address and credentials.

    Its ``str`` and ``repr`` hold no credentials and no query, where tokens may stand.

    :param scheme: ``http`` or ``https``.
    :param host: an IP address without brackets, or a name in its ASCII form.
    :param port: as written, or the scheme's.
    :param target: path and query, percent-encoded.
    """

    scheme: str
    host: str
    port: int
    target: str = field(repr=False)
    username: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.origin}{self.target.partition('?')[0]}"

    @property
    def origin(self) -> str:
        """Scheme, host, and port where it isn't the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"

    @property
    def host_header(self) -> str:
        """The value of ``Host``: an IPv6 address in brackets, without its zone."""
        authority = self.origin.partition("://")[2]
        return re.sub(r"%[^\]]*", "", authority)

    @property
    def url(self) -> str:
        """The address to send to, without credentials."""
        return self.origin + self.target

    @property
    def authorization(self) -> str | None:
        """The value of ``Authorization`` for Basic authentication (RFC 7617, UTF-8), or ``None``."""
        if self.username is None:
            return None
        return f"Basic {base64.b64encode(f'{self.username}:{self.password}'.encode()).decode()}"

    @property
    def is_secured(self) -> bool:
        """Whether TLS is spoken there."""
        return self.scheme == "https"

    @property
    def is_loopback(self) -> bool:
        """Whether the host says by itself that it is this machine."""
        return is_loopback(self.host)

    def redirected(self, location: str) -> Endpoint | None:
        """Return where a redirect leads; ``None`` if that is another scheme, host or port, or no address.

        :param location: the header of that name, decoded as Latin-1.
        """
        if _FORBIDDEN.search(location):
            return None
        try:
            parts = urlsplit(urljoin(self.url, location))
            origin = (parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme])
        except (KeyError, ValueError):
            return None
        if "@" in parts.netloc or origin != (self.scheme, self.host, self.port):
            return None
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        escaped = _SAFE_IN_TARGET.sub(lambda match: f"%{ord(match[0]):02X}", target)
        return replace(self, target=escaped)

    @classmethod
    def from_connection(cls, connection: Connection, path: str = "") -> Endpoint:
        """Return the endpoint that a connection names; ``path`` is its extra of that name.

        :raises InvalidConnection: if it names none; no message holds a credential.
        """
        conn_id = connection.conn_id
        host = connection_text(connection, "host").strip()
        schema = connection_text(connection, "schema")
        login, password = connection_text(connection, "login"), connection_text(connection, "password")
        if "://" in host:
            if schema or connection.port:
                raise InvalidConnection(conn_id, "host", "it is a whole URI: leave schema and port empty")
            uri = host
        elif re.search("[/?#@]", host):
            raise InvalidConnection(
                conn_id, "host", "a name has no / ? # @: give the whole URI, or the path in extra.path"
            )
        else:
            port = f":{connection.port}" if connection.port else ""  # Airflow's form sends 0 for none
            bare = f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host
            bare = re.sub("%(?!25)", "%25", bare) if bare.startswith("[") else bare  # an IPv6 zone
            uri = f"{schema or 'https'}://{bare}{port}"
        endpoint = cls.from_uri(uri, conn_id)
        if path:
            endpoint = _with_path(endpoint, path, conn_id)
        if login or password:
            if endpoint.username is not None:
                raise InvalidConnection(
                    conn_id, "host", "credentials stand in the URI and in login/password: give one"
                )
            _check_user(login, conn_id)
            endpoint = replace(endpoint, username=login, password=password)
        return endpoint

    @classmethod
    def from_uri(cls, uri: str, conn_id: str = "uri") -> Endpoint:
        """Return the endpoint that a URI names, its user information percent-decoded once.

        :param conn_id: what to call it in an error.
        :raises InvalidConnection: if it is no http(s) URI that can be sent to, never with its text.
        """

        def refused(reason: str) -> InvalidConnection:
            return InvalidConnection(conn_id, "host" if conn_id != "uri" else "URI", reason)

        if not is_writable(uri):
            raise refused(NOT_WRITABLE)
        if _FORBIDDEN.search(uri):
            raise refused("spaces, control characters and backslashes are not allowed")
        if _BAD_ESCAPE.search(uri):
            raise refused("a '%' is not followed by two hexadecimal digits")
        try:
            parts = urlsplit(uri)
            port = parts.port
        except ValueError:
            raise refused(
                "host or port can't be read; write / # ? @ in a password as %2F %23 %3F %40"
            ) from None
        if parts.scheme not in _DEFAULT_PORTS:
            raise refused("it must start with https:// or http://")
        if "@" in parts.path + parts.query + parts.fragment:
            raise refused(
                "an '@' stands behind the host; write / # ? in a password as %2F %23 %3F, @ in a path as %40"
            )
        if port == 0:
            raise refused("port 0 is none")
        if "[" in parts.netloc.rpartition("@")[2] and ":" not in (parts.hostname or ""):
            raise refused("what stands in brackets is no IPv6 address")
        username, password = _user_information(parts.netloc, conn_id)
        return cls(
            scheme=parts.scheme,
            host=_ascii_host(parts.hostname or "", refused),
            port=port or _DEFAULT_PORTS[parts.scheme],
            target=_target(parts.path or "/", parts.query),
            username=username,
            password=password,
        )


_DEFAULT_PORTS = {"http": 80, "https": 443}


def _with_path(endpoint: Endpoint, path: str, conn_id: str) -> Endpoint:
    if _FORBIDDEN.search(path) or _BAD_ESCAPE.search(path) or "#" in path or not path.startswith("/"):
        raise InvalidConnection(conn_id, "extra.path", "it starts with '/' and is percent-encoded")
    old_path, _, old_query = endpoint.target.partition("?")
    new_path, _, new_query = path.partition("?")
    query = "&".join(part for part in (old_query, new_query) if part)
    return replace(endpoint, target=_target(old_path.rstrip("/") + new_path, query))


def _target(path: str, query: str) -> str:
    target = f"{path}?{query}" if query else path
    return _SAFE_IN_TARGET.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), target)


def _user_information(netloc: str, conn_id: str) -> tuple[str | None, str]:
    information, at, _ = netloc.rpartition("@")
    if not at:
        return None, ""
    try:
        username, _, password = (unquote_to_bytes(part).decode() for part in information.partition(":"))
    except UnicodeDecodeError:
        raise InvalidConnection(conn_id, "URI", "its user information is not UTF-8") from None
    _check_user(username, conn_id)
    return username, password


def _check_user(username: str, conn_id: str) -> None:
    if ":" in username:
        raise InvalidConnection(conn_id, "login", "a user name can't hold ':' (RFC 7617)")


def _ascii_host(host: str, refused: Callable[[str], InvalidConnection]) -> str:
    if not host:
        raise refused("a host is needed")
    address, percent, zone = host.partition("%25")
    try:
        text = str(ipaddress.ip_address(address))
    except ValueError:
        pass
    else:
        if percent and not _ZONE.fullmatch(zone):
            raise refused("what stands behind an IPv6 address's %25 is no zone")
        return f"{text}%{zone}" if percent else text
    try:
        if host.isascii():
            if not _HOST_NAME.fullmatch(host.lower()) or len(host.rstrip(".")) > 253:
                raise refused("the host is no name")
            return host.lower()
        return idna.encode(host, uts46=True).decode()
    except idna.IDNAError:
        raise refused("the host is no name") from None
