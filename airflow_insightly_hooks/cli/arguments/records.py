"""Records that arguments name: in a JSON file, or by type and id."""

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
    """Return the record that a file holds as JSON.

    :param file: a path, or ``-`` for standard input.
    :raises UsageError: if it holds no record.
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
    """Return the record type, if it is named, and the id: of ``7`` or ``Contacts:7``.

    :raises UsageError: if it names no record.
    """
    try:
        return record_reference(text)
    except (ValueError, UnknownRecordType) as error:
        raise UsageError(f"--record: {error}") from None
