"""A sample record to test a receiver with. Every text in it says that it is a test."""

from __future__ import annotations

from typing import Any

from airflow_insightly_hooks.core.records import RECORD_TYPES, Field

__all__ = ["sample_record"]

SOME_TIME = "2026-01-31 08:00:00"
SOME_VALUES = {"int32": 1, "int64": 1, "number": 1.5, "boolean": False, "datetime": SOME_TIME}


def sample_record(record_type: str) -> dict[str, Any]:
    """Return a record with a value in every field, in the API's order, as the API would deliver it.

    :raises UnknownRecordType: if there is no such record type.
    """
    return {name: _value(field) for name, field in RECORD_TYPES[record_type].fields.items()}


def _value(field: Field) -> Any:
    if field.kind != "text":
        return SOME_VALUES.get(field.kind, [])  # all other kinds are lists
    if "EMAIL" in field.name:
        return "test@example.com"
    if field.name.endswith(("_URL", "WEBSITE")):
        return "https://example.com/test"
    return f"Test {field.name.replace('_', ' ').lower()}"[: field.length]
