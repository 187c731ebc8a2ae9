"""Refuses requests for other hosts, requests from other sites' pages, and bodies that are too large.

A web page can send requests to a server on the browser's machine. It can't read the answers, unless the
page's host name leads to this machine, too (DNS rebinding). Then ``Host`` has this name. If another page
requests a change, ``Origin`` is not this server.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_insightly_hooks.sandbox.crm.error_answers import ApiError
from airflow_insightly_hooks.sandbox.http.json_body import json_response

__all__ = ["MAX_BODY", "RequestGuard"]

MAX_BODY = 64 * 2**20
"""The largest body, in bytes. A larger one is answered with 413."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Any page may send these: they change nothing, and the page can't read the answers."""


class RequestGuard:
    """ASGI middleware for all paths. It passes a request on to ``app``, or refuses it.

    :param hosts: the host names and addresses that ``Host`` may have, besides this machine's own
        (``localhost``, ``127.0.0.1``, ``::1``). ``0.0.0.0`` or ``::`` stands for every IP address, because a
        request that reaches the server by its address is meant for it.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] = ()) -> None:
        self._app = app
        self._hosts = {host.lower().rstrip(".") for host in hosts}
        self._any_address = any(_is_address(host, unspecified=True) for host in self._hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = Headers(scope=scope)
        refusal = self._refusal(scope["method"], headers)
        if refusal is not None:
            await json_response({"Message": refusal}, 403)(scope, receive, send)
            return
        received = 0
        length = headers.get("content-length", "")
        too_large = length.isascii() and length.isdigit() and int(length[:20]) > MAX_BODY

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if too_large or received > MAX_BODY:
                raise ApiError(413, f"The body is larger than {MAX_BODY:,} bytes.")
            return message

        await self._app(scope, bounded, send)

    def _refusal(self, method: str, headers: Headers) -> str | None:
        """Return why the request is refused, or ``None``."""
        hosts = headers.getlist("host")
        name = _host_name(hosts[0]) if len(hosts) == 1 else None
        if name is None or not self._is_ours(name):
            return (
                "Host is not a name of this machine. If you gave the machine this name, start the sandbox "
                "with --allow-host NAME."
            )
        if method not in SAFE_METHODS:
            for origin in headers.getlist("origin"):
                if urlsplit(origin).netloc.lower() != hosts[0].lower():
                    return "Origin is another site. Only the sandbox's own pages may change something."
        return None

    def _is_ours(self, name: str) -> bool:
        return (
            name in self._hosts
            or name == "localhost"
            or name.endswith(".localhost")
            or _is_address(name, any_address=self._any_address)
        )


def _host_name(host: str) -> str | None:
    """Return the name or address in a ``Host``, in lower case; ``None`` if it can't be read."""
    if any(sign in host for sign in "@/\\?# \t"):
        return None
    try:
        parsed = urlsplit(f"//{host}")
        name, _port = parsed.hostname, parsed.port
    except ValueError:
        return None
    return name.rstrip(".") if name else None


def _is_address(name: str, *, any_address: bool = False, unspecified: bool = False) -> bool:
    """Return whether it is an IP address: a loopback one, or else any one, or the unspecified one."""
    try:
        address = ip_address(name)
    except ValueError:
        return False
    return any_address or (address.is_unspecified if unspecified else address.is_loopback)
