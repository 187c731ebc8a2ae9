"""Builds the exact text of a webhook's body from a record.

The body is the same as in Insightly's own webhooks: the record's fields in the API's order under ``entity``,
with dates as Microsoft JSON dates with escaped slashes (``"\\/Date(1489132800000-0800)\\/"``). The text is
built once, and depends only on its input. Every attempt sends the same bytes.

A date without a time is written like the due date in Insightly's example: midnight in the account's zone,
with that zone's offset. So receivers that apply the offset get the same day. Dates without a time are texts
without a time (unless the field's name ends in ``_UTC``), and midnights in custom fields of the type
``DATE``. All other dates are instants: the API description calls all dates of records ``date-time``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Literal, TypedDict, cast

from airflow_insightly_hooks.core.dates import (
    api_time,
    day_of,
    format_ms_date,
    iso_time,
    parse_ms_date,
    start_of_day,
    time_zone,
)
from airflow_insightly_hooks.core.delivery.message_id import message_id_of
from airflow_insightly_hooks.core.detection.changes import EVENTS, RecordChange
from airflow_insightly_hooks.core.errors import InvalidPayload, InvalidTime, missing_keys
from airflow_insightly_hooks.core.exact_json import Literal as JSONText
from airflow_insightly_hooks.core.exact_json import check_json, dumps
from airflow_insightly_hooks.core.record_checks import check_lists
from airflow_insightly_hooks.core.records import (
    CUSTOM_FIELDS,
    OCCASION_DATE,
    OCCASIONS,
    RECORD_TYPES,
    custom_fields_in,
)
from airflow_insightly_hooks.core.xcom_address import not_a_list

__all__ = [
    "CHUNK_KEY",
    "DateFormat",
    "Payload",
    "UndeliverablePayload",
    "build_body",
    "build_payload",
    "check_date_format",
    "check_payloads",
    "format_ms_date",
    "parse_ms_date",
    "payload_of",
    "why_undeliverable",
]

CHUNK_KEY = "chunk_"
"""The beginning of the XCom keys of chunks of payloads; the chunk's number follows."""

DateFormat = Literal["microsoft", "iso8601"]
DATE_FORMATS: tuple[DateFormat, ...] = ("microsoft", "iso8601")

UTC_SUFFIX = "_UTC"
"""The ending of the names of fields that hold instants. In them, a date without a time is midnight UTC."""

_MESSAGE_ID = re.compile(r"[\w-]{1,64}", re.ASCII)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def check_date_format(date_format: str) -> None:
    """Raise ``ValueError`` unless it is one of the two formats."""
    if date_format not in DATE_FORMATS:
        raise ValueError(f"date_format must be one of {list(DATE_FORMATS)}, not {date_format!r}")


class _Payload(TypedDict):
    message_id: str
    record_type: str
    record_id: int
    event: str
    changed_at: str  # ISO 8601, UTC
    body: str  # the exact text that is POSTed


class Payload(_Payload, total=False):
    """A payload as it passes through XCom: what to send, and which change it reports."""

    earlier: str  # its entry in the ledger of the task that has left it (core.delivery.ledger)


class UndeliverablePayload(Payload):
    """The payload of a change from which no body can be built. It is never sent, and is reported."""

    undeliverable: str  # why; it holds no contents


def build_body(
    record: Mapping[str, Any],
    *,
    record_type: str | None = None,
    envelope: str = "entity",
    date_format: DateFormat = "microsoft",
    timezone: str = "America/Los_Angeles",
    fields: Sequence[str] | None = None,
    custom_date_fields: Collection[str] = (),
    custom_day_fields: Collection[str] = (),
) -> str:
    """Return the body of a webhook for ``record``, as JSON text without white space.

    :param record: the record as the API delivers it. The order of its fields is kept.
    :param record_type: the record type, which says which fields are dates; ``None``: the date fields of all
        record types. (No field name is a date in one type and something else in another.)
    :param envelope: the key of the object with the fields; with an empty text, the fields are at the top.
    :param date_format: ``microsoft``, as Insightly's webhooks write dates, or ``iso8601``.
    :param timezone: the IANA zone whose offset Microsoft JSON dates show. Insightly's example shows the
        offset of Los Angeles.
    :param fields: the names of the fields to send, in this order. Custom fields may be among them, and are
        then on the same level as other fields. A field that the record lacks is null. ``None`` sends the
        record as it is.
    :param custom_date_fields: the names of the custom fields that hold dates, from their metadata.
    :param custom_day_fields: the names of those that hold days (``FIELD_TYPE`` ``DATE``): in them, midnight
        means no time.
    :raises InvalidPayload: if no body can be built, because a number is not finite, values nest deeper than
        100 levels, or ``CUSTOMFIELDS`` or ``DATES`` are not lists of objects. It names the field.
    :raises UnknownRecordType: if ``record_type`` is not a known record type.
    :raises ValueError: if ``date_format`` is not one of the two.
    :raises ZoneInfoNotFoundError: if there is no such time zone.

    If the text in a date field is not a time, it is sent unchanged. Numbers are written as the API wrote
    them, if they were read with ``core.exact_json``.
    """
    check_lists(record)
    dates = _all_date_fields() if record_type is None else RECORD_TYPES[record_type].date_fields
    write_date = _DateWriter(date_format, timezone, custom_day_fields)
    entity: dict[str, Any] = {}
    for name, value in record.items() if fields is None else _selected(record, fields):
        if name in dates or name in custom_date_fields:
            entity[name] = write_date(name, value)
        elif name == CUSTOM_FIELDS and value:
            entity[name] = [_custom_field(custom, dates, custom_date_fields, write_date) for custom in value]
        elif name == OCCASIONS and value:
            entity[name] = [
                {
                    key: write_date(key, item) if key == OCCASION_DATE else item
                    for key, item in occasion.items()
                }
                for occasion in value
            ]
        else:
            entity[name] = value
    check_json(entity, "record", -1)
    text = dumps({envelope: entity} if envelope else entity, ensure_ascii=False)
    # A lone surrogate has no UTF-8; JSON's own escape keeps it exact.
    return _LONE_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _selected(record: Mapping[str, Any], fields: Iterable[str]) -> Iterable[tuple[str, Any]]:
    custom = dict(custom_fields_in(record))
    return [(name, record[name] if name in record else custom.get(name)) for name in fields]


def _custom_field(
    custom: Mapping[str, Any],
    dates: Collection[str],
    custom_dates: Collection[str],
    write_date: Callable[[str, Any], Any],
) -> dict[str, Any]:
    # A custom object's own times are among its custom fields, so these names are dates, too.
    name = custom["FIELD_NAME"]
    is_date = name in custom_dates or name in dates
    return {
        key: write_date(name, value) if is_date and key == "FIELD_VALUE" else value
        for key, value in custom.items()
    }


class _DateWriter:
    """Writes dates into bodies. Values that are not dates stay unchanged.

    :param days: the names of the custom fields in which midnight means no time.
    """

    def __init__(self, date_format: DateFormat, timezone: str, days: Collection[str]) -> None:
        # An invalid format or zone is found here, and not at the first date.
        check_date_format(date_format)
        time_zone(timezone)
        self._is_iso, self._timezone, self._days = date_format == "iso8601", timezone, days

    def __call__(self, name: str, value: Any) -> Any:
        """Return the value of the field ``name`` for a body."""
        day = None if name.endswith(UTC_SUFFIX) else day_of(value, at_midnight=name in self._days)
        if day is not None:
            return day.isoformat() if self._is_iso else self._microsoft(start_of_day(day, self._timezone))
        try:
            instant = api_time(value)
        except InvalidTime:
            return value
        return iso_time(instant) if self._is_iso else self._microsoft(instant)

    def _microsoft(self, instant: datetime) -> str:
        return JSONText(f'"{_escaped(format_ms_date(instant, self._timezone))}"')


def _escaped(text: str) -> str:
    return text.replace("/", r"\/")


@cache
def _all_date_fields() -> frozenset[str]:
    return frozenset().union(*(record_type.date_fields for record_type in RECORD_TYPES.values()))


def check_payloads(value: object) -> list[Payload]:
    """Return ``value``, a list of payloads as in ``BuildPayloadOperator``'s XCom.

    :raises InvalidPayload: if an item is not a payload, or two have the same message id.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InvalidPayload("payloads", not_a_list(value, "payloads"))
    ids: set[str] = set()
    for index, payload in enumerate(value):
        where = f"payloads[{index}]"
        if not isinstance(payload, Mapping):
            raise InvalidPayload(
                where,
                f"a payload is needed, not {type(payload).__name__} (for chunks, use .expand(payloads=…))",
            )
        if missing := missing_keys(payload, _Payload.__annotations__):
            raise InvalidPayload(where, f"it lacks {missing}")
        if not isinstance(payload.get("undeliverable", ""), str):
            raise InvalidPayload(where, "its undeliverable must be text")
        if not isinstance(payload["body"], str):
            raise InvalidPayload(where, "its body must be text")
        if not isinstance(payload.get("earlier", ""), str):
            raise InvalidPayload(where, "its earlier attempts must be text")
        if not isinstance(payload["message_id"], str) or not _MESSAGE_ID.fullmatch(payload["message_id"]):
            raise InvalidPayload(where, "its message_id must be 1 to 64 letters, digits, '_' or '-'")
        # Reports and logs name these, so they must be valid, and hold nothing of a record.
        if payload["record_type"] not in RECORD_TYPES or payload["event"] not in EVENTS:
            raise InvalidPayload(where, "its record_type or event is not one of Insightly's")
        if not isinstance(payload["record_id"], int):
            raise InvalidPayload(where, "its record_id must be a number")
        if payload["message_id"] in ids:
            raise InvalidPayload(where, "an earlier payload has the same message_id: give each its own")
        ids.add(payload["message_id"])
    return cast("list[Payload]", list(value))


def payload_of(change: RecordChange, scope: str, body: str) -> Payload:
    """Return the payload of a change.

    :param scope: what the message's id depends on besides the change.
    """
    return {
        "message_id": message_id_of(change, scope),
        "record_type": change["record_type"],
        "record_id": change["record_id"],
        "event": change["event"],
        "changed_at": change["changed_at"],
        "body": body,
    }


def build_payload(change: RecordChange, scope: str, record: Mapping[str, Any], **options: Any) -> Payload:
    """Return the payload of a change, or an undeliverable payload if no body can be built.

    :param scope: what the message's id depends on besides the change.
    :param record: the change's record, with its fields in the API's order.
    :param options: the options of ``build_body``.
    """
    reason = change.get("undeliverable")
    if reason is None:
        try:
            return payload_of(change, scope, build_body(record, record_type=change["record_type"], **options))
        except InvalidPayload as error:
            reason = str(error)
    payload: UndeliverablePayload = {**payload_of(change, scope, ""), "undeliverable": reason}
    return payload


def why_undeliverable(payload: Payload) -> str | None:
    """Return why a payload can't be sent; ``None`` if it can."""
    reason = cast("Mapping[str, Any]", payload).get("undeliverable")
    return reason if isinstance(reason, str) else None
