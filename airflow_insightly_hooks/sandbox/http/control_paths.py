"""The sandbox's own paths, below ``/_sandbox``: settings, history, and records with any fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from airflow_insightly_hooks.core.records import RecordType
from airflow_insightly_hooks.sandbox.crm.clock import RECORD_TIMES_CHOICES
from airflow_insightly_hooks.sandbox.crm.error_answers import BadRequest, NotFound
from airflow_insightly_hooks.sandbox.crm.search_behaviour import SearchBehaviour
from airflow_insightly_hooks.sandbox.crm.value_checks import checked_choice, checked_integer, checked_number
from airflow_insightly_hooks.sandbox.http.json_body import json_body, json_response, object_body
from airflow_insightly_hooks.sandbox.http.search_parameters import parsed_id
from airflow_insightly_hooks.sandbox.http.settings import Cut, Fault, Shorten
from airflow_insightly_hooks.sandbox.http.state import SandboxState
from airflow_insightly_hooks.sandbox.webhooks.webhook import parse_webhooks

__all__ = ["ControlPaths"]

TEN_YEARS = 10 * 366 * 86400


class ControlPaths:
    """One Python method for each path, which handles all HTTP methods."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state

    async def sandbox(self, request: Request) -> Response:
        """Answer ``/_sandbox``."""
        if request.method == "PUT":
            self._update_settings(await object_body(request))
        elif request.method == "DELETE":
            self._state.reset()
        return json_response(self._state.as_json())

    async def history(self, request: Request) -> Response:
        """Answer with the changes of records after the change with the number ``since``."""
        since = request.query_params.get("since", "0")
        if not (since.isascii() and since.isdigit() and len(since) < 19):
            raise BadRequest("since is not a whole number from 0.")
        return json_response([change.as_json() for change in self._state.store.history.since(int(since))])

    async def records(self, request: Request) -> Response:
        """Create a record, or a list of records, as only the CRM itself can.

        The answer holds the records, or with ``answer=ids`` only their ids, for lists of many thousands.
        """
        record_type = self._record_type(request)
        form = checked_choice("answer", request.query_params.get("answer", "records"), ("records", "ids"))
        body = await json_body(request)
        created: list[Any] = [
            self._state.store.write_any_fields(record_type, fields) for fields in _objects(body)
        ]
        if form == "ids":
            created = [record[record_type.id_field] for record in created]
        return json_response(created if isinstance(body, list) else created[0], 201)

    async def record(self, request: Request) -> Response:
        """Change a record as only the CRM itself can, or delete it."""
        record_type = self._record_type(request)
        record_id = parsed_id(request.path_params["record_id"])
        if request.method == "DELETE":
            self._state.store.delete(record_type, record_id)
            return Response(status_code=204)
        return json_response(
            self._state.store.write_any_fields(record_type, await object_body(request), record_id)
        )

    def _record_type(self, request: Request) -> RecordType:
        try:
            return self._state.store.record_types[request.path_params["record_type"]]
        except KeyError:
            raise NotFound("There is no such record type.") from None

    def _update_settings(self, given: dict[str, Any]) -> None:
        """Change settings. If one of them is invalid, none is changed.

        :raises BadRequest: if a key is unknown, or a value is of the wrong kind. The error names the key.
        """
        search_parsers = SearchBehaviour.parsers(self._state.store.record_types)
        parsers: dict[str, Callable[[Any], Any]] = {
            "clock_offset": lambda value: checked_number("clock_offset", value, -TEN_YEARS, TEN_YEARS),
            "record_times": lambda value: checked_choice("record_times", value, RECORD_TIMES_CHOICES),
            "fault": lambda value: None if value is None else Fault.parse(value),
            "shorten": lambda value: None if value is None else Shorten.parse(value),
            "cut": lambda value: None if value is None else Cut.parse(value),
            "requests_per_second": lambda value: checked_integer("requests_per_second", value),
            "requests_per_day": lambda value: checked_integer("requests_per_day", value),
            "no_access": self._checked_record_types,
            "not_in_plan": self._checked_record_types,
            "webhook": lambda value: parse_webhooks(value, self._state.store.record_types),
            **search_parsers,
        }
        if not given.keys() <= parsers.keys():
            raise BadRequest(f"A setting must be one of {', '.join(parsers)}.")
        settings = {name: parsers[name](value) for name, value in given.items()}
        clock = self._state.clock
        clock.offset = settings.pop("clock_offset", clock.offset)
        clock.record_times = settings.pop("record_times", clock.record_times)
        self._state.store.behaviour.update(
            {name: settings.pop(name) for name in search_parsers if name in settings}
        )
        if "webhook" in settings:
            self._state.webhooks.configure(settings.pop("webhook"))
        for name, value in settings.items():
            setattr(self._state.settings, name, value)

    def _checked_record_types(self, value: Any) -> tuple[str, ...]:
        known = self._state.store.record_types
        if not isinstance(value, list) or not all(isinstance(name, str) and name in known for name in value):
            raise BadRequest("no_access and not_in_plan must be lists of record types.")
        return tuple(value)


def _objects(body: Any) -> list[dict[str, Any]]:
    listed = body if isinstance(body, list) else [body]
    if not all(isinstance(one, dict) for one in listed):
        raise BadRequest("The body is not a JSON object, and not a list of JSON objects.")
    return listed
