"""When a record was created and updated, according to the API.

A custom object's times may be among its custom fields. Some record types have no update time, and a custom
object may have neither time.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.errors import InvalidTime
from airflow_insightly_hooks.core.records import CREATED, UPDATED, RecordType, field_value

__all__ = ["RecordTimes", "has_time", "readable_times", "record_times", "time_fields"]

TIME_FIELDS = (CREATED, UPDATED)


class RecordTimes(NamedTuple):
    """A record's two times, in UTC; ``None`` if the record doesn't have the time."""

    created: datetime | None
    updated: datetime | None


def record_times(record: Mapping[str, Any], record_type: RecordType | None = None) -> RecordTimes:
    """Return when a record was created and updated.

    :param record_type: an error names it before the field; ``None``: the error names only the field.
    :raises InvalidTime: if one of the times can't be read.
    """
    return RecordTimes(_time(record, CREATED, record_type), _time(record, UPDATED, record_type))


def readable_times(record: Mapping[str, Any]) -> RecordTimes:
    """Return when a record was created and updated; ``None`` for a time that is missing or can't be read."""
    return RecordTimes(_readable_time(record, CREATED), _readable_time(record, UPDATED))


def has_time(record: Mapping[str, Any]) -> bool:
    """Return whether a record has the time of its creation or of its update."""
    return any(field_value(record, field) for field in TIME_FIELDS)


def time_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the two fields by name, with the record's values or ``None``."""
    return {field: field_value(record, field) for field in TIME_FIELDS}


def _time(record: Mapping[str, Any], field: str, record_type: RecordType | None) -> datetime | None:
    text = field_value(record, field)
    if not text:
        return None
    return api_time(text, field if record_type is None else f"{record_type.name}.{field}")


def _readable_time(record: Mapping[str, Any], field: str) -> datetime | None:
    try:
        return _time(record, field, None)
    except InvalidTime:
        return None
