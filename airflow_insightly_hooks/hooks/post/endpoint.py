"""A receiver's address and credentials: read from a connection or a URI, checked, and redacted.

If a connection's host holds ``://``, it is the whole URI, and schema and port must be empty. Otherwise the
address is ``schema`` (``https``), host and port. The extra ``path`` is added to both. The credentials are the
connection's login and password, or the user information of the URI; both together are an error.
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

    Its ``str`` and ``repr`` hold no credentials, and no query, because a query may hold tokens.

    :param scheme: ``http`` or ``https``.
    :param host: an IP address without brackets, or a name in its ASCII form.
    :param port: the given port, or the scheme's default port.
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
        """Scheme and host, and the port if it isn't the scheme's default port."""
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
        """Whether the receiver uses TLS."""
        return self.scheme == "https"

    @property
    def is_loopback(self) -> bool:
        """Whether the host's name or address means this machine."""
        return is_loopback(self.host)

    def redirected(self, location: str) -> Endpoint | None:
        """Return the target of a redirect; ``None`` if its scheme, host or port differs, or it isn't valid.

        :param location: the value of the ``Location`` header, decoded as Latin-1.
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
        """Return the endpoint of a connection.

        :param path: the connection's extra ``path``.
        :raises InvalidConnection: if the address can't be used. No message holds a credential.
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
                conn_id, "host", "a host can't hold / ? # @: give the whole URI, or the path in extra.path"
            )
        else:
            port = (
                f":{connection.port}" if connection.port else ""
            )  # Airflow's form sends 0 for an empty port
            bare = f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host
            bare = re.sub("%(?!25)", "%25", bare) if bare.startswith("[") else bare  # an IPv6 zone
            uri = f"{schema or 'https'}://{bare}{port}"
        endpoint = cls.from_uri(uri, conn_id)
        if path:
            endpoint = _with_path(endpoint, path, conn_id)
        if login or password:
            if endpoint.username is not None:
                raise InvalidConnection(
                    conn_id, "host", "the URI and login/password both hold credentials: give one of them"
                )
            _check_user(login, conn_id)
            endpoint = replace(endpoint, username=login, password=password)
        return endpoint

    @classmethod
    def from_uri(cls, uri: str, conn_id: str = "uri") -> Endpoint:
        """Return the endpoint of a URI. Its user information is percent-decoded once.

        :param conn_id: the id of the connection, for an error.
        :raises InvalidConnection: if it is not an http(s) URI that can be used. The error doesn't hold the
            URI.
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
                "there is an '@' after the host; write / # ? in a password as %2F %23 %3F, @ in a path as %40"
            )
        if port == 0:
            raise refused("port 0 is not a port that can be used")
        if "[" in parts.netloc.rpartition("@")[2] and ":" not in (parts.hostname or ""):
            raise refused("the text in brackets is not an IPv6 address")
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
        raise InvalidConnection(conn_id, "extra.path", "it must start with '/' and be percent-encoded")
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
            raise refused("the text after %25 in an IPv6 address is not a zone")
        return f"{text}%{zone}" if percent else text
    try:
        if host.isascii():
            if not _HOST_NAME.fullmatch(host.lower()) or len(host.rstrip(".")) > 253:
                raise refused("the host is not a valid name")
            return host.lower()
        return idna.encode(host, uts46=True).decode()
    except idna.IDNAError:
        raise refused("the host is not a valid name") from None
