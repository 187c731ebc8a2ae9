"""A record -> the exact text of a webhook's body.

The body is what Insightly's own webhooks send: the record's fields in the API's order under ``entity``,
dates as Microsoft JSON dates with escaped slashes (``"\\/Date(1489132800000-0800)\\/"``). The text is made
once, deterministically; every attempt sends the same bytes.

A date without a time is written as the due date of Insightly's example: midnight in the account's zone, with
that zone's offset. So it is the same day for receivers that apply the offset. Such are texts without a time
(unless the field's name ends in ``_UTC``), and midnights of custom fields of the type ``DATE``. All else is
an instant: the API description calls all dates of records ``date-time``.
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
"""How the XCom keys of chunks of payloads begin; their numbers follow."""

DateFormat = Literal["microsoft", "iso8601"]
DATE_FORMATS: tuple[DateFormat, ...] = ("microsoft", "iso8601")

UTC_SUFFIX = "_UTC"
"""What the names of fields end in that hold instants: a date alone is midnight UTC there."""

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
    """A payload as it passes through XCom: what to send, and which change it tells of."""

    earlier: str  # what another task's ledger has of it (core.delivery.ledger), where that has left it


class UndeliverablePayload(Payload):
    """What stands for a change of which no body can be built: it is never sent, and reported."""

    undeliverable: str  # why; no contents


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
    """Return the body of a webhook that tells of ``record``, as JSON text without white space.

    :param record: as the API delivers it; its order of fields is kept.
    :param record_type: its record type, which says which fields are dates; ``None`` takes the date fields
        of all record types (no name is a date in one and something else in another).
    :param envelope: the key that the fields stand under; an empty text puts them at the top.
    :param date_format: ``microsoft`` as Insightly's webhooks write them, or ``iso8601``.
    :param timezone: the IANA zone whose offset Microsoft JSON dates show; Insightly's example shows that
        of Los Angeles.
    :param fields: the names to send, in this order, custom fields included (they come out on top, by
        their names); blank where the record lacks one. ``None`` sends the record as it is.
    :param custom_date_fields: the names of the custom fields that hold dates, from their metadata.
    :param custom_day_fields: those of them that hold days (``FIELD_TYPE`` ``DATE``): midnight means no time.
    :raises InvalidPayload: if no body can be built: a number is not finite, values nest deeper than 100
        levels, ``CUSTOMFIELDS`` or ``DATES`` are no lists of objects; it names the field.
    :raises UnknownRecordType: if ``record_type`` is not a known record type.
    :raises ValueError: if ``date_format`` is not one of the two.
    :raises ZoneInfoNotFoundError: if there is no such time zone.

    A date field whose text is no time is sent as it is: the receiver gets what the API delivered. Numbers are
    written as the API has written them, if ``core.exact_json`` has read them.
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
    # A custom object's own times stand among its custom fields, hence dates too.
    name = custom["FIELD_NAME"]
    is_date = name in custom_dates or name in dates
    return {
        key: write_date(name, value) if is_date and key == "FIELD_VALUE" else value
        for key, value in custom.items()
    }


class _DateWriter:
    """Writes dates into bodies; what is no date stays as it is.

    :param days: the names of the custom fields whose midnights mean no time.
    """

    def __init__(self, date_format: DateFormat, timezone: str, days: Collection[str]) -> None:
        # A format or a zone that is none is found here, not at the first date.
        check_date_format(date_format)
        time_zone(timezone)
        self._is_iso, self._timezone, self._days = date_format == "iso8601", timezone, days

    def __call__(self, name: str, value: Any) -> Any:
        """Return the value of the field ``name`` as a body has it."""
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
    """Return ``value``, a list of payloads as ``BuildPayloadOperator``'s XCom holds it.

    :raises InvalidPayload: if an item is not a payload, or two have the same message id.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InvalidPayload("payloads", not_a_list(value, "payloads"))
    ids: set[str] = set()
    for index, payload in enumerate(value):
        where = f"payloads[{index}]"
        if not isinstance(payload, Mapping):
            raise InvalidPayload(
                where, f"a payload is needed, not {type(payload).__name__} (chunks go to .expand(payloads=…))"
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
        # What a report and a log line name must be what it says, and nothing of a record.
        if payload["record_type"] not in RECORD_TYPES or payload["event"] not in EVENTS:
            raise InvalidPayload(where, "its record_type or event is none of Insightly's")
        if not isinstance(payload["record_id"], int):
            raise InvalidPayload(where, "its record_id must be a number")
        if payload["message_id"] in ids:
            raise InvalidPayload(where, "its message_id is that of an earlier one")
        ids.add(payload["message_id"])
    return cast("list[Payload]", list(value))


def payload_of(change: RecordChange, scope: str, body: str) -> Payload:
    """Return the payload of a change.

    :param scope: what the message's id belongs to, besides the change.
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
    """Return the payload of a change, or what stands for it if no body can be built.

    :param scope: what the message's id belongs to, besides the change.
    :param record: the change's record, its fields in the API's order.
    :param options: ``build_body``'s.
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
