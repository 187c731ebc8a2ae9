"""What a task may be given as its cursor's name, when its DAG is parsed.

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
"""Those that have intervals only if they are given one."""


def check_cursor_argument(operator: BaseOperator, cursor: Any, window: object) -> Any:
    """Return the cursor's name as the task is to keep it.

    In a mapped task group each map index needs a cursor of its own, or none: a name that depends on what the
    group is mapped over, an explicit window, or a timetable with data intervals.

    :param cursor: a text, which may be a template; what the group is mapped over; or ``None``.
    :param window: the task's explicit window, if there is one.
    :raises ValueError: if it is no such name, or all map indexes would share one cursor.
    """
    # What a task group is mapped over, and another task's output, are resolved as templates are.
    is_rendered = is_template(cursor) if isinstance(cursor, str) else hasattr(cursor, "resolve")
    is_fixed = cursor is not None and not is_rendered
    if is_fixed:
        cursor = check_cursor_name(cursor)
    if operator.get_closest_mapped_task_group() is not None and window is None:
        if is_fixed:
            raise ValueError(
                f"cursor must depend on what the task group is mapped over: the map indexes of "
                f"{operator.task_id!r} would share {cursor!r}, and each would miss what the others read"
            )
        if cursor is None and not may_have_intervals(operator):
            raise ValueError(
                f"the map indexes of {operator.task_id!r} would share one cursor, and each would miss what "
                f"the others read: give it a cursor whose name depends on what the task group is mapped over "
                f"(a template such as '{{{{ dag.dag_id }}}}/{{{{ ti.map_index }}}}', or cursor=city if no "
                f"other DAG uses these names), a window, or give the DAG a timetable with data intervals"
            )
    return cursor


def may_have_intervals(operator: BaseOperator) -> bool:
    """Return whether the runs of an operator's DAG may have data intervals; of an unknown timetable: yes."""
    timetable: Any = operator.dag.timetable if operator.has_dag() else None
    name = type(timetable).__name__
    if name == "AssetOrTimeSchedule":
        timetable = timetable.timetable
        name = type(timetable).__name__
    if name == "MultipleCronTriggerTimetable":
        timetable = next(iter(getattr(timetable, "timetables", ())), None)
        name = type(timetable).__name__
    return name not in WITHOUT_INTERVALS and (name not in TRIGGERS or bool(getattr(timetable, "interval", 0)))
