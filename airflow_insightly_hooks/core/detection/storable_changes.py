"""Changes in a store of JSON that keeps neither the order of keys nor every character.

Changes pass from task to task through Airflow's metadata database. PostgreSQL's JSONB and MySQL's JSON give
an object's keys back in an order of their own, and JSONB holds neither NUL nor lone surrogates. A body has
its record's fields in the API's order; so what a store would lose is restored when the body is built: by
the order of the API description, which the table of record types has, and where a record isn't in that
order, or has such a character, from its exact text, kept beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from airflow_insightly_hooks.core.detection.changes import RecordChange
from airflow_insightly_hooks.core.records import LIST_ITEMS, RECORD_TYPES, RecordType

__all__ = ["exact_record", "storable"]

KEYS_OF_ITEMS: Mapping[str, tuple[str, ...]] = {
    "custom_fields": ("FIELD_NAME", "FIELD_VALUE", "CUSTOM_FIELD_ID"),
    **{kind: tuple(field.name for field in fields) for kind, fields in LIST_ITEMS.items()},
}
"""The keys of a list field's items in the API's order, by the field's kind."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(change: RecordChange) -> RecordChange:
    """Return the change in a form that any JSON store keeps; ``exact_record`` gives its record back.

    Characters that a store may refuse come out as U+FFFD in ``record``; then, and where its fields aren't in
    the API's order, the exact record is added as JSON text, ``record_json``.
    """
    record = change["record"]
    text = json.dumps(record)  # all ASCII: what a store may refuse is escaped twice over
    if _UNSTORABLE.search(json.dumps(record, ensure_ascii=False).replace("\\u0000", "\x00")):
        return {**change, "record": _without_unstorable(record), "record_json": text}
    if text != json.dumps(_in_api_order(RECORD_TYPES[change["record_type"]], record)):
        return {**change, "record_json": text}
    return change


def exact_record(change: RecordChange) -> dict[str, Any]:
    """Return the change's record as the API delivered it, whatever became of it in a store.

    A record that somebody has changed since then, to leave something out perhaps, is taken as it is.
    """
    if "record_json" in change:
        record: dict[str, Any] = json.loads(change["record_json"])
        if _without_unstorable(record) == change["record"]:
            return record
    return _in_api_order(RECORD_TYPES[change["record_type"]], change["record"])


def _in_api_order(record_type: RecordType, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record with its fields in the one order that depends on no store."""
    ordered = _in_order(record, record_type.fields)
    for name, value in ordered.items():
        field = record_type.fields.get(name)
        ordered[name] = _nested_in_order(value, KEYS_OF_ITEMS.get(field.kind, ()) if field else ())
    return ordered


def _nested_in_order(value: Any, keys: Collection[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _nested_in_order(item, ()) for key, item in _in_order(value, keys).items()}
    if isinstance(value, list):
        return [_nested_in_order(item, keys) for item in value]
    return value


def _in_order(items: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """Return the mapping with the known ``keys`` first, in their order, and the rest by name."""
    known = {key: items[key] for key in keys if key in items}
    return known | {key: items[key] for key in sorted(items) if key not in known}


def _without_unstorable(value: Any) -> Any:
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {_without_unstorable(key): _without_unstorable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_unstorable(item) for item in value]
    return value
