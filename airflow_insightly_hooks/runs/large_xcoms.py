"""What a detect task says of changes that are too many to go through XCom well.

``benchmarks/large_xcoms.py`` measures where that begins, and docs/explanation/scale.md has the figures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.sdk.configuration import conf

from airflow_insightly_hooks.core.detection.storable_changes import storable
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
"""Bytes of JSON. The API server takes half a second to store so much, and hardly answers meanwhile."""
MOST_OF_THE_PAST = 5_000
"""Changes of a run over the past, above which one task does the same with less time and memory."""
ONE_TASK = "mode: one_task in a workflow, or InsightlyWorkflowOperator"


def changes_for_xcom(
    context: Context, log: Any, changes: Sequence[RecordChange], window: ChangeWindow
) -> list[RecordChange]:
    """Return changes as XCom can hold them; log if another way would do better, by counts alone.

    :param changes: those of ``window``.
    """
    stored = [storable(change) for change in changes]
    size = sum(len(json.dumps(change)) + 2 for change in stored)
    if size > LARGEST_IN_DATABASE and (why := _why_in_database(size)) is not None:
        log.warning(
            "%d changes, %.1f MB, go through Airflow's database as an XCom, and again with each task that "
            "follows. XComs of more than %.0f MB slow down all of Airflow, and much larger ones fail. %s, or "
            "deliver in one task, without XComs (%s)",
            *(len(stored), size / 1e6, LARGEST_IN_DATABASE / 1e6, why, ONE_TASK),
        )
    if len(stored) > MOST_OF_THE_PAST and (kind := _run_of_the_past(context, window)) is not None:
        log.warning(
            "%d changes in a run %s: one task would deliver them batch by batch, in less time and memory "
            "(%s)",
            *(len(stored), kind, ONE_TASK),
        )
    return stored


def _why_in_database(size: int) -> str | None:
    """Return what to set so that an XCom goes elsewhere; ``None`` if it does already."""
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.execution_time.xcom import XCom

    if XCom is BaseXCom:
        return (
            f"Keep large XComs in an object storage ([core] xcom_backend = {OBJECT_STORAGE_BACKEND}, with "
            f"[common.io] xcom_objectstorage_path and xcom_objectstorage_threshold)"
        )
    if not is_object_storage(XCom):
        return None  # where another backend keeps XComs is not known
    threshold = conf.getint("common.io", "xcom_objectstorage_threshold", fallback=-1)
    if 0 <= threshold <= size:
        return None
    return (
        f"[common.io] xcom_objectstorage_threshold = {threshold} keeps XComs of this size out of the object "
        f"storage: set it to {ADVISED_THRESHOLD}, say"
    )


def _run_of_the_past(context: Context, window: ChangeWindow) -> str | None:
    """Return what kind of run it is, if it is for the past: a later window has ended already."""
    match type_of(context):
        case "backfill":
            return "of a backfill"
        case "scheduled" if window.end + (window.end - window.start) <= datetime.now(timezone.utc):
            return "that catches up"
        case _:
            return None
