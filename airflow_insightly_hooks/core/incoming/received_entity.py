"""Reads the body of a webhook from Insightly: which record has changed, and when.

A body doesn't name the record type. So the type is derived from the fields: of the types whose id field the
body has, it is the type with the most of the body's fields. The id field of every custom object is
``RECORD_ID``, so for custom objects the webhook's URI must name the type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, NoReturn

from airflow_insightly_hooks.core.dates import api_time, parse_ms_date
from airflow_insightly_hooks.core.errors import InsightlyHooksError, InvalidPayload, InvalidTime
from airflow_insightly_hooks.core.exact_json import check_json, loads
from airflow_insightly_hooks.core.records import (
    CREATED,
    RECORD_TYPES,
    UPDATED,
    RecordType,
    field_value,
    is_record_id,
)

__all__ = ["ENVELOPE", "InvalidEntity", "ReceivedEntity", "body_time", "read_entity"]

ENVELOPE = "entity"


class InvalidEntity(InsightlyHooksError, ValueError):
    """A body is not the body of one of Insightly's webhooks.

    Cause: Raised when the body of a request is not JSON with a record under ``entity``, or its record type
    can't be determined.

    Remedy: Check what sends the request. For a custom object, name the type in the webhook's URI, as in
    ``?record_type=Invoice__c``.
    """


@dataclass(frozen=True)
class ReceivedEntity:
    """The contents of a webhook's body.

    :param record_type: the name of the record type in Insightly's API.
    :param record_id: the record's id.
    :param changed_at: when the record was updated, or else created, in UTC; ``None`` if it has neither time.
    :param record: the record's fields as they came.
    """

    record_type: str
    record_id: int
    changed_at: datetime | None
    record: dict[str, Any] = field(repr=False)  # personal data


def read_entity(body: bytes, record_type: str | None = None) -> ReceivedEntity:
    """Return the contents of a body.

    :param body: JSON in UTF-8, ``{"entity": {…}}``, as ``core.payload.build_body`` writes it.
    :param record_type: the record type that the webhook's URI names; ``None``: it is derived from the fields.
    :raises InvalidEntity: if the body is not valid, or its record type can't be determined.
    :raises UnknownRecordType: if there is no such record type.
    """
    named = RECORD_TYPES[record_type] if record_type is not None else None
    entity = _entity(body)
    kind = named or _kind_of(entity)
    record_id = entity.get(kind.id_field)
    if kind.id_field not in entity:
        raise InvalidEntity(
            f"it has no {kind.id_field}, as {kind.name} have: correct the record type in the webhook's URI"
        )
    if not is_record_id(record_id):
        raise InvalidEntity(f"{kind.id_field} must be a record's id: a positive whole number")
    changed_at = body_time(field_value(entity, UPDATED)) or body_time(field_value(entity, CREATED))
    return ReceivedEntity(kind.name, record_id, changed_at, entity)


def _entity(body: bytes) -> dict[str, Any]:
    try:
        read = loads(body.decode(), parse_constant=_refuse_constant)
    except ValueError:
        raise InvalidEntity("the body must be JSON in UTF-8") from None
    entity = read.get(ENVELOPE) if isinstance(read, dict) else None
    if not isinstance(entity, dict):
        raise InvalidEntity('the body must be a JSON object with the record under "entity"')
    try:
        check_json(entity, ENVELOPE, -1)
    except InvalidPayload as error:
        raise InvalidEntity(f"it can't be read: {error.reason}") from None
    return entity


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _kind_of(entity: Mapping[str, Any]) -> RecordType:
    """Return the record type with the most of these fields. If several have as many, the first one counts."""
    by_id_field = _by_id_field()
    candidates = [kind for name in entity for kind in by_id_field.get(name, ())]
    if not candidates:
        if RECORD_TYPES[_ANY_CUSTOM_OBJECT].id_field in entity:
            raise InvalidEntity(
                "the record of a custom object has no type: name it in the webhook's URI, as in "
                "?record_type=Invoice__c"
            )
        raise InvalidEntity("it has no field with a record's id, such as TASK_ID")
    return max(candidates, key=lambda kind: sum(name in kind.fields for name in entity))


_ANY_CUSTOM_OBJECT = "Any__c"


@cache
def _by_id_field() -> Mapping[str, list[RecordType]]:
    kinds: dict[str, list[RecordType]] = {}
    for kind in RECORD_TYPES.values():
        kinds.setdefault(kind.id_field, []).append(kind)
    return kinds


def body_time(value: object) -> datetime | None:
    """Return the time of a Microsoft JSON date or of an ISO 8601 text; ``None`` for anything else."""
    if not isinstance(value, str):
        return None
    try:
        return parse_ms_date(value) if "Date(" in value else api_time(value)
    except InvalidTime:
        return None
