"""Find which of Airflow's components are alive, from the heartbeats that they write into the database."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

__all__ = ["COMPONENTS", "ComponentState", "component_states"]

COMPONENTS = {"scheduler": "SchedulerJob", "triggerer": "TriggererJob", "dag-processor": "DagProcessorJob"}
"""The components that write heartbeats, and the types of their jobs."""


class ComponentState(NamedTuple):
    """The state of a component, from the database.

    :param name: its name, as in ``airflow scheduler``.
    :param latest_heartbeat: the latest heartbeat of all its processes, aware; ``None`` if it has never run.
    :param is_alive: whether the heartbeat is recent enough, by Airflow's own rule.
    """

    name: str
    latest_heartbeat: datetime | None
    is_alive: bool


def component_states() -> list[ComponentState]:
    """Return the state of each component.

    :raises DatabaseNotFound: if the database can't be read.
    """
    from airflow.jobs.job import most_recent_job

    from airflow_insightly_hooks.database.presence import check_database

    check_database()
    jobs = {name: most_recent_job(job_type) for name, job_type in COMPONENTS.items()}
    return [
        ComponentState(name, job and job.latest_heartbeat, bool(job and job.is_alive()))
        for name, job in jobs.items()
    ]
