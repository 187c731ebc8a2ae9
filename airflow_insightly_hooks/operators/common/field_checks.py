"""Check the fields that criteria and payloads name, and log warnings about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from logging import Logger
from typing import Any

from airflow.sdk import XComArg
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_insightly_hooks.core.criteria import Criteria, Incomparable, Predicate, check_criteria
from airflow_insightly_hooks.core.criteria.storable import check_storable
from airflow_insightly_hooks.core.detection.changes import RecordChange
from airflow_insightly_hooks.core.records import RECORD_TYPES, custom_fields_in, unknown_fields
from airflow_insightly_hooks.core.suggestions import field_guess
from airflow_insightly_hooks.core.templates import is_template

__all__ = [
    "MULTI_SELECTS",
    "check_parsed",
    "custom_dates_of",
    "custom_fields_of",
    "has_templates",
    "predicate_of",
    "predicate_over",
    "warn_of_unknown",
    "warn_of_unknown_fields",
]

MULTI_SELECTS = ("MULTISELECT",)
"""The ``FIELD_TYPE`` of custom fields whose text holds several options."""
CUSTOM_DATES = ("DATE", "DATETIME")
"""The ``FIELD_TYPE`` of custom fields that hold dates."""
CUSTOM_DAYS = ("DATE",)
"""The ``FIELD_TYPE`` of custom fields that hold dates without a time."""


def check_parsed(criteria: Mapping[str, Any] | None, record_type: str | None = None) -> None:
    """Check criteria when the DAG is parsed. Criteria with templates are only checked for being storable.

    :param record_type: the record type whose fields the criteria may name; ``None`` if it is not known.
    :raises InvalidCriteria: if they can't be stored, or hold no templates and can't be compiled.
    """
    check_storable(criteria)
    if not has_templates(criteria):
        check_criteria(criteria, RECORD_TYPES[record_type] if record_type is not None else None)


def has_templates(criteria: object) -> bool:
    """Return whether criteria hold templates or other tasks' XCom, which are known only as the task runs."""
    # A value that JSON does not have, such as a datetime, is not a template.
    arguments = any(XComArg.iter_xcom_references(criteria))
    return arguments or is_template(json.dumps(criteria, default=lambda _value: ""))


def warn_of_unknown_fields(log: Logger | Any, changes: list[RecordChange], names: Iterable[str]) -> None:
    """Log a warning for each name that is a field of neither the record type nor any of the records.

    Most often the name is misspelled. Nothing else would show that.
    """
    for record_type in sorted({change["record_type"] for change in changes}):
        records = [change["record"] for change in changes if change["record_type"] == record_type]
        warn_of_unknown(log, record_type, unknown_fields(RECORD_TYPES[record_type], records, names))


def warn_of_unknown(log: Logger | Any, record_type: str, names: Iterable[str]) -> None:
    """Log a warning for each name. The names are fields of neither the record type nor any record."""
    for name in names:
        guess = field_guess(name, RECORD_TYPES[record_type].fields)
        log.warning("No record of %s has a field %s: it counts as blank%s", record_type, name, guess)


def predicate_over(
    log: Logger | Any,
    criteria: Criteria,
    records: Iterable[tuple[str, Mapping[str, Any]]],
    *,
    insightly_conn_id: str,
    now: Callable[[], datetime],
    multi_select: Collection[str] | None = None,
) -> Predicate:
    """Return a function that tells whether one of the records meets the criteria.

    It logs a warning for a value whose type an operator can't compare.

    :param records: pairs of a record type and a record.
    :param now: returns the time from which relative dates are measured; called only if there are any.
    :param multi_select: the custom fields that hold several options; ``None`` asks Insightly.
    :raises InvalidCriteria: if the criteria can't be compiled.
    :raises InsightlyAPIError: if the request to Insightly fails.
    """
    at = now() if criteria.has_relative_dates else None
    if multi_select is None:
        multi_select = _multi_select_fields(log, insightly_conn_id, criteria, records)
    return predicate_of(log, criteria, now=at, multi_select=multi_select)


def predicate_of(
    log: Logger | Any,
    criteria: Criteria,
    *,
    now: datetime | None,
    multi_select: Collection[str] | None,
) -> Predicate:
    """Return a function that tells whether a record meets the criteria.

    It logs a warning for a value whose type an operator can't compare.

    :raises InvalidCriteria: if the criteria can't be compiled.
    """
    return criteria.compile(
        now=now,
        multi_select=multi_select,
        on_incomparable=_warn_of_incomparable(log),
    )


def _warn_of_incomparable(log: Logger | Any) -> Callable[[Incomparable], None]:
    """Return a function that logs the field and type of a value that can't be compared, never the value."""

    def warn(found: Incomparable) -> None:
        log.warning(
            "%s: %s holds a %s, which the operator %r can't compare: it counts as blank; check the criteria",
            found.path,
            found.field,
            found.found,
            found.operator,
        )

    return warn


def _multi_select_fields(
    log: Logger | Any,
    insightly_conn_id: str,
    criteria: Criteria,
    records: Iterable[tuple[str, Mapping[str, Any]]],
) -> set[str] | None:
    """Return the custom fields that hold several options; ``None`` if they aren't needed or can't be read.

    Insightly is asked once for each record type for which ``contains`` or ``not_contains`` in the criteria
    names a custom field that isn't empty.
    """
    asked = criteria.option_fields
    record_types = {
        record_type
        for record_type, record in (records if asked else ())
        if any(name in asked for name, _ in custom_fields_in(record))
    }
    if not record_types:
        return None
    # requests is loaded in the worker only, so that DAGs parse fast.
    from airflow_insightly_hooks.hooks.insightly import InsightlyHook

    hook = InsightlyHook(insightly_conn_id)
    try:
        hook.get_connection(insightly_conn_id)
    except AirflowNotFoundException:  # changes from other sources need no account
        log.warning(
            "No connection %r, so Insightly can't say which custom fields hold several options: fields with "
            "a ';' are taken to; create the connection to be exact",
            insightly_conn_id,
        )
        return None
    return {
        name
        for record_type in record_types
        for name in custom_fields_of(hook.custom_fields(record_type), MULTI_SELECTS)
    }


def custom_dates_of(metadata: Iterable[Mapping[str, Any]]) -> dict[str, frozenset[str]]:
    """Return the arguments of ``build_body`` that name the custom fields that hold dates."""
    metadata = list(metadata)
    return {
        "custom_date_fields": custom_fields_of(metadata, CUSTOM_DATES),
        "custom_day_fields": custom_fields_of(metadata, CUSTOM_DAYS),
    }


def custom_fields_of(metadata: Iterable[Mapping[str, Any]], field_types: Collection[str]) -> frozenset[str]:
    """Return the names of the custom fields that have one of the types."""
    return frozenset(field["FIELD_NAME"] for field in metadata if field.get("FIELD_TYPE") in field_types)
