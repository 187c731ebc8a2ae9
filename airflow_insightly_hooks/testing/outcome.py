"""What a run of a DAG came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

__all__ = ["DagOutcome", "QueuedRun"]


class QueuedRun(NamedTuple):
    """A run that waits for its time: ``run_dag.due()`` runs it once the sandbox's clock has come there.

    :ivar dag_id: the DAG's id.
    :ivar run_id: the run's id.
    :ivar run_after: when it is due.
    """

    dag_id: str
    run_id: str
    run_after: datetime


@dataclass(frozen=True)
class DagOutcome:
    """What a run of a DAG came to.

    A task of a mapped operator or group is named with its map index, such as ``deliver[0]``.

    :ivar dag_id: the DAG's id.
    :ivar run_id: the run's id.
    :ivar state: the run's state: ``success`` or ``failed``.
    :ivar tasks: each task's state, by its id, such as ``success``, ``skipped`` or ``upstream_failed``.
    :ivar tries: how often each task was tried.
    :ivar retry_delays: how long Airflow would have waited before each retry of a task.
    :ivar errors: the exception that each failed task has ended with.
    :ivar xcoms: what each task has pushed, by its id and the XCom's key.
    :ivar requests: the requests that came to each receiver during this run and those that it started.
    :ivar started: the outcomes of runs that this one has started, as the DAG of time triggers or of retries.
    :ivar queued: the runs of these DAGs that wait for a later time.
    """

    dag_id: str
    run_id: str
    state: str
    tasks: dict[str, str]
    tries: dict[str, int]
    retry_delays: dict[str, list[timedelta]]
    errors: dict[str, BaseException]
    xcoms: dict[str, dict[str, Any]] = field(repr=False)
    requests: dict[str, list[dict[str, Any]]] = field(default_factory=dict, repr=False)
    started: list[DagOutcome] = field(default_factory=list)
    queued: list[QueuedRun] = field(default_factory=list)

    def xcom(self, task_id: str, key: str = "return_value") -> Any:
        """Return what a task has pushed; ``None`` if it has pushed nothing under this key."""
        return self.xcoms.get(task_id, {}).get(key)
