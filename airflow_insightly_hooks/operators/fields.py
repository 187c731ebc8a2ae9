"""Field names that no record has: most often a slip of the pen, which nothing else would show."""

from __future__ import annotations

from collections.abc import Iterable
from logging import Logger
from typing import Any

from airflow_insightly_hooks.core.changes import RecordChange
from airflow_insightly_hooks.core.errors import did_you_mean
from airflow_insightly_hooks.core.records import RECORD_TYPES, unknown_fields

__all__ = ["warn_of_unknown_fields"]


def warn_of_unknown_fields(log: Logger | Any, changes: list[RecordChange], names: Iterable[str]) -> None:
    """Log a warning for each name that is a field of neither the record type nor any of the records."""
    for record_type in sorted({change["record_type"] for change in changes}):
        records = [change["record"] for change in changes if change["record_type"] == record_type]
        kind = RECORD_TYPES[record_type]
        for name in unknown_fields(kind, records, names):
            guess = did_you_mean(name, kind.fields)
            log.warning("No record of %s has a field %s: it counts as blank%s", record_type, name, guess)
