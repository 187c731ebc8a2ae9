"""The paths of Insightly's API, below ``/v3.1``: records, custom fields and the account."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from airflow_insightly_hooks.core.records import RECORD_TYPES, RecordType
from airflow_insightly_hooks.sandbox.crm.child_records import ChildRelation
from airflow_insightly_hooks.sandbox.crm.custom_fields import CUSTOM_FIELDS
from airflow_insightly_hooks.sandbox.crm.error_answers import (
    BadRequest,
    Forbidden,
    MethodNotAllowed,
    NotFound,
)
from airflow_insightly_hooks.sandbox.crm.record_table import Record
from airflow_insightly_hooks.sandbox.http.json_body import json_response, object_body
from airflow_insightly_hooks.sandbox.http.middleware import METHODS
from airflow_insightly_hooks.sandbox.http.reference_paths import reference_routes
from airflow_insightly_hooks.sandbox.http.search_parameters import (
    PageParameters,
    field_filter,
    parsed_id,
    updated_after,
)
from airflow_insightly_hooks.sandbox.http.state import SandboxState

__all__ = ["api_router"]

INSTANCE = {
    "INSTANCE_NAME": "Sandbox Trading",
    "INSTANCE_SUBDOMAIN": "sandbox",
    "PLAN_NAME": "Enterprise",
    "NEW_USER_EXPERIENCE_ENABLED": True,
}


def _plural(name: str) -> str:
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"


WRONG_PLURALS = {_plural(name) for name in (*RECORD_TYPES, "Instance") if not name.endswith("s")}
"""Plurals that are not paths of the API: it has ``/Ticket``, and answers ``/Tickets`` with 405."""


def api_router(state: SandboxState) -> Router:
    """Return a router for the paths below ``/v3.1``."""
    api = _ApiPaths(state)
    paths = {
        "/CustomFields/{record_type}": api.custom_fields,
        "/CustomFields/{record_type}/Search": api.custom_field,
        "/CustomObjects": api.custom_objects,
        "/CustomObjects/{custom_object}": api.custom_object,
        "/Instance": api.instance,
        "/Users/Me": api.me,
        "/{record_type}": api.records,
        "/{record_type}/Search": api.search,
        "/{record_type}/SearchByTag": api.search_by_tag,
        "/{record_type}/{record_id}": api.record,
        "/{record_type}/{record_id}/Tags": api.tags,
        "/{record_type}/{record_id}/{child_type}": api.children,
        "/{record_type}/{record_id}/{child_type}/{child_id}": api.child,
        "/{path:path}": api.unknown,
    }
    routes = [Route(path, endpoint, methods=list(METHODS)) for path, endpoint in paths.items()]
    return Router([*reference_routes(state), *routes], redirect_slashes=False)


class _ApiPaths:
    """One Python method for each path, which handles all HTTP methods."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state

    async def records(self, request: Request) -> Response:
        record_type = self._record_type(request)
        store = self._state.store
        if request.method == "GET":
            return self._list_response(request, record_type)
        if request.method == "DELETE" or request.method not in record_type.methods:
            raise MethodNotAllowed
        body = await object_body(request)
        write = store.create if request.method == "POST" else store.update
        return json_response(write(record_type, body), 201)

    async def record(self, request: Request) -> Response:
        record_type, record = self._record(request)
        if request.method == "GET":
            return json_response(record)
        if request.method != "DELETE" or "DELETE" not in record_type.methods:
            raise MethodNotAllowed
        self._state.store.delete(record_type, record[record_type.id_field])
        return Response(status_code=202)

    async def search(self, request: Request) -> Response:
        _require_get(request)
        record_type = self._record_type(request)
        query = request.query_params
        return self._list_response(
            request, record_type, after=updated_after(query), matches=field_filter(record_type, query)
        )

    async def search_by_tag(self, request: Request) -> Response:
        record_type = self._record_type(request)
        if "TAGS" not in record_type.fields:
            raise NotFound
        _require_get(request)
        name = request.query_params.get("tagName")
        if not name:
            raise BadRequest("tagName is required.")
        tag = {"TAG_NAME": name}
        return self._list_response(request, record_type, matches=lambda record: tag in record["TAGS"])

    async def tags(self, request: Request) -> Response:
        record_type, record = self._record(request)
        if "TAGS" not in record_type.fields:
            raise NotFound
        tags: list[dict[str, Any]] = record["TAGS"]
        if request.method == "GET":
            return json_response(tags, 201)
        tag = {"TAG_NAME": (await object_body(request)).get("TAG_NAME")}
        others = [other for other in tags if other != tag]
        if request.method == "DELETE" and tag not in tags:
            raise NotFound("There is no tag with this name.")
        wanted = {"POST": [*others, tag], "PUT": [tag], "DELETE": others}[request.method]
        self._state.store.update(
            record_type, {record_type.id_field: record[record_type.id_field], "TAGS": wanted}
        )
        if request.method == "DELETE":
            return Response(status_code=202)
        return json_response(tag if request.method == "POST" else wanted, 201)

    async def children(self, request: Request) -> Response:
        relation, parent = self._child_relation(request)
        store = self._state.store
        if request.method == "GET":
            is_child = partial(relation.is_child, parent)
            if relation.is_linked:
                after = updated_after(request.query_params)
                return self._list_response(request, relation.child, after=after, matches=is_child)
            return json_response(self._state.search.page(relation.child, matches=is_child).records, 201)
        if request.method == "DELETE":
            raise MethodNotAllowed
        body = await object_body(request)
        if request.method == "POST":
            child = store.create(relation.child, body, parent=relation.parent_fields(parent))
        else:
            self._check_is_child(relation, parent, body.get(relation.child.id_field))
            child = store.update(relation.child, body)
        if relation.is_linked:
            return json_response(child, 201)
        return json_response([child], 201 if request.method == "POST" else 200)

    async def child(self, request: Request) -> Response:
        relation, parent = self._child_relation(request)
        if relation.is_linked:
            raise NotFound
        if request.method != "DELETE":
            raise MethodNotAllowed
        child_id = parsed_id(request.path_params["child_id"])
        self._check_is_child(relation, parent, child_id)
        self._state.store.delete(relation.child, child_id)
        return Response(status_code=202)

    async def custom_fields(self, request: Request) -> Response:
        _require_get(request)
        record_type = self._record_type(request)
        return json_response(_custom_fields(record_type))

    async def custom_field(self, request: Request) -> Response:
        _require_get(request)
        record_type = self._record_type(request)
        name = request.query_params.get("fieldName")
        if not name:
            raise BadRequest("fieldName is required.")
        for metadata in _custom_fields(record_type):
            if metadata["FIELD_NAME"] == name:
                return json_response(metadata)
        raise NotFound("There is no custom field with this name.")

    async def custom_objects(self, request: Request) -> Response:
        _require_get(request)
        return json_response(list(self._state.store.custom_objects.values()))

    async def custom_object(self, request: Request) -> Response:
        _require_get(request)
        try:
            return json_response(self._state.store.custom_objects[request.path_params["custom_object"]])
        except KeyError:
            raise NotFound("There is no custom object with this name.") from None

    async def instance(self, request: Request) -> Response:
        _require_get(request)
        return json_response(INSTANCE)

    async def me(self, request: Request) -> Response:
        _require_get(request)
        store = self._state.store
        return json_response(store.get(store.record_types["Users"], store.user_id))

    async def unknown(self, request: Request) -> Response:
        if request.path_params["path"].split("/")[0] in WRONG_PLURALS:
            raise MethodNotAllowed
        raise NotFound

    def _record_type(self, request: Request, parameter: str = "record_type") -> RecordType:
        """Return the record type in the path.

        :raises NotFound: if there is no such record type, or the account's plan lacks it.
        :raises Forbidden: if the API key has no access to it.
        :raises MethodNotAllowed: for a plural that the API doesn't have.
        """
        name = request.path_params[parameter]
        if name in WRONG_PLURALS:
            raise MethodNotAllowed
        if name not in self._state.store.record_types:
            raise NotFound
        if name in self._state.settings.not_in_plan:
            raise NotFound(f"{name} is not in this account's plan.")
        if name in self._state.settings.no_access:
            raise Forbidden(f"This API key has no access to {name}.")
        return self._state.store.record_types[name]

    def _record(self, request: Request) -> tuple[RecordType, Record]:
        record_type = self._record_type(request)
        return record_type, self._state.store.get(record_type, parsed_id(request.path_params["record_id"]))

    def _child_relation(self, request: Request) -> tuple[ChildRelation, Record]:
        """Return the relation that the path names, and the parent's record.

        :raises NotFound: if there is no such path, or no such parent.
        """
        parent_type = self._record_type(request)
        child_type = self._record_type(request, "child_type")
        if parent_type.name not in child_type.parents:
            raise NotFound
        return ChildRelation(parent_type, child_type), self._record(request)[1]

    def _check_is_child(self, relation: ChildRelation, parent: Record, child_id: Any) -> None:
        """Check that the record with this id is a child of ``parent``, unless it is not an id at all.

        :raises NotFound: if it is the child of another record, or there is no record with this id.
        """
        if isinstance(child_id, int) and not relation.is_child(
            parent, self._state.store.get(relation.child, child_id)
        ):
            raise NotFound(f"There is no {relation.child.title} with this id here.")

    def _list_response(
        self,
        request: Request,
        record_type: RecordType,
        *,
        after: str | None = None,
        matches: Callable[[Record], bool] | None = None,
    ) -> Response:
        page, shorten = PageParameters.parse(request.query_params), self._state.settings.shorten
        top = page.top
        if shorten and shorten.check_and_count(request.scope["path"]):
            top = min(top, shorten.to)
        found = self._state.search.page(record_type, skip=page.skip, top=top, after=after, matches=matches)
        headers = {"X-Total-Count": str(found.total)} if page.count_total else {}
        return json_response(page.apply_brief(record_type, found.records), headers=headers)


def _require_get(request: Request) -> None:
    if request.method != "GET":
        raise MethodNotAllowed


def _custom_fields(record_type: RecordType) -> list[dict[str, Any]]:
    fields = CUSTOM_FIELDS.get(record_type.name, ())
    return [field.metadata(record_type, order) for order, field in enumerate(fields, start=1)]
