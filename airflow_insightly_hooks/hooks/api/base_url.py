"""The API's address, as an Airflow connection names it: by a pod, a host name or a URL."""

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
"""What a form that is saved as it stands holds: beside a URL it asks for nothing."""

_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_BASE_URL = re.compile(
    rf"https?://({_LABEL}(\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{{1,5}}))?(/[\w.\-/]*)?",
    re.ASCII,
)
_POD = re.compile("[a-z0-9]+")
_REAL_POD = re.compile("[a-z]{2,3}[0-9]{1,2}")
"""What Insightly's pods look like: such a label is no host name, even where a scheme stands before it."""
_DOMAIN = ".insightly.com"


def base_url(connection: Connection, version: str) -> str:
    """Return the API's base URL that a connection names.

    - A pod, in any case, with or without ``https``: ``https://api.{pod}.insightly.com`` and the version.
    - A URL, with or without ``https://``, whose path ends in a version: that URL.
    - A URL with ``://`` and another path: that URL. Of Insightly's own servers, the version is added.
    - Anything else is a host name: ``schema`` (``https``), port and version are added.

    :param version: the connection's ``api_version``, or its default.
    :raises InvalidConnection: if it names none, or two versions.
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
            "the host is a URL, which has its own version: leave api_version empty, or make them the same",
        )
    url = f"{scheme.lower()}://{name}/{path}".rstrip("/")
    match = _BASE_URL.fullmatch(url)
    if match is None or not 0 < int(match["port"] or 443) < 65536:
        raise InvalidConnection(
            conn_id, "host", "a pod, a host name or an http(s) URL without user information is needed"
        )
    return url


def _pod(host: str, schema: str) -> str | None:
    """Return the pod that a host without a port is, in lower case."""
    scheme, separator, label = host.lower().rpartition("://")
    if separator or schema:
        is_pod = (scheme if separator else schema) == "https" and bool(_REAL_POD.fullmatch(label))
    else:
        is_pod = label != "localhost" and bool(_POD.fullmatch(label))
    return label if is_pod else None


def _check_server(name: str, conn_id: str) -> None:
    """Refuse a server of Insightly's that is not the API's; name the pod where its name holds one."""
    labels = name.removesuffix(_DOMAIN).split(".")
    if len(labels) == 2 and labels[0] == "api":
        return
    pod = labels[-1] if _REAL_POD.fullmatch(labels[-1]) else None
    what = f"'{pod}'" if pod else "such as 'na1' (Insightly: User Settings > API)"
    raise InvalidConnection(
        conn_id, "host", f"it is an address of Insightly's, but not of its API: give the pod alone, {what}"
    )
