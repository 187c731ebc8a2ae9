"""The block of the extra fields in connections, from ``hooks/connection_fields.py``."""

from __future__ import annotations

import json

from airflow_insightly_hooks.hooks.connection_fields import CONNECTION_FIELDS
from blocks.markdown import table


def block(connection_type: str) -> str:
    """Return the fields of a connection type.

    :raises ValueError: if a field is not described.
    """
    rows = []
    for field in CONNECTION_FIELDS[connection_type]:
        meaning = f"{field.description} {field.details}".strip()
        if not meaning:
            raise ValueError(f"{connection_type}: the field {field.name} needs a description or details")
        default = "" if field.default is None else f"`{_as_typed(field.default)}`"
        rows.append((f"`{field.name}`", field.label, field.kind, default, meaning))
    return table(("field of extra", "in the form", "type", "default", "meaning"), rows)


def _as_typed(default: str | float | bool) -> str:
    return default if isinstance(default, str) else json.dumps(default)
