"""The paths of the API's lists beside the records, below ``/v3.1``. They are read-only."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from airflow_insightly_hooks.sandbox.crm.error_answers import BadRequest, MethodNotAllowed, NotFound
from airflow_insightly_hooks.sandbox.http.json_body import json_response
from airflow_insightly_hooks.sandbox.http.middleware import METHODS
from airflow_insightly_hooks.sandbox.http.search_parameters import PageParameters, boolean, parsed_id
from airflow_insightly_hooks.sandbox.http.state import SandboxState
from airflow_insightly_hooks.sandbox.seed.reference_lists import CONVERTED, ReferenceList

__all__ = ["reference_routes"]


def reference_routes(state: SandboxState) -> list[Route]:
    """Return the routes of all lists. Changes, which the API has for some lists, are answered with 405."""
    return [
        route for name in (*state.reference_lists, "Tags") for route in _ReferencePaths(state, name).routes()
    ]


class _ReferencePaths:
    """The paths of one list: one Python method for each, which handles all HTTP methods."""

    def __init__(self, state: SandboxState, name: str) -> None:
        self._state = state
        self._name = name

    def routes(self) -> list[Route]:
        methods = list(METHODS)
        routes = [Route(f"/{self._name}", self.items, methods=methods)]
        if self._name != "Tags" and self._state.reference_lists[self._name].id_field:
            routes.append(Route(f"/{self._name}/{{item_id}}", self.item, methods=methods))
        return routes

    async def items(self, request: Request) -> Response:
        """Answer with the list, or a page of it."""
        _require_get(request)
        found = self._found(request)
        if not found.has_pages:
            return json_response(found.items)
        page, shorten = PageParameters.parse(request.query_params), self._state.settings.shorten
        top = page.top
        if shorten and shorten.check_and_count(request.scope["path"]):
            top = min(top, shorten.to)
        items = found.items[page.skip : page.skip + top]
        if page.brief and found.brief_field:
            items = [{name: v for name, v in item.items() if name != found.brief_field} for item in items]
        headers = {"X-Total-Count": str(len(found.items))} if page.count_total else {}
        return json_response(items, headers=headers)

    async def item(self, request: Request) -> Response:
        """Answer with one item."""
        _require_get(request)
        found, wanted = self._state.reference_lists[self._name], parsed_id(request.path_params["item_id"])
        for item in found.items:
            if item[str(found.id_field)] == wanted:
                return json_response(item)
        raise NotFound(f"There is no item of {self._name} with this id.")

    def _found(self, request: Request) -> ReferenceList:
        if self._name == "Tags":
            return ReferenceList(self._tags(request.query_params.get("record_type")))
        found = self._state.reference_lists[self._name]
        if self._name == "LeadStatuses" and not boolean(request.query_params, "include_converted"):
            return found._replace(items=[one for one in found.items if one["STATUS_TYPE"] != CONVERTED])
        return found

    def _tags(self, name: str | None) -> list[dict[str, Any]]:
        """Return the tags of the records of a type, in alphabetical order."""
        store = self._state.store
        for record_type in store.record_types.values():
            names = (record_type.name.lower(), record_type.title.lower())
            if name and name.lower() in names and "TAGS" in record_type.fields:
                tags = {tag["TAG_NAME"] for record in store.all(record_type) for tag in record["TAGS"]}
                return [{"TAG_NAME": tag} for tag in sorted(tags)]
        raise BadRequest("record_type is required, and must be a record type with tags, such as Contacts.")


def _require_get(request: Request) -> None:
    if request.method != "GET":
        raise MethodNotAllowed
