"""Makes a change from a kept webhook, in the form of the sensor's changes.

The record's Microsoft JSON dates become times as Insightly's API writes them, in whole seconds. If a text of
a custom field looks like such a date, it counts as a date, because a body doesn't have the fields' types.

A body doesn't say either whether the record was added or updated. This package decides it so: a record was
added if its times of creation and update are less than a second apart. Otherwise it was updated. The change's
time is the time of the creation or the update, in whole seconds, as in the sensor's changes. So its message
has the same id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.dates import iso_time, parse_ms_date
from airflow_insightly_hooks.core.detection.changes import NO_ID, Event, RecordChange, checked_change
from airflow_insightly_hooks.core.errors import InvalidTime
from airflow_insightly_hooks.core.incoming.kept_entity import InvalidKeptEntity, KeptEntity, KeptName
from airflow_insightly_hooks.core.incoming.received_entity import body_time
from airflow_insightly_hooks.core.records import (
    CREATED,
    CUSTOM_FIELDS,
    OCCASION_DATE,
    OCCASIONS,
    UPDATED,
    RecordType,
    field_value,
    is_record_id,
)

__all__ = ["ReceivedChange", "latest_changes", "received_change", "record_as_of_api", "unreadable_change"]

AT_ONCE = timedelta(seconds=1)
"""If a record was updated less than this after its creation, it was only added."""


class ReceivedChange(NamedTuple):
    """A change, and the values by which changes are sorted."""

    changed_at: datetime
    name: KeptName
    change: RecordChange


def received_change(name: KeptName, kept: KeptEntity, record_type: RecordType) -> ReceivedChange:
    """Return the change that a kept webhook reports, or an undeliverable change if no body can be built.

    :raises InvalidKeptEntity: if the object's record or type is another one than its name says.
    """
    record_id = kept.record.get(record_type.id_field)
    if kept.record_type != record_type.name or not kept.record_id == record_id == name.record_id:
        raise InvalidKeptEntity("its record is another one than its name says")
    created = body_time(field_value(kept.record, CREATED))
    updated = body_time(field_value(kept.record, UPDATED))
    event: Event = "updated"
    moment = updated or created or name.received_at
    if created is not None and (updated is None or abs(updated - created) < AT_ONCE):
        event, moment = "added", created
    # If the record has no time, the time of the change is not known. Then two webhooks are two changes.
    has_time = created is not None or updated is not None
    change: RecordChange = {
        "record_type": record_type.name,
        "record_id": name.record_id,
        "event": event,
        "changed_at": iso_time(moment.replace(microsecond=0) if has_time else moment),
        "record": record_as_of_api(kept.record, record_type),
    }
    return ReceivedChange(updated or moment, name, checked_change(change))


def unreadable_change(name: KeptName, record_type: RecordType, reason: str) -> ReceivedChange:
    """Return an undeliverable change for a webhook whose object can't be read.

    :param reason: why it can't be read; it holds nothing of the contents.
    """
    change: RecordChange = {
        "record_type": record_type.name,
        "record_id": name.record_id if is_record_id(name.record_id) else NO_ID,
        "event": "updated",
        "changed_at": iso_time(name.received_at),
        "record": {},
        "undeliverable": f"the webhook kept as {name} can't be read: {reason}",
    }
    return ReceivedChange(name.received_at, name, change)


def latest_changes(changes: Iterable[ReceivedChange]) -> list[RecordChange]:
    """Return the changes, the oldest first. Of several with the same record, event and second, only the
    latest.

    Such changes are one change in Insightly's API, and one message for a receiver. For example, a webhook may
    come twice.
    """
    latest: dict[tuple[int, str, str], ReceivedChange] = {}
    for found in sorted(changes, key=lambda found: (found.changed_at, found.name)):
        change = found.change
        latest[change["record_id"], change["event"], change["changed_at"]] = found
    in_order = sorted(latest.values(), key=lambda found: (found.changed_at, found.name))
    return [found.change for found in in_order]


def record_as_of_api(record: Mapping[str, Any], record_type: RecordType) -> dict[str, Any]:
    """Return a webhook's record with its dates as the API writes them."""
    as_of_api: dict[str, Any] = {}
    for name, value in record.items():
        if name in record_type.date_fields:
            as_of_api[name] = _api_text(value)
        elif name == CUSTOM_FIELDS:
            as_of_api[name] = _with_times(value, "FIELD_VALUE")
        elif name == OCCASIONS:
            as_of_api[name] = _with_times(value, OCCASION_DATE)
        else:
            as_of_api[name] = value
    return as_of_api


def _with_times(items: Any, key: str) -> Any:
    """Return a list of objects, with the times under ``key`` as the API writes them."""
    if not isinstance(items, list):
        return items
    return [{**item, key: _api_text(item[key])} if _has(item, key) else item for item in items]


def _has(item: object, key: str) -> bool:
    return isinstance(item, Mapping) and key in item


def _api_text(value: Any) -> Any:
    if not isinstance(value, str) or "Date(" not in value:
        return value
    try:
        moment = parse_ms_date(value)
    except InvalidTime:
        return value
    return moment.replace(microsecond=0, tzinfo=None).isoformat(" ")
