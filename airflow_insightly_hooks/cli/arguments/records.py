"""Read records that arguments name: by a JSON file, or by type and id."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from airflow_insightly_hooks.cli.run import UsageError
from airflow_insightly_hooks.core.errors import UnknownRecordType
from airflow_insightly_hooks.core.records import record_reference
from airflow_insightly_hooks.previews.record_source import InvalidRecordText, record_in

__all__ = ["json_record", "record_argument"]


def json_record(file: str) -> dict[str, Any]:
    """Return the record in a JSON file.

    :param file: a path, or ``-`` for standard input.
    :raises UsageError: if the file can't be read or holds no record.
    """
    name = "standard input" if file == "-" else file
    try:
        text = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"{name} can't be read: {error.strerror}") from None
    try:
        return record_in(text, name)
    except InvalidRecordText as error:
        raise UsageError(str(error)) from None


def record_argument(text: str) -> tuple[str | None, int]:
    """Return the record type and the id from a text such as ``Contacts:7``; no type from ``7``.

    :raises UsageError: if the text names no record.
    """
    try:
        return record_reference(text)
    except (ValueError, UnknownRecordType) as error:
        raise UsageError(f"--record: {error}") from None
