"""Get the record of a preview from Insightly's API or a JSON text, and the types of its custom fields."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_insightly_hooks.core import exact_json
from airflow_insightly_hooks.core.errors import InsightlyHooksError
from airflow_insightly_hooks.core.records import CUSTOM_FIELDS
from airflow_insightly_hooks.operators.common.field_checks import (
    MULTI_SELECTS,
    custom_dates_of,
    custom_fields_of,
)

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.insightly import InsightlyHook

__all__ = [
    "NOT_ASKED",
    "CustomFieldTypes",
    "InvalidRecordText",
    "RecordNotFound",
    "custom_field_types",
    "insightly_hook",
    "read_record",
    "record_in",
]

NOT_ASKED = (
    "the types of custom fields are not known here, so the body and the result may differ. A task reads the "
    "types from Insightly: it writes custom dates as dates, and compares multi-selects option by option"
)


class RecordNotFound(InsightlyHooksError):
    """An account has no record with this id, or the API key can't see it.

    Cause: Raised when a command reads a record by its id, and Insightly answers 404.

    Remedy: Check the id, the record type and the connection. If it is raised for every record, run
    ``airflow insightly doctor``: it shows which record types the key can read.

    :param conn_id: the connection's id.
    :param record_type: the record type that was asked for.
    :param record_id: the id that was asked for.
    """

    def __init__(self, conn_id: str, record_type: str, record_id: int) -> None:
        super().__init__(conn_id, record_type, record_id)
        self.conn_id = conn_id
        self.record_type = record_type
        self.record_id = record_id

    def __str__(self) -> str:
        return (
            f"{self.record_type} have no record {self.record_id} in the account of connection "
            f"{self.conn_id!r} (404), or the API key can't see it. If this happens for every record, run "
            "'airflow insightly doctor'"
        )


class InvalidRecordText(InsightlyHooksError):
    """A JSON text is not a record. The error shows no part of the text.

    Cause: Raised when the text that was given to a preview or a test is not JSON in UTF-8, or is not one JSON
    object.

    Remedy: Give one record as Insightly's API returns it, such as ``{"CONTACT_ID": 1, …}``.

    :param name: the name of the text, such as its file.
    :param reason: what is wrong.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}{self.reason}"


class CustomFieldTypes(NamedTuple):
    """The types of a record's custom fields, for its criteria and its body.

    :param multi_select: the fields that can hold several options; ``None`` if this isn't known.
    :param dates: the arguments of ``build_body`` about the fields that hold dates.
    :param is_known: whether the types are known, or the record needs none.
    """

    multi_select: frozenset[str] | None
    dates: dict[str, Any]
    is_known: bool


def insightly_hook(conn_id: str) -> InsightlyHook:
    """Return the hook that reads records as tasks read them."""
    # The import of requests takes time, and not every command needs it.
    from airflow_insightly_hooks.hooks.insightly import InsightlyHook

    return InsightlyHook(conn_id, exact_numbers=True)


def read_record(hook: InsightlyHook, record_type: str, record_id: int) -> dict[str, Any]:
    """Return a record from Insightly's API.

    :raises RecordNotFound: if the account has no record with this id.
    :raises InsightlyAPIError: if it can't be read.
    """
    from airflow_insightly_hooks.hooks.api.api_errors import InsightlyAccessError

    try:
        return hook.get_record(record_type, record_id)
    except InsightlyAccessError as error:
        if error.status != 404:
            raise
        raise RecordNotFound(error.conn_id, record_type, record_id) from None


def custom_field_types(
    hook: InsightlyHook, record_type: str, record: dict[str, Any], *, is_needed: bool
) -> CustomFieldTypes:
    """Return the types of a record's custom fields; they are read from Insightly if the record has any.

    :param is_needed: whether a missing connection is an error. If not, the types are then not known.
    :raises AirflowNotFoundException: if the connection is missing and ``is_needed`` is true.
    :raises InsightlyAPIError: if Insightly can't be read.
    """
    if not record.get(CUSTOM_FIELDS):
        return CustomFieldTypes(None, {}, is_known=True)
    try:
        metadata = hook.custom_fields(record_type)
    except AirflowNotFoundException:
        if is_needed:
            raise
        return CustomFieldTypes(None, {}, is_known=False)
    return CustomFieldTypes(
        custom_fields_of(metadata, MULTI_SELECTS), custom_dates_of(metadata), is_known=True
    )


def record_in(text: str | bytes, name: str) -> dict[str, Any]:
    """Return the record in a JSON text.

    :param name: the name of the text in errors.
    :raises InvalidRecordText: if the text is not a record.
    """
    try:
        record = exact_json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidRecordText(name, f" is not JSON: line {error.lineno}, column {error.colno}") from None
    except ValueError:
        raise InvalidRecordText(name, " is not JSON in UTF-8") from None
    if not isinstance(record, dict):
        raise InvalidRecordText(name, ": one record is needed, as Insightly's API returns it: a JSON object")
    return record
