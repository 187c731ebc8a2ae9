"""``fields``: list the standard and custom fields of a record type."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from airflow_insightly_hooks.cli.exit_codes import ExitCode
from airflow_insightly_hooks.cli.output import print_rows
from airflow_insightly_hooks.cli.run import UsageError
from airflow_insightly_hooks.core.errors import UnknownRecordType
from airflow_insightly_hooks.core.records import RECORD_TYPES, RecordType
from airflow_insightly_hooks.previews.record_source import insightly_hook

__all__ = ["fields"]


def fields(args: Namespace) -> int:
    """Print the fields of a record type; the custom fields are read from Insightly."""
    try:
        record_type = RECORD_TYPES[args.record_type]
    except UnknownRecordType as error:
        raise UsageError(str(error)) from None
    custom = () if args.standard else insightly_hook(args.conn).custom_fields(record_type.name)
    print_rows([*_standard(record_type), *_custom(custom)], args.output)
    return ExitCode.OK


def _standard(record_type: RecordType) -> Iterator[dict[str, Any]]:
    for field in record_type.fields.values():
        length = f"({field.length})" if field.length else ""
        yield _row(field.name, "standard", f"{field.kind}{length}", is_read_only=field.read_only)


def _custom(metadata: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for field in metadata:
        options = field.get("CUSTOM_FIELD_OPTIONS")
        yield _row(
            field["FIELD_NAME"],
            "custom",
            str(field.get("FIELD_TYPE") or "").lower(),
            is_read_only=field.get("EDITABLE") is False,
            label=field.get("FIELD_LABEL"),
            options=[
                str(option.get("OPTION_VALUE"))
                for option in (options if isinstance(options, list) else ())
                if isinstance(option, Mapping)
            ],
        )


def _row(
    name: str, kind: str, field_type: str, *, is_read_only: bool, label: object = None, options: Any = ()
) -> dict[str, Any]:
    return {
        "field": name,
        "kind": kind,
        "type": field_type,
        "read_only": is_read_only,
        "label": label if isinstance(label, str) else None,
        "options": list(options),
    }
