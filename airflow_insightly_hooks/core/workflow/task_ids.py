"""The ids of a workflow's tasks that others know: in a task group, the group's id and a dot come before."""

from __future__ import annotations

__all__ = ["DETECT", "DETECT_AND_DELIVER"]

DETECT = "detect"
"""The task that reads changes; the workflow's cursor is named after it."""
DETECT_AND_DELIVER = "detect_and_deliver"
"""The only task of a workflow in the mode ``one_task``.

It is called neither ``detect`` nor ``deliver``: what Airflow keeps for these would count for it when the mode
changes. Nor is it called ``run``, which is what Airflow calls a DAG's run.
"""
