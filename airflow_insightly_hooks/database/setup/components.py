"""Which of Airflow's components are alive, by the heartbeats that they write into the database."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

__all__ = ["COMPONENTS", "ComponentState", "component_states"]

COMPONENTS = {"scheduler": "SchedulerJob", "triggerer": "TriggererJob", "dag-processor": "DagProcessorJob"}
"""The components that write heartbeats, and the type of their jobs."""


class ComponentState(NamedTuple):
    """What the database knows of a component.

    :param name: as in ``airflow scheduler``.
    :param latest_heartbeat: of the one that was alive last, aware; ``None`` if there never was any.
    :param is_alive: whether that is recent enough, by Airflow's own rule.
    """

    name: str
    latest_heartbeat: datetime | None
    is_alive: bool


def component_states() -> list[ComponentState]:
    """Return the state of each component.

    :raises DatabaseNotFound: if the database isn't at hand.
    """
    from airflow.jobs.job import most_recent_job

    from airflow_insightly_hooks.database.presence import check_database

    check_database()
    jobs = {name: most_recent_job(job_type) for name, job_type in COMPONENTS.items()}
    return [
        ComponentState(name, job and job.latest_heartbeat, bool(job and job.is_alive()))
        for name, job in jobs.items()
    ]
