"""What Airflow says of a run: its interval, and whether it is only a test.

Private.
"""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_insightly_hooks.core.detection.changes import ChangeWindow
from airflow_insightly_hooks.core.errors import InvalidWindow

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["DRY_RUN", "interval_of", "is_dry_run", "is_test", "type_of"]

TEMPORARY = "__airflow_temporary_run_"
"""How the ids of the runs begin that ``airflow tasks test`` makes."""
DRY_RUN = "dry_run"
"""The param of a run in which nothing is sent."""
DAG_TEST = "dag_test"
"""Who triggers the runs of ``dag.test()``."""


def type_of(context: Context) -> str | None:
    """Return the run's type as Airflow names it, such as ``scheduled``."""
    run_type = getattr(context.get("dag_run"), "run_type", None)
    return getattr(run_type, "value", run_type)


def is_test(context: Context) -> bool:
    """Return whether ``airflow tasks test``, ``airflow dags test`` or ``dag.test()`` runs the task.

    They run it in their own process, where Airflow's other end is no worker's supervisor; that holds for
    ``airflow tasks test`` with the id of a real run, too. A run that a scheduler has made, and a worker runs,
    has none of these marks.
    """
    run = context.get("dag_run")
    if str(getattr(run, "run_id", "")).startswith(TEMPORARY):
        return True
    is_manual = type_of(context) == "manual"
    return (is_manual and getattr(run, "triggering_user_name", None) == DAG_TEST) or _is_in_process()


def is_dry_run(context: Context, said: bool) -> bool:
    """Return whether a task does everything but the POST, and remembers nothing of what has triggered.

    :param said: whether the task's own argument says so; else the run's param ``dry_run`` does, if it is set.
    """
    value = (context.get("params") or {}).get(DRY_RUN)
    return said or value is True or (isinstance(value, str) and value.lower() == "true")


def _is_in_process() -> bool:
    # By name: to import the class takes a worker a while, and no worker needs it. The pytest plugin's runs
    # have a class of another name (``testing.task_loop``): they keep their state.
    task_runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    comms = getattr(task_runner, "SUPERVISOR_COMMS", None)
    return type(comms).__name__ == "InProcessSupervisorComms"


def interval_of(context: Context) -> ChangeWindow | None:
    """Return the interval of time that the run is for; ``None`` if it has none, or an empty one.

    A run of ``@continuous`` is for what has changed up to now: the interval that Airflow gives it is when it
    was made. A backfill's run is always for the past. Where its timetable gives none, its interval begins at
    the time of the schedule before its own.

    :raises InvalidWindow: if the run is a backfill's, and its timetable tells no interval.
    """
    timetable = getattr(context.get("dag"), "timetable", None)
    run_type = type_of(context)
    if run_type == "scheduled" and type(timetable).__name__ == "ContinuousTimetable":
        return None
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if start is not None and end is not None and start < end:
        return ChangeWindow(start, end)
    if run_type != "backfill":
        return None
    moment = getattr(context.get("dag_run"), "logical_date", None)
    before = _time_before(timetable, pendulum.instance(moment)) if moment is not None else None
    if moment is None or before is None:
        raise InvalidWindow(
            "this run is a backfill's, and its DAG's timetable tells no interval of the past. Nothing was "
            "read. Give the DAG a schedule with data intervals (data_interval: true in a workflow's "
            "schedule, CronDataIntervalTimetable or DeltaDataIntervalTimetable in Python), or the task an "
            "explicit window"
        )
    return ChangeWindow(before, moment)


def _time_before(timetable: Any, moment: pendulum.DateTime) -> datetime | None:
    """Return the schedule's last time before one of its times; ``None`` if the timetable doesn't tell."""
    # Only of Airflow's own timetables: one that is derived from them may leave out times.
    if not type(timetable).__module__.startswith("airflow."):
        return None
    match type(timetable).__name__:
        case "MultipleCronTriggerTimetable":
            parts = _attribute(timetable, "timetables")
            times = [time for part in parts if (time := _time_before(part, moment)) is not None]
            return max(times) if len(times) == len(parts) else None
        case "CronTriggerTimetable":
            from airflow.timetables.interval import CronDataIntervalTimetable

            cron = CronDataIntervalTimetable(
                _attribute(timetable, "expression"), _attribute(timetable, "timezone")
            )
            last = cron.infer_manual_data_interval(run_after=moment)
            return last.start if last.end == moment else last.end
        case "DeltaTriggerTimetable":
            from airflow.timetables.interval import DeltaDataIntervalTimetable

            delta = DeltaDataIntervalTimetable(_attribute(timetable, "delta"))
            return delta.infer_manual_data_interval(run_after=moment).start
        case _:
            return None


def _attribute(timetable: Any, name: str) -> Any:
    """Return what a timetable was made of: those of the SDK show it, those of the scheduler don't."""
    return getattr(timetable, name) if hasattr(timetable, name) else getattr(timetable, f"_{name}")
