"""Log a warning if a detect task has more changes than XCom handles well.

``benchmarks/large_xcoms.py`` measures the limits, and docs/explanation/scale.md has the figures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.sdk.configuration import conf

from airflow_insightly_hooks.core.detection.storable_changes import storable
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.core.xcom_address import (
    ADVISED_THRESHOLD,
    OBJECT_STORAGE_BACKEND,
    is_object_storage,
)
from airflow_insightly_hooks.runs.airflow_runs import type_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_insightly_hooks.core.detection.changes import ChangeWindow, RecordChange

__all__ = ["changes_for_xcom"]

LARGEST_IN_DATABASE = 5_000_000
"""Bytes of JSON. The API server takes half a second to store them, and hardly answers meanwhile."""
MOST_OF_THE_PAST = 5_000
"""If a run over the past has more changes, one task does the same with less time and memory."""
ONE_TASK = "mode: one_task in a workflow, or InsightlyWorkflowOperator"


def changes_for_xcom(
    context: Context, log: Any, changes: Sequence[RecordChange], window: ChangeWindow
) -> list[RecordChange]:
    """Return changes in a form that XCom can hold. Log a warning if another way would do better.

    The warning has counts and no contents.

    :param changes: the changes in ``window``.
    """
    stored = [storable(change) for change in changes]
    size = sum(len(json.dumps(change)) + 2 for change in stored)
    if size > LARGEST_IN_DATABASE and (why := _why_in_database(size)) is not None:
        log.warning(
            "An XCom of %s, %.1f MB, goes through Airflow's database, and again for each task that follows. "
            "XComs of more than %.0f MB slow down all of Airflow, and much larger ones fail. %s, or deliver "
            "in one task, without XComs (%s)",
            *(counted(len(stored), "change"), size / 1e6, LARGEST_IN_DATABASE / 1e6, why, ONE_TASK),
        )
    if len(stored) > MOST_OF_THE_PAST and (kind := _run_of_the_past(context, window)) is not None:
        log.warning(
            "%s in a run %s: one task would deliver them batch by batch, in less time and memory (%s)",
            *(counted(len(stored), "change"), kind, ONE_TASK),
        )
    return stored


def _why_in_database(size: int) -> str | None:
    """Return the setting that keeps the XCom out of the database; ``None`` if it doesn't go there."""
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.execution_time.xcom import XCom

    if XCom is BaseXCom:
        return (
            f"Keep large XComs in an object storage ([core] xcom_backend = {OBJECT_STORAGE_BACKEND}, with "
            f"[common.io] xcom_objectstorage_path and xcom_objectstorage_threshold)"
        )
    if not is_object_storage(XCom):
        return None  # it is not known where another backend keeps XComs
    threshold = conf.getint("common.io", "xcom_objectstorage_threshold", fallback=-1)
    if 0 <= threshold <= size:
        return None
    return (
        f"[common.io] xcom_objectstorage_threshold = {threshold} keeps XComs of this size out of the object "
        f"storage: set it to {ADVISED_THRESHOLD}, for example"
    )


def _run_of_the_past(context: Context, window: ChangeWindow) -> str | None:
    """Return the kind of run, if it covers the past, so that a later window has already ended."""
    match type_of(context):
        case "backfill":
            return "of a backfill"
        case "scheduled" if window.end + (window.end - window.start) <= datetime.now(timezone.utc):
            return "that catches up"
        case _:
            return None
