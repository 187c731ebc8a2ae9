"""The paths of the request bins, below ``/bin``."""

from __future__ import annotations

import asyncio
import re
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response

from airflow_insightly_hooks.sandbox.crm.error_answers import NotFound
from airflow_insightly_hooks.sandbox.http.basic_auth import credentials
from airflow_insightly_hooks.sandbox.http.html_pages import bin_page, html_response
from airflow_insightly_hooks.sandbox.http.json_body import json_response, object_body
from airflow_insightly_hooks.sandbox.http.request_bin import BinResponse, RequestBin
from airflow_insightly_hooks.sandbox.http.state import SandboxState

__all__ = ["BinPaths"]

NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie"})


class BinPaths:
    """One Python method for each path, which handles all HTTP methods."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state

    async def bin(self, request: Request) -> Response:
        """Answer ``/bin/{name}``."""
        name = _name(request)
        if request.method == "POST":
            return await self._receive(name, request)
        if request.method == "PUT":
            response = BinResponse.parse(await object_body(request))
            self._bin(name).response = response
            return json_response(
                asdict(response) | {"password": None if response.password is None else "***"}
            )
        if request.method == "DELETE":
            self._state.bins.pop(name, None)
            return Response(status_code=204)
        return html_response(bin_page(name, self._state.bins.get(name, RequestBin())))

    async def requests(self, request: Request) -> Response:
        """Answer ``/bin/{name}/requests``."""
        kept = self._state.bins.get(_name(request), RequestBin()).requests
        return json_response([asdict(one) for one in kept])

    async def _receive(self, name: str, request: Request) -> Response:
        received_at = self._state.clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        headers: dict[str, str] = {}
        for header, value in request.headers.items():
            if header not in SECRET_HEADERS:
                headers[header] = f"{headers[header]}, {value}" if header in headers else value
        body = (await request.body()).decode(errors="backslashreplace")
        response = self._bin(name).receive(received_at, headers, body, credentials(request))
        if response.delay:
            await asyncio.sleep(response.delay)
        if response.status in (204, 304):
            return Response(status_code=response.status, headers=response.headers)
        return json_response({"received": 200 <= response.status < 300}, response.status, response.headers)

    def _bin(self, name: str) -> RequestBin:
        return self._state.bins.setdefault(name, RequestBin())


def _name(request: Request) -> str:
    name: str = request.path_params["name"]
    if NAME.fullmatch(name) is None:
        raise NotFound("A bin's name must be 1 to 100 characters: letters, digits, '_', '.' and '-'.")
    return name
