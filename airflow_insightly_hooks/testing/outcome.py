"""The outcome of a DAG's run."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

__all__ = ["DagOutcome", "QueuedRun"]


class QueuedRun(NamedTuple):
    """A run that is not due yet. ``run_dag.due()`` runs it when it is due by the sandbox's clock.

    :ivar dag_id: the DAG's id.
    :ivar run_id: the run's id.
    :ivar run_after: when it is due.
    """

    dag_id: str
    run_id: str
    run_after: datetime


@dataclass(frozen=True)
class DagOutcome:
    """The outcome of a DAG's run.

    The name of a mapped task, or of a task in a mapped group, has its map index, such as ``deliver[0]``.

    :ivar dag_id: the DAG's id.
    :ivar run_id: the run's id.
    :ivar state: the run's state: ``success`` or ``failed``.
    :ivar tasks: each task's state, by its id, such as ``success``, ``skipped`` or ``upstream_failed``.
    :ivar tries: how often each task was tried.
    :ivar retry_delays: how long Airflow would have waited before each retry of a task.
    :ivar errors: the exception of each failed task.
    :ivar xcoms: the values that each task has pushed, by the task's id and the XCom's key.
    :ivar requests: the requests that each receiver got during this run and the runs that it started.
    :ivar started: the outcomes of runs that this run has started, for example of the pending or the retry
        DAG.
    :ivar queued: the runs of these DAGs that are due later.
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
        """Return the value that a task has pushed under a key; ``None`` if it has pushed none."""
        return self.xcoms.get(task_id, {}).get(key)
