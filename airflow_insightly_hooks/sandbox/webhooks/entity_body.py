"""The body of a webhook, as Insightly writes it: the record's fields under ``entity``.

Dates are Microsoft JSON dates with escaped slashes and the offset of Los Angeles. In Insightly's example, the
time of the record's creation has milliseconds, which its API doesn't show. So the times of the change have
milliseconds here, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

from airflow_insightly_hooks.core import exact_json
from airflow_insightly_hooks.core.records import CREATED, OCCASION_DATE, UPDATED, RecordType, field_value
from airflow_insightly_hooks.sandbox.crm.custom_fields import CUSTOM_FIELDS
from airflow_insightly_hooks.sandbox.crm.record_store import RecordWrite
from airflow_insightly_hooks.sandbox.crm.record_table import Record

__all__ = ["entity_body", "times_of_change"]

ZONE = ZoneInfo("America/Los_Angeles")
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
FIRST_DAY = datetime(1, 1, 2, tzinfo=timezone.utc)
"""Los Angeles' time a day earlier would be before the year 1."""
MIDNIGHT = "00:00:00"
COMPLETED = "COMPLETED_DATE_UTC"


def times_of_change(write: RecordWrite) -> dict[str, datetime]:
    """Return the times that the CRM itself has set in a creation or an update, with microseconds.

    :returns: the times by the names of their fields.
    """
    names = {UPDATED}
    if write.previous is None:
        names.add(CREATED)
    if write.previous is None or not write.previous.get(COMPLETED):
        names.add(COMPLETED)
    return {name: write.moment for name in names if field_value(write.record, name) == write.record_time}


def entity_body(
    record_type: RecordType, record: Record, exact_times: Mapping[str, datetime] = MappingProxyType({})
) -> str:
    """Return the body for ``record``, as JSON text without white space.

    :param exact_times: exact times, by the names of their fields. The record has them in whole seconds.
    """
    custom_kinds = {field.name: field.kind for field in CUSTOM_FIELDS.get(record_type.name, ())}

    def date(name: str, value: Any) -> Any:
        return _date(exact_times[name]) if name in exact_times else _date_of(value)

    def custom_value(name: str, value: Any) -> Any:
        kind = custom_kinds.get(name)
        if kind in ("DATE", "DATETIME"):
            return _date_of(value, is_day=kind == "DATE")
        return date(name, value) if name in record_type.date_fields else value

    entity: dict[str, Any] = {}
    for name, value in record.items():
        field = record_type.fields.get(name)
        kind = field.kind if field else None
        if kind == "datetime":
            value = date(name, value)
        elif kind == "custom_fields":
            value = [
                {**item, "FIELD_VALUE": custom_value(item["FIELD_NAME"], item["FIELD_VALUE"])}
                for item in value
            ]
        elif kind == "dates":
            value = [{**item, OCCASION_DATE: _date_of(item[OCCASION_DATE])} for item in value]
        entity[name] = value
    return exact_json.dumps({"entity": entity}, ensure_ascii=False)


def _date_of(value: Any, *, is_day: bool = False) -> Any:
    """Return a time of the API as a Microsoft JSON date, and other values, such as blank ones, unchanged.

    :param is_day: whether midnight means a day. A day is written as its beginning in Los Angeles.
    """
    if not isinstance(value, str) or not value:
        return value
    moment = datetime.fromisoformat(value)
    return _date(moment.replace(tzinfo=ZONE if is_day and value.endswith(MIDNIGHT) else timezone.utc))


def _date(moment: datetime) -> exact_json.Literal:
    moment = moment.astimezone(timezone.utc)
    milliseconds = (moment - EPOCH) // timedelta(milliseconds=1)
    offset = max(moment, FIRST_DAY).astimezone(ZONE).utcoffset() or timedelta(0)
    minutes = round(offset.total_seconds() / 60)  # until 1883, the offset (local mean time) had seconds
    hours, minutes = divmod(abs(minutes), 60)  # always west of Greenwich
    return exact_json.Literal(rf'"\/Date({milliseconds}-{hours:02}{minutes:02})\/"')
