"""The parameters of a search: its filters, and the requested page of the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams

from airflow_insightly_hooks.core.records import Field, RecordType, field_value
from airflow_insightly_hooks.sandbox.crm.clock import normalised_time
from airflow_insightly_hooks.sandbox.crm.custom_fields import CUSTOM_FIELDS
from airflow_insightly_hooks.sandbox.crm.error_answers import BadRequest, NotFound
from airflow_insightly_hooks.sandbox.crm.record_input import LIST_KINDS, checked_time

__all__ = ["PageParameters", "boolean", "field_filter", "parsed_id", "updated_after"]

DEFAULT_TOP = 100
MAX_TOP = 500
BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True)
class PageParameters:
    """Which of the found records a response has, and in which form.

    :param skip: how many records are left out at the beginning.
    :param top: the largest number of records on the page.
    :param brief: whether the records lack the fields that hold lists.
    :param count_total: whether the response says how many records were found in all.
    """

    skip: int
    top: int
    brief: bool
    count_total: bool

    @classmethod
    def parse(cls, query: QueryParams) -> PageParameters:
        """Return the parameters in a query string.

        :raises BadRequest: if a parameter is invalid. The error names it.
        """
        return cls(
            skip=_whole_number(query, "skip", 0),
            top=min(_whole_number(query, "top", DEFAULT_TOP), MAX_TOP),
            brief=boolean(query, "brief"),
            count_total=boolean(query, "count_total"),
        )

    def apply_brief(self, record_type: RecordType, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return ``records``, without the fields that hold lists if ``brief`` is set."""
        if not self.brief:
            return records
        lists = {name for name, field in record_type.fields.items() if field.kind in LIST_KINDS}
        return [{name: value for name, value in record.items() if name not in lists} for record in records]


def updated_after(query: QueryParams) -> str | None:
    """Return ``updated_after_utc`` in the API's notation; ``None`` if it isn't given.

    :raises BadRequest: if it is not a time.
    """
    text = query.get("updated_after_utc")
    return None if text is None else checked_time("updated_after_utc", text)


def field_filter(record_type: RecordType, query: QueryParams) -> Callable[[dict[str, Any]], bool] | None:
    """Return whether a record has ``field_value`` in ``field_name``, as a function.

    :return: the function; ``None`` if both parameters are missing.
    :raises BadRequest: if one of them is missing, or the field can't be searched.
    """
    name, wanted = query.get("field_name"), query.get("field_value")
    if name is None and wanted is None:
        return None
    if name is None or wanted is None:
        raise BadRequest("field_name and field_value go together.")
    field = record_type.fields.get(name)
    custom_fields = {custom.name for custom in CUSTOM_FIELDS.get(record_type.name, ())}
    if (field is None and name not in custom_fields) or (field is not None and field.kind in LIST_KINDS):
        raise BadRequest(f"field_name is not a field of {record_type.name} that can be searched.")
    return lambda record: _equals(field, field_value(record, name), wanted)


def _equals(field: Field | None, value: Any, wanted: str) -> bool:
    if value is None:
        return wanted == ""
    if isinstance(value, bool):
        return BOOLEANS.get(wanted.lower()) is value
    if isinstance(value, (int, float)):
        try:
            return float(wanted) == value
        except ValueError:
            return False
    if field is None or field.kind == "datetime":
        try:
            return value == wanted or bool(value == normalised_time(wanted))
        except ValueError:
            return False
    return bool(value == wanted)


def _whole_number(query: QueryParams, name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadRequest(f"{name} is not a whole number from 0.")
    return int(text)


def parsed_id(text: str) -> int:
    """Return an id from a path.

    :raises NotFound: if ``text`` is not an id, because then there is no such path.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise NotFound
    return int(text)


def boolean(query: QueryParams, name: str) -> bool:
    """Return a parameter that is true or false, and false if it isn't given.

    :raises BadRequest: if it is something else. The error names it.
    """
    try:
        return BOOLEANS[query.get(name, "false").lower()]
    except KeyError:
        raise BadRequest(f"{name} is not true or false.") from None
