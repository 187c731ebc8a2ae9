"""Makes changes storable in a JSON store that keeps neither the order of keys nor every character.

Changes pass from task to task through Airflow's metadata database. PostgreSQL's JSONB and MySQL's JSON return
an object's keys in an order of their own. JSONB holds neither NUL nor lone surrogates. It returns ``1e20`` as
an integer, which has too many digits for the protocol between Airflow's tasks and its API server, and
``-0.0`` without its sign. Airflow itself uses keys such as ``__classname__`` for other purposes.

A body has its record's fields in the API's order, and its numbers as they were written. So these are restored
when the body is built. Usually the order comes from the API description, which is in the table of record
types. If a record isn't in that order, or holds anything of the above, its exact text is kept beside it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from airflow_insightly_hooks.core import exact_json
from airflow_insightly_hooks.core.detection.changes import RecordChange
from airflow_insightly_hooks.core.exact_json import ExactNumber
from airflow_insightly_hooks.core.records import LIST_ITEMS, RECORD_TYPES, RecordType

__all__ = ["exact_record", "record_of", "storable"]

KEYS_OF_ITEMS: Mapping[str, tuple[str, ...]] = {
    "custom_fields": ("FIELD_NAME", "FIELD_VALUE", "CUSTOM_FIELD_ID"),
    **{kind: tuple(field.name for field in fields) for kind, fields in LIST_ITEMS.items()},
}
"""The keys of a list field's items in the API's order, by the field's kind."""

LARGEST_INTEGER = 2**63 - 1
LARGEST_FLOAT = 1e16
"""From this number on, Python writes floats with an exponent, and JSONB returns them as integers."""
RESERVED = "__"
"""The beginning of keys that Airflow uses for other purposes."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_SUSPICIOUS = re.compile(r'[0-9]{19}|[0-9]e\+|-0\.0|"__')
"""Matches the JSON text of a record in which a number or a key may be lost. It may match without a loss."""


def storable(change: RecordChange) -> RecordChange:
    """Return the change in a form that any JSON store keeps; ``exact_record`` returns its original record.

    In ``record``, characters that a store may refuse are replaced by U+FFFD, and U+FFFD is added before keys
    that Airflow uses for other purposes. Numbers become the nearest numbers that a store keeps, or else
    texts. If anything was replaced, or if the fields aren't in the API's order, the exact record is added as
    JSON text under ``record_json``.
    """
    record = change["record"]
    # The text is ASCII only, so characters that a store may refuse are escaped in it.
    if exact_json.has_text(record):
        return {**change, "record": _without_unstorable(record), "record_json": exact_json.dumps(record)}
    text = json.dumps(record)
    if _SUSPICIOUS.search(text):
        return {**change, "record": _without_unstorable(record), "record_json": text}
    if "\\u" in text and _UNSTORABLE.search(
        json.dumps(record, ensure_ascii=False).replace("\\u0000", "\x00")
    ):
        return {**change, "record": _without_unstorable(record), "record_json": text}
    if text != json.dumps(_in_api_order(RECORD_TYPES[change["record_type"]], record)):
        return {**change, "record_json": text}
    return change


def exact_record(change: RecordChange) -> dict[str, Any]:
    """Return the change's record as the API delivered it, even if a store has altered it.

    If a user's task has changed the record since then, for example to remove something, it is returned as it
    is.
    """
    record = record_of(change)
    if record is change["record"]:
        return _in_api_order(RECORD_TYPES[change["record_type"]], record)
    return record


def record_of(change: RecordChange) -> dict[str, Any]:
    """Return the change's record with its exact values, its fields in any order."""
    if "record_json" in change:
        record: dict[str, Any] = exact_json.loads(change["record_json"])
        if _without_unstorable(record) == change["record"]:
            return record
    return change["record"]


def _in_api_order(record_type: RecordType, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record with its fields in the one order that doesn't depend on a store."""
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
        return {_storable_key(key): _without_unstorable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_unstorable(item) for item in value]
    return _storable_number(value) if type(value) in (int, float, ExactNumber) else value


def _storable_key(key: str) -> str:
    key = _UNSTORABLE.sub("\ufffd", key)
    return f"\ufffd{key}" if key.startswith(RESERVED) else key


def _storable_number(number: float) -> float | str:
    """Return the nearest number that a store returns unchanged; a text if there is no such number."""
    if isinstance(number, int):
        return number if abs(number) <= LARGEST_INTEGER else str(number)
    if math.isfinite(number) and abs(number) < LARGEST_FLOAT:
        return float(number) + 0.0  # no -0.0
    return number.text if isinstance(number, ExactNumber) else repr(number)
