"""The parameters of a search, and the page of records that it asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams

from airflow_insightly_hooks.core.records import Field, RecordType, field_value
from airflow_insightly_hooks.sandbox.crm.api_errors import BadRequest
from airflow_insightly_hooks.sandbox.crm.clock import normalised_time
from airflow_insightly_hooks.sandbox.crm.custom_fields import CUSTOM_FIELDS
from airflow_insightly_hooks.sandbox.crm.record_input import LIST_KINDS, checked_time

__all__ = ["PageParameters", "field_filter", "updated_after"]

DEFAULT_TOP = 100
MAX_TOP = 500
BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True)
class PageParameters:
    """Which of the records found are answered, and how.

    :param skip: how many are left out at the beginning.
    :param top: how many at most.
    :param brief: whether lists are left out of each record.
    :param count_total: whether the answer tells how many there are in all.
    """

    skip: int
    top: int
    brief: bool
    count_total: bool

    @classmethod
    def parse(cls, query: QueryParams) -> PageParameters:
        """Read it from a query string.

        :raises BadRequest: naming the parameter that can't be read.
        """
        return cls(
            skip=_whole_number(query, "skip", 0),
            top=min(_whole_number(query, "top", DEFAULT_TOP), MAX_TOP),
            brief=_boolean(query, "brief"),
            count_total=_boolean(query, "count_total"),
        )

    def apply_brief(self, record_type: RecordType, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return ``records`` as they are answered."""
        if not self.brief:
            return records
        lists = {name for name, field in record_type.fields.items() if field.kind in LIST_KINDS}
        return [{name: value for name, value in record.items() if name not in lists} for record in records]


def updated_after(query: QueryParams) -> str | None:
    """Return ``updated_after_utc`` in the API's notation, ``None`` where it isn't given.

    :raises BadRequest: if it is no time.
    """
    text = query.get("updated_after_utc")
    return None if text is None else checked_time("updated_after_utc", text)


def field_filter(record_type: RecordType, query: QueryParams) -> Callable[[dict[str, Any]], bool] | None:
    """Return what ``field_name`` and ``field_value`` ask of a record, ``None`` where they aren't given.

    :raises BadRequest: if one of them is missing, or there is no such field.
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


def _boolean(query: QueryParams, name: str) -> bool:
    try:
        return BOOLEANS[query.get(name, "false").lower()]
    except KeyError:
        raise BadRequest(f"{name} is not true or false.") from None
