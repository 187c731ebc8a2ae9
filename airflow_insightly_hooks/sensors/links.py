"""The link from a detect task to the records in Insightly."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

from airflow_insightly_hooks.hooks.api.api_errors import NO_CONNECTION

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

__all__ = ["InsightlyRecordsLink"]


class InsightlyRecordsLink(BaseOperatorLink):
    """From the detect task to the list of its record type in Insightly."""

    name = "Records in Insightly"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 — Airflow's signature
        """Return the address. Airflow calls this in the worker when the task ends, and keeps it in XCom."""
        from airflow_insightly_hooks.hooks.insightly import records_page

        with suppress(*NO_CONNECTION):  # the task itself has reported it
            return records_page(
                getattr(operator, "insightly_conn_id", ""), getattr(operator, "record_type", "")
            )
        return ""
