"""Read one of several records, so that its failure doesn't stop the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.insightly import InsightlyHook

__all__ = ["read_record"]

REASONS: Mapping[int | None, str] = {
    403: "this API key's user may not read the record",
    404: "the record is gone",
}


def read_record(hook: InsightlyHook, record_type: str, record_id: int) -> dict[str, Any] | str | Exception:
    """Return the record; or a text that says why it can't be read; or the error, if the reason is unknown.

    :raises InsightlyAPIError: if Insightly can't be read, or if all records of the type fail.
    """
    from airflow_insightly_hooks.hooks.api.api_errors import InsightlyAccessError, InsightlyAPIError

    try:
        return hook.get_record(record_type, record_id)
    except InsightlyAPIError as error:
        if isinstance(error, InsightlyAccessError) and error.status in REASONS:
            found: str | Exception = REASONS[error.status]
        elif type(error) is InsightlyAPIError:  # the subclasses concern the whole account
            found = error
        else:
            raise
    # Raises if the whole record type or the API fails, and not just this record.
    next(hook.iter_records(record_type, page_size=1), None)
    return found
