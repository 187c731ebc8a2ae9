"""The API's address. An Airflow connection gives it as a pod, a host name or a URL."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_insightly_hooks.core.errors import InvalidConnection
from airflow_insightly_hooks.hooks.connection_extras import connection_text

if TYPE_CHECKING:
    from airflow.sdk import Connection

__all__ = ["VERSION", "base_url"]

VERSION = re.compile(r"v\d+(\.\d+)?", re.ASCII)
DEFAULT_VERSION = "v3.1"
"""The form's default. A form that was saved unchanged holds it, so it may differ from a URL's version."""

_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_BASE_URL = re.compile(
    rf"https?://({_LABEL}(\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{{1,5}}))?(/[\w.\-/]*)?",
    re.ASCII,
)
_POD = re.compile("[a-z0-9]+")
_REAL_POD = re.compile("[a-z]{2,3}[0-9]{1,2}")
"""The form of Insightly's pods. A name of this form is a pod even if ``https://`` is before it."""
_DOMAIN = ".insightly.com"


def base_url(connection: Connection, version: str) -> str:
    """Return the API's base URL of a connection.

    - The host is a pod, in upper or lower case, with or without ``https``: the base URL is
      ``https://api.{pod}.insightly.com`` and the version.
    - The host is a URL whose path ends in a version, with or without ``https://``: it is the base URL.
    - The host is a URL with ``://`` and another path: it is the base URL. If it is one of Insightly's own
      servers, and has no path, the version is added.
    - Any other host is a host name: ``schema`` (``https``), port and version are added.

    :param version: the connection's ``api_version``, or its default.
    :raises InvalidConnection: if the host is not one of these, or if it has another version.
    """
    conn_id, host = connection.conn_id, connection_text(connection, "host").strip().rstrip("/")
    schema = connection_text(connection, "schema").strip().lower()
    if not host:
        raise InvalidConnection(
            conn_id, "host", "the pod is needed, such as 'na1' (Insightly: User Settings > API)"
        )
    if "://" in host and (schema or connection.port):
        raise InvalidConnection(conn_id, "host", "it is a whole URL: leave schema and port empty")
    if not connection.port and (pod := _pod(host, schema)):
        return f"https://api.{pod}{_DOMAIN}/{version}"
    is_whole = "://" in host
    if not is_whole:
        name, slash, path = host.partition("/")
        port = f":{connection.port}" if connection.port else ""
        host = f"{schema or 'https'}://{name}{port}{slash}{path}"
    scheme, _, rest = host.partition("://")
    name, slash, path = rest.partition("/")
    is_insightly = name.lower().partition(":")[0].endswith(_DOMAIN)
    if is_insightly:
        _check_server(name.lower().partition(":")[0], conn_id)
        name = name.lower()
    own_version = path.rpartition("/")[2]
    if not VERSION.fullmatch(own_version):
        own_version = ""
    if not own_version and (not is_whole or (is_insightly and not path)):
        path = f"{path}/{version}".lstrip("/")
    elif version != (own_version or DEFAULT_VERSION):
        raise InvalidConnection(
            conn_id,
            "extra.api_version",
            "the host is a URL, so the URL's version counts: leave api_version empty, or give that version",
        )
    url = f"{scheme.lower()}://{name}/{path}".rstrip("/")
    match = _BASE_URL.fullmatch(url)
    if match is None or not 0 < int(match["port"] or 443) < 65536:
        raise InvalidConnection(
            conn_id, "host", "a pod, a host name or an http(s) URL without user information is needed"
        )
    return url


def _pod(host: str, schema: str) -> str | None:
    """Return the pod in lower case, if a host without a port is one; otherwise ``None``."""
    scheme, separator, label = host.lower().rpartition("://")
    if separator or schema:
        is_pod = (scheme if separator else schema) == "https" and bool(_REAL_POD.fullmatch(label))
    else:
        is_pod = label != "localhost" and bool(_POD.fullmatch(label))
    return label if is_pod else None


def _check_server(name: str, conn_id: str) -> None:
    """Refuse a server of Insightly that is not an API server. The error names the pod if the name has one."""
    labels = name.removesuffix(_DOMAIN).split(".")
    if len(labels) == 2 and labels[0] == "api":
        return
    pod = labels[-1] if _REAL_POD.fullmatch(labels[-1]) else None
    what = f"'{pod}'" if pod else "such as 'na1' (Insightly: User Settings > API)"
    raise InvalidConnection(
        conn_id, "host", f"it is an address of Insightly, but not of its API: give the pod alone, {what}"
    )
