"""Facts about a run, from Airflow: its type, its interval, and whether it is a test or a dry run.

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
"""The ids of runs of ``airflow tasks test`` begin with this text."""
DRY_RUN = "dry_run"
"""The param that makes a run a dry run, which sends nothing."""
DAG_TEST = "dag_test"
"""The name of the user who triggers the runs of ``dag.test()``."""


def type_of(context: Context) -> str | None:
    """Return Airflow's name for the run's type, such as ``scheduled``."""
    run_type = getattr(context.get("dag_run"), "run_type", None)
    return getattr(run_type, "value", run_type)


def is_test(context: Context) -> bool:
    """Return whether ``airflow tasks test``, ``airflow dags test`` or ``dag.test()`` runs the task.

    They run the task in their own process, without a worker's supervisor. This is so for
    ``airflow tasks test`` with the id of a real run, too. If a scheduler made the run and a worker runs it,
    none of these signs is there.
    """
    run = context.get("dag_run")
    if str(getattr(run, "run_id", "")).startswith(TEMPORARY):
        return True
    is_manual = type_of(context) == "manual"
    return (is_manual and getattr(run, "triggering_user_name", None) == DAG_TEST) or _is_in_process()


def is_dry_run(context: Context, said: bool) -> bool:
    """Return whether this is a dry run: the task sends no POST, and doesn't record which records triggered.

    :param said: whether the task's own argument asks for a dry run. If it doesn't, the run's param
        ``dry_run`` may.
    """
    value = (context.get("params") or {}).get(DRY_RUN)
    return said or value is True or (isinstance(value, str) and value.lower() == "true")


def _is_in_process() -> bool:
    # The class is compared by name: no worker needs it, and importing it takes a while. The pytest plugin's
    # runs use a class of another name (``testing.task_loop``), so they keep their state.
    task_runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    comms = getattr(task_runner, "SUPERVISOR_COMMS", None)
    return type(comms).__name__ == "InProcessSupervisorComms"


def interval_of(context: Context) -> ChangeWindow | None:
    """Return the interval of time that the run covers; ``None`` if it has none, or an empty one.

    A run of ``@continuous`` reads what has changed up to now, so its interval is not used: Airflow sets it to
    the time at which it made the run. A backfill's run always covers the past. If its timetable gives it no
    interval, the interval begins at the time of the schedule before the run's own.

    :raises InvalidWindow: if the run belongs to a backfill, and its timetable gives no interval.
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
            "this run belongs to a backfill, but the timetable of its DAG gives no interval for it. Nothing "
            "was read. Give the DAG a schedule with data intervals (data_interval: true in a workflow's "
            "schedule, CronDataIntervalTimetable or DeltaDataIntervalTimetable in Python), or give the task "
            "an explicit window"
        )
    return ChangeWindow(before, moment)


def _time_before(timetable: Any, moment: pendulum.DateTime) -> datetime | None:
    """Return the last time of the schedule before one of its times; ``None`` if it can't be computed."""
    # It is computed only for Airflow's own timetables: a derived one may leave out times.
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
    """Return an argument of a timetable: a public attribute in the SDK, a private one in the scheduler."""
    return getattr(timetable, name) if hasattr(timetable, name) else getattr(timetable, f"_{name}")
