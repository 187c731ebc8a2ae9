"""Checks that a body can be built from a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_insightly_hooks.core.errors import InvalidPayload
from airflow_insightly_hooks.core.exact_json import check_json, kind_of
from airflow_insightly_hooks.core.records import CUSTOM_FIELDS, OCCASIONS

__all__ = ["check_lists", "check_record"]


def check_record(record: Mapping[str, Any]) -> None:
    """Check that a body can be built from a record.

    :raises InvalidPayload: if not. It names the field and the types of values, and nothing else of the
        record.
    """
    check_lists(record)
    check_json(record, "record", -1)


def check_lists(record: Mapping[str, Any]) -> None:
    """Check that the two lists that may hold dates are lists of objects.

    :raises InvalidPayload: if not.
    """
    for name in (CUSTOM_FIELDS, OCCASIONS):
        items = record.get(name)
        if items is None:
            continue
        if not isinstance(items, list | tuple):
            raise InvalidPayload(name, f"it must be a list, not {kind_of(items)}")
        for index, item in enumerate(items):
            if not isinstance(item, Mapping):
                raise InvalidPayload(f"{name}[{index}]", f"it must be an object, not {kind_of(item)}")
            if name == CUSTOM_FIELDS and not isinstance(item.get("FIELD_NAME"), str):
                found = kind_of(item["FIELD_NAME"]) if "FIELD_NAME" in item else "absent"
                raise InvalidPayload(f"{name}[{index}].FIELD_NAME", f"it must be text, not {found}")
