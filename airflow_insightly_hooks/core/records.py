"""Insightly's record types: names, ids, dates and fields.

They are in ``record_types.json`` beside this module. ``tools/record_types.py`` makes this file from
Insightly's API description v3.1, and ``tests/sandbox/test_contract.py`` compares the two. In the file, a
field is its kind, its length if it has one, and ``required`` or ``read-only``: ``"FIRST_NAME": "text(255)
required"``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeGuard

from airflow_insightly_hooks.core.errors import UnknownRecordType

__all__ = [
    "CREATED",
    "CUSTOM_FIELDS",
    "LIST_ITEMS",
    "OCCASIONS",
    "OCCASION_DATE",
    "RECORD_TYPES",
    "UPDATED",
    "Field",
    "RecordType",
    "custom_fields_in",
    "field_value",
    "is_record_id",
    "record_id_in",
    "record_reference",
    "unknown_fields",
]

CREATED = "DATE_CREATED_UTC"
UPDATED = "DATE_UPDATED_UTC"
CUSTOM_FIELDS = "CUSTOMFIELDS"
OCCASIONS = "DATES"
OCCASION_DATE = "OCCASION_DATE"
CUSTOM_OBJECT_SUFFIX = "__c"

_FIELD = re.compile(
    r"(?P<kind>[a-z0-9_]+)(\((?P<length>\d+)\))?(?P<required> required)?(?P<read_only> read-only)?"
)


@dataclass(frozen=True)
class Field:
    """A field of a record type.

    :param name: the name in the API, such as ``DUE_DATE``.
    :param kind: ``int32``, ``int64``, ``number``, ``text``, ``boolean``, ``datetime``, or one of the
        lists ``custom_fields``, ``tags``, ``links``, ``dates``, ``email_domains``.
    :param length: how many characters a text may have; ``None`` if the API has no limit.
    :param required: whether every record has it.
    :param read_only: whether only the API sets it, and ignores a client's value.
    """

    name: str
    kind: str
    length: int | None = None
    required: bool = False
    read_only: bool = False

    @classmethod
    def parse(cls, name: str, facts: str) -> Field:
        """Return the field that a text of the table means, such as ``text(255) required``."""
        match = _FIELD.fullmatch(facts)
        if match is None:
            raise ValueError(f"{name}: {facts!r} is not a field of record_types.json")
        length = match["length"]
        return cls(
            name,
            match["kind"],
            int(length) if length else None,
            bool(match["required"]),
            bool(match["read_only"]),
        )


LIST_ITEMS: Mapping[str, tuple[Field, ...]] = {
    "tags": (Field("TAG_NAME", "text", 255, required=True),),
    "links": (
        Field("LINK_ID", "int64", read_only=True),
        Field("OBJECT_NAME", "text", read_only=True),
        Field("OBJECT_ID", "int64", read_only=True),
        Field("LINK_OBJECT_NAME", "text", required=True),
        Field("LINK_OBJECT_ID", "int64", required=True),
        Field("ROLE", "text", 255),
        Field("DETAILS", "text", 255),
        Field("RELATIONSHIP_ID", "int64"),
        Field("IS_FORWARD", "boolean"),
    ),
    "dates": (
        Field("DATE_ID", "int64", read_only=True),
        Field("OCCASION_NAME", "text", 255),
        Field("OCCASION_DATE", "datetime"),
        Field("REPEAT_YEARLY", "boolean"),
        Field("CREATE_TASK_YEARLY", "boolean"),
    ),
    "email_domains": (
        Field("EMAIL_DOMAIN_ID", "int64", read_only=True),
        Field("EMAIL_DOMAIN", "text", 255, required=True),
    ),
}
"""By the kind of a list field: the fields of its items, in the order of the API description.

``CUSTOMFIELDS`` is not here, because a custom field's kind depends on the account.
"""


@dataclass(frozen=True)
class RecordType:
    """A record type of Insightly's API.

    :param name: its name in the API's paths: ``Contacts``, ``Ticket``, ``Invoice__c``.
    :param title: the name of one record: ``Contact``.
    :param methods: which of ``POST``, ``PUT``, ``DELETE`` the API has for these records.
    :param parents: the record types under whose paths such a record can be created
        (``/Projects/{id}/Milestones``).
    :param fields: the fields by name, in the API's order. The first one is the record's id.
    """

    name: str
    title: str
    methods: frozenset[str]
    parents: tuple[str, ...]
    fields: Mapping[str, Field]

    @property
    def path(self) -> str:
        """The path below the API's base, such as ``/Contacts``."""
        return f"/{self.name}"

    @cached_property
    def id_field(self) -> str:
        """The name of the field that holds a record's id."""
        return next(iter(self.fields))

    @property
    def is_custom_object(self) -> bool:
        """Whether it is a custom object of an account (``Invoice__c``)."""
        return self.name.endswith(CUSTOM_OBJECT_SUFFIX)

    @property
    def has_updates(self) -> bool:
        """Whether records have the time of their update. Emails and DocumentTemplates don't have it.

        Custom objects have it among their custom fields, which the API description can't show.
        """
        return UPDATED in self.fields or self.is_custom_object

    @cached_property
    def date_fields(self) -> frozenset[str]:
        """The fields that hold a time."""
        dates = {name for name, field in self.fields.items() if field.kind == "datetime"}
        return frozenset(dates | {UPDATED}) if self.is_custom_object else frozenset(dates)


class _RecordTypes(Mapping[str, RecordType]):
    """The record types of the API by name; any name that ends in ``__c`` is a custom object."""

    @cached_property
    def _table(self) -> dict[str, Any]:
        table: dict[str, Any] = json.loads(Path(__file__).with_name("record_types.json").read_text())
        return table

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(name for name in self._table if name != CUSTOM_OBJECT_SUFFIX)

    def __getitem__(self, name: str) -> RecordType:
        """Return the record type.

        :raises UnknownRecordType: if there is no record type with this name.
        """
        return _record_type(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._names or _is_custom_object_name(name))

    def __iter__(self) -> Iterator[str]:
        """Iterate over the 27 names that every account has."""
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


RECORD_TYPES = _RecordTypes()
"""Every record type of Insightly's API v3.1, by name. The table is read when it is first used."""


@lru_cache(maxsize=1_000)
def _record_type(name: str) -> RecordType:
    if name not in RECORD_TYPES:
        raise UnknownRecordType(name, RECORD_TYPES._names)
    facts = RECORD_TYPES._table[CUSTOM_OBJECT_SUFFIX if _is_custom_object_name(name) else name]
    return RecordType(
        name=name,
        title=name if _is_custom_object_name(name) else facts["title"],
        methods=frozenset(facts["methods"].split()),
        parents=tuple(facts.get("parents", "").split()),
        fields={field: Field.parse(field, text) for field, text in facts["fields"].items()},
    )


def _is_custom_object_name(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z]\w*__c", name) is not None


def is_record_id(value: object) -> TypeGuard[int]:
    """Return whether a value can be a record's id: a positive int64, as in the API."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63


def record_id_in(text: str) -> int | None:
    """Read a record's id from a text; return ``None`` if the text is not a record's id."""
    record_id = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None
    return record_id if is_record_id(record_id) else None


def record_reference(text: str) -> tuple[str | None, int]:
    """Return the record type, or ``None``, and the id in a text such as ``7`` or ``Contacts:7``.

    :raises ValueError: if there is no id. The text says what is needed.
    :raises UnknownRecordType: if there is no such record type.
    """
    record_type, _, number = (part.strip() for part in text.rpartition(":"))
    record_id = record_id_in(number)
    if record_id is None:
        raise ValueError("a record's id is needed, as in 7 or Contacts:7")
    return RECORD_TYPES[record_type].name if record_type else None, record_id


def unknown_fields(
    record_type: RecordType, records: Iterable[Mapping[str, Any]], names: Iterable[str]
) -> list[str]:
    """Return those of the ``names`` that neither the record type nor any of the records has.

    Custom fields, whose names end in ``__c``, never count as unknown: records don't show blank custom fields.
    """
    missing = [n for n in names if n not in record_type.fields and not n.endswith(CUSTOM_OBJECT_SUFFIX)]
    seen: set[str] = set()
    for record in records if missing else ():
        seen.update(record)
        seen.update(name for name, _ in custom_fields_in(record))
    return sorted(set(missing) - seen)


def field_value(record: Mapping[str, Any], name: str) -> Any:
    """Return a record's field, or else its custom field with this name, or else ``None``.

    An empty custom field is missing in ``CUSTOMFIELDS``, or is null there. In both cases, the result is
    ``None``. A custom object's times may be among its custom fields, also if the record has an empty field
    with this name.
    """
    if record.get(name) is not None:
        return record[name]
    for custom_name, value in custom_fields_in(record):
        if custom_name == name:
            return value
    return None


def custom_fields_in(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of a record's custom fields. Items of other forms are skipped."""
    items = record.get(CUSTOM_FIELDS)
    for item in items if isinstance(items, list) else ():
        if isinstance(item, Mapping) and isinstance(item.get("FIELD_NAME"), str):
            yield item["FIELD_NAME"], item.get("FIELD_VALUE")
