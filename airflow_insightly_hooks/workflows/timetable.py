"""A workflow's schedule -> Airflow's timetable, or its assets."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import (
    CronDataIntervalTimetable,
    CronTriggerTimetable,
    DeltaDataIntervalTimetable,
    DeltaTriggerTimetable,
)

from airflow_insightly_hooks.core.bounds import POLL_INTERVAL
from airflow_insightly_hooks.core.workflow.definition import ON_CHANGE, WorkflowDefinition
from airflow_insightly_hooks.core.workflow.parts import Schedule
from airflow_insightly_hooks.triggers.record_change import changes_schedule

__all__ = ["timetable_of"]

NO_CRON = ("@once", "@continuous")


def timetable_of(schedule: Any, workflow: WorkflowDefinition, cursor: str) -> Any:
    """Return the schedule in a form that Airflow accepts.

    :param schedule: the workflow's schedule, or another one that replaces it.
    :param workflow: the workflow.
    :param cursor: the name of the DAG's cursor, if record changes start the DAG.
    """
    if schedule == ON_CHANGE:
        schedule = Schedule(watch=timedelta(seconds=POLL_INTERVAL))
    if isinstance(schedule, str) and schedule not in NO_CRON:
        # Otherwise a setting of Airflow decides whether a bare cron line has data intervals.
        schedule = Schedule(cron=schedule)
    if not isinstance(schedule, Schedule):
        return schedule
    if schedule.wakes_on_change:
        return changes_schedule(
            workflow.record_type,
            cursor,
            insightly_conn_id=workflow.insightly_conn_id,
            poll_interval=schedule.watch.total_seconds() if schedule.watch is not None else None,
            settle=workflow.settle,
            lookback=workflow.lookback,
            push=schedule.on_change == "push",
        )
    if schedule.cron is not None:
        cron = CronDataIntervalTimetable if schedule.data_interval else CronTriggerTimetable
        return cron(schedule.cron, timezone=schedule.timezone)
    return (DeltaDataIntervalTimetable if schedule.data_interval else DeltaTriggerTimetable)(schedule.every)
