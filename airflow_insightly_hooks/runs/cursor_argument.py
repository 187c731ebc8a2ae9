"""Check a task's argument ``cursor``, the name of its cursor, when its DAG is parsed.

Private.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.core.detection.cursor_name import check_cursor_name
from airflow_insightly_hooks.core.templates import is_template

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

__all__ = ["check_cursor_argument", "may_have_intervals"]

WITHOUT_INTERVALS = ("NullTimetable", "OnceTimetable", "ContinuousTimetable", "AssetTriggeredTimetable")
TRIGGERS = ("CronTriggerTimetable", "DeltaTriggerTimetable")
"""Timetables that have intervals only if their argument ``interval`` is set."""


def check_cursor_argument(operator: BaseOperator, cursor: Any, window: object) -> Any:
    """Check the argument, and return the cursor's name as the task is to keep it.

    In a mapped task group, map indexes must not share a cursor. Either the cursor's name depends on the
    values that the group is mapped over. Or no cursor is needed, because there is an explicit window or a
    timetable with data intervals.

    :param cursor: a text, which may be a template; a value that the group is mapped over; or ``None``.
    :param window: the task's explicit window, if there is one.
    :raises ValueError: if the name is not valid, or all map indexes would share one cursor.
    """
    # Airflow resolves a task group's mapped values, and another task's output, as it does templates.
    is_rendered = is_template(cursor) if isinstance(cursor, str) else hasattr(cursor, "resolve")
    is_fixed = cursor is not None and not is_rendered
    if is_fixed:
        cursor = check_cursor_name(cursor)
    if operator.get_closest_mapped_task_group() is not None and window is None:
        if is_fixed:
            raise ValueError(
                f"the map indexes of {operator.task_id!r} would share the cursor {cursor!r}, and each would "
                f"miss the changes that the others read: give it a cursor whose name depends on the values "
                f"that the task group is mapped over"
            )
        if cursor is None and not may_have_intervals(operator):
            raise ValueError(
                f"the map indexes of {operator.task_id!r} would share one cursor, and each would miss the "
                f"changes that the others read: give it a window, or a cursor whose name depends on the "
                f"values that the task group is mapped over (a template such as "
                f"'{{{{ dag.dag_id }}}}/{{{{ ti.map_index }}}}', or cursor=city if no other DAG uses these "
                f"names), or give the DAG a timetable with data intervals"
            )
    return cursor


def may_have_intervals(operator: BaseOperator) -> bool:
    """Return whether the runs of an operator's DAG may have data intervals.

    This is true for a timetable that isn't known.
    """
    timetable: Any = operator.dag.timetable if operator.has_dag() else None
    name = type(timetable).__name__
    if name == "AssetOrTimeSchedule":
        timetable = timetable.timetable
        name = type(timetable).__name__
    if name == "MultipleCronTriggerTimetable":
        timetable = next(iter(getattr(timetable, "timetables", ())), None)
        name = type(timetable).__name__
    return name not in WITHOUT_INTERVALS and (name not in TRIGGERS or bool(getattr(timetable, "interval", 0)))
