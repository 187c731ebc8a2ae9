"""The check of the fields that a client sends for a record, and their conversion to the API's notation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from airflow_insightly_hooks.core.records import CREATED, LIST_ITEMS, UPDATED, Field, RecordType
from airflow_insightly_hooks.sandbox.crm.clock import normalised_time
from airflow_insightly_hooks.sandbox.crm.custom_fields import CUSTOM_FIELDS, custom_field_entry
from airflow_insightly_hooks.sandbox.crm.error_answers import BadRequest

__all__ = ["LIST_KINDS", "RecordInput", "blank_value", "checked_time"]

LIST_KINDS = frozenset({*LIST_ITEMS, "custom_fields"})

_INTEGER_LIMITS = {"int32": 2**31, "int64": 2**63}
_LIST_ITEM = "list item"


class RecordInput:
    """Checks what clients send for records of one type.

    :param record_type: the record type.
    :param numbers: the last number that an item of a list got, and the last ``AUTONUMBER`` of each record
        type. This class counts on from them.
    """

    def __init__(self, record_type: RecordType, numbers: Counter[str]) -> None:
        self.record_type = record_type
        self._numbers = numbers
        self._custom_fields = {field.name: field for field in CUSTOM_FIELDS.get(record_type.name, ())}

    def checked(
        self, given: Mapping[str, Any], record: Mapping[str, Any], *, read_only: frozenset[str] = frozenset()
    ) -> dict[str, Any]:
        """Return the fields of ``given`` that are to be set, in the API's notation.

        Unknown fields and read-only fields are left out. The times of creation and update are left out, too.
        The API sets them itself, even if its description says that a client can.

        :param given: the fields that were sent.
        :param record: the record's current fields, at least its id. Its other custom fields stay.
        :param read_only: read-only fields that may be set nevertheless.
        :raises BadRequest: if a value is of the wrong kind or too long. The error names the field.
        """
        fields = self.record_type.fields
        return {
            name: self._checked_field(fields[name], value, record)
            for name, value in given.items()
            if name in fields
            and (name in read_only or not (fields[name].read_only or name in (CREATED, UPDATED)))
        }

    def check_required(
        self, record: Mapping[str, Any], given: Mapping[str, Any], *, only_given: bool = False
    ) -> None:
        """Check that ``record`` has the required fields.

        :param given: the fields that the client has sent. A required checkbox must be among them.
        :param only_given: whether only the fields in ``given`` are checked.
        :raises BadRequest: if a field is missing. The error names the first one.
        """
        for name, field in self.record_type.fields.items():
            if not field.required or field.read_only or (only_given and name not in given):
                continue
            value = given.get(name) if field.kind == "boolean" else record.get(name)
            if value is None or value == "":
                raise BadRequest(f"{name} is required.")

    def autonumbers(self) -> list[dict[str, Any]]:
        """Return the ``AUTONUMBER`` custom fields of a new record."""
        return [
            custom_field_entry(field.name, f"{self._next_number(self.record_type.name):05}")
            for field in self._custom_fields.values()
            if field.kind == "AUTONUMBER"
        ]

    def _checked_field(self, field: Field, value: Any, record: Mapping[str, Any]) -> Any:
        if field.kind == "custom_fields":
            return self._merged_custom_fields(value, record.get(field.name) or [])
        if value is None:
            return blank_value(field)
        if field.kind in LIST_ITEMS:
            return [self._checked_item(field, item, record) for item in _checked_list(field.name, value)]
        return _checked_value(field.name, field, value)

    def _checked_item(self, field: Field, item: Any, record: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(item, dict):
            raise BadRequest(f"{field.name} is not a list of objects.")
        checked = {}
        for part in LIST_ITEMS[field.kind]:
            where = f"{field.name}.{part.name}"
            value = item.get(part.name)
            if part.required and value in (None, ""):
                raise BadRequest(f"{where} is required.")
            if part.read_only:
                value = self._item_value(field, part, item, record)
            checked[part.name] = blank_value(part) if value is None else _checked_value(where, part, value)
        return checked

    def _item_value(
        self, field: Field, part: Field, item: Mapping[str, Any], record: Mapping[str, Any]
    ) -> Any:
        """Return the value that the API sets in an item of a list: its record's type or id, or its own id."""
        if part.name == "OBJECT_NAME":
            return self.record_type.title
        if part.name == "OBJECT_ID":
            return record[self.record_type.id_field]
        present = [present[part.name] for present in record.get(field.name) or []]
        return item[part.name] if item.get(part.name) in present else self._next_number(_LIST_ITEM)

    def _merged_custom_fields(self, given: Any, present: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the custom fields ``present`` with the ``given`` values. Null removes a custom field."""
        values = {entry["FIELD_NAME"]: entry["FIELD_VALUE"] for entry in present}
        kept = {name for name in values if name not in self._custom_fields or not self._is_writable(name)}
        if given is None:
            values = {name: value for name, value in values.items() if name in kept}
        for entry in _checked_list("CUSTOMFIELDS", [] if given is None else given):
            if not isinstance(entry, dict) or not isinstance(entry.get("FIELD_NAME"), str):
                raise BadRequest("CUSTOMFIELDS is not a list of objects with FIELD_NAME and FIELD_VALUE.")
            name, value = entry["FIELD_NAME"], entry.get("FIELD_VALUE")
            if name not in self._custom_fields or not self._is_writable(name):
                continue
            if value is None or value == "":
                values.pop(name, None)
                continue
            try:
                values[name] = self._custom_fields[name].normalised(value)
            except ValueError as error:
                raise BadRequest(f"{name} is not {error}.") from None
        order = {name: number for number, name in enumerate(self._custom_fields)}
        return [
            custom_field_entry(name, values[name])
            for name in sorted(values, key=lambda name: order.get(name, len(order)))
        ]

    def _next_number(self, numbered: str) -> int:
        self._numbers[numbered] += 1
        return self._numbers[numbered]

    def _is_writable(self, name: str) -> bool:
        return self._custom_fields[name].kind != "AUTONUMBER"


def blank_value(field: Field) -> Any:
    """Return the value that the API answers for an empty field."""
    if field.kind in LIST_KINDS:
        return []
    return False if field.kind == "boolean" else None


def checked_time(where: str, text: str) -> str:
    """Return a time in the API's notation.

    :raises BadRequest: if ``text`` is not a time. The error names ``where``.
    """
    try:
        return normalised_time(text)
    except ValueError as error:
        raise BadRequest(f"{where} is not {error}.") from None


def _checked_list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise BadRequest(f"{name} is not a list.")
    return value


def _checked_value(where: str, field: Field, value: Any) -> Any:
    """Check a value that is neither a list nor null, and return it in the API's notation.

    :raises BadRequest: if it is of the wrong kind or too long.
    """
    if field.kind == "boolean":
        if not isinstance(value, bool):
            raise BadRequest(f"{where} is not true or false.")
    elif field.kind in _INTEGER_LIMITS:
        limit = _INTEGER_LIMITS[field.kind]
        if isinstance(value, bool) or not isinstance(value, int) or not -limit <= value < limit:
            raise BadRequest(f"{where} is not a whole number ({field.kind}).")
    elif field.kind == "number":
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e18:
            raise BadRequest(f"{where} is not a number.")
    elif not isinstance(value, str):
        raise BadRequest(f"{where} is not a text.")
    elif field.kind == "datetime":
        return checked_time(where, value)
    elif field.length is not None and len(value) > field.length:
        raise BadRequest(f"{where} is longer than {field.length} characters.")
    return value
