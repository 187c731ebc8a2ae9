"""The ids of a workflow's tasks that other modules use. In a task group, the group's id comes first."""

from __future__ import annotations

__all__ = ["DETECT", "DETECT_AND_DELIVER"]

DETECT = "detect"
"""The task that reads changes. The workflow's cursor is named after it."""
DETECT_AND_DELIVER = "detect_and_deliver"
"""The only task of a workflow in the mode ``one_task``.

Its id is neither ``detect`` nor ``deliver``, because the state that Airflow keeps for these tasks would apply
to it when the mode changes. It is not ``run``, because Airflow uses this word for a DAG's run.
"""
