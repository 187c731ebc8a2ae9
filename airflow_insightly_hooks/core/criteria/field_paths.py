"""Finds the values of a field that criteria name, and the field's kind.

A field is a record's own (``TITLE``), a custom one (``Region__c``), ``TAGS`` (the tags' names), or a dotted
path into nested data (``LINKS.ROLE``). Its values may be any JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from airflow_insightly_hooks.core.criteria.operators import OPERATORS, compared_kind
from airflow_insightly_hooks.core.errors import InvalidCriteria
from airflow_insightly_hooks.core.records import CUSTOM_FIELDS, LIST_ITEMS, RecordType
from airflow_insightly_hooks.core.suggestions import field_guess

__all__ = ["check_field", "custom_value", "flat", "is_custom", "is_plain", "is_tags", "values_of"]

TAGS = "TAGS"
TAG_NAMES = "TAGS.TAG_NAME"
CUSTOM_SUFFIX = "__c"

LISTS = frozenset({"custom_fields", *LIST_ITEMS})
NUMBERS = frozenset({"int32", "int64", "number"})
NEVER_FITS: Mapping[str, frozenset[str]] = {
    "anything": LISTS,
    "text": LISTS | {"boolean"},
    "checkbox": LISTS | NUMBERS | {"text", "datetime"},
    "number": LISTS | {"boolean", "datetime"},
    "date": LISTS | NUMBERS | {"boolean"},
    "presence": frozenset(),
}
"""By what an operator compares: the kinds of fields whose values it can never compare."""


def is_plain(field: str) -> bool:
    """Return whether a field is a record's own or a custom one, and not a path into nested data."""
    return field != TAGS and "." not in field


def is_tags(field: str) -> bool:
    """Return whether a field is the tags' names."""
    return field in (TAGS, TAG_NAMES)


def is_custom(field: str) -> bool:
    """Return whether a field is a custom one, by its name."""
    return field.endswith(CUSTOM_SUFFIX) and is_plain(field)


def custom_value(custom_fields: Any, name: str) -> Any:
    """Return a custom field's value; ``None`` if a record's custom fields don't have it."""
    try:
        for custom_field in custom_fields:
            if custom_field["FIELD_NAME"] == name:
                return custom_field["FIELD_VALUE"]
    except (KeyError, TypeError, IndexError):  # an item is not a custom field
        for custom_field in custom_fields if isinstance(custom_fields, list) else ():
            if isinstance(custom_field, Mapping) and custom_field.get("FIELD_NAME") == name:
                return custom_field.get("FIELD_VALUE")
    return None


def values_of(path: str) -> Callable[[Mapping[str, Any]], list[Any]]:
    """Return a function that returns a record's values at a dotted path, without blank ones."""
    name, *steps = (TAG_NAMES if path == TAGS else path).split(".")

    def values(record: Mapping[str, Any]) -> list[Any]:
        value = record.get(name)
        found = flat(custom_value(record.get(CUSTOM_FIELDS), name) if value is None else value)
        for step in steps:
            found = flat([value.get(step) for value in found if isinstance(value, Mapping)])
        return found

    return values


def flat(value: Any) -> list[Any]:
    """Return the value as a list: lists in it are flattened, and blanks (null, empty text) are left out."""
    found: list[Any] = []
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending.extend(reversed(value))
        elif value is not None and value != "":
            found.append(value)
    return found


def check_field(record_type: RecordType, field: str, operator: str, value: Any, path: str) -> None:
    """Check that records of this type can have a field, and that an operator can compare its values.

    :param value: the condition's value, if the operator takes a value.
    :param path: the condition's place in the criteria.
    :raises InvalidCriteria: if not. Custom fields, which depend on the account, are taken to be right.
    """
    name = field.split(".")[0]
    known = [*record_type.fields, *record_type.date_fields, TAGS]
    if name not in known and not name.endswith(CUSTOM_SUFFIX):
        raise InvalidCriteria(
            f"{path}.field", f"{record_type.name} have no field {name!r}{field_guess(name, known)}"
        )
    kind = _kind(record_type, field)
    compared = compared_kind(OPERATORS[operator], value)
    if kind not in NEVER_FITS[compared]:
        return
    reason = f"{field} is of the kind {kind}, which {operator!r} can't compare"
    if compared in ("number", "date"):
        reason += f" with a {compared}"
    elif kind in LISTS:
        reason += "; name a field of its items, or use is_blank or is_not_blank"
    raise InvalidCriteria(f"{path}.operator", reason)


def _kind(record_type: RecordType, field: str) -> str | None:
    """Return a field's kind; ``None`` if it can't be known."""
    if is_tags(field):
        return "text"
    name, *steps = field.split(".")
    if name in record_type.fields:
        kind = record_type.fields[name].kind
    elif name in record_type.date_fields:
        kind = "datetime"
    else:
        return None
    if not steps:
        return kind
    items = {item.name: item.kind for item in LIST_ITEMS.get(kind, ())}
    return items.get(".".join(steps))
