"""Reading one record, among others that it must not hold back."""

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
    """Return the record, why there is none, or the error if the answer doesn't tell.

    :raises InsightlyAPIError: if Insightly can't be read, or answers so for every record of the type.
    """
    from airflow_insightly_hooks.hooks.api.api_errors import InsightlyAccessError, InsightlyAPIError

    try:
        return hook.get_record(record_type, record_id)
    except InsightlyAPIError as error:
        if isinstance(error, InsightlyAccessError) and error.status in REASONS:
            found: str | Exception = REASONS[error.status]
        elif type(error) is InsightlyAPIError:  # not one of those that are about the account
            found = error
        else:
            raise
    # What is wrong with the whole record type, or with the API, is answered for every record.
    next(hook.iter_records(record_type, page_size=1), None)
    return found
