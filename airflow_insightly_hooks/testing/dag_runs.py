"""``run_dag``: runs DAGs against the sandbox."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.testing.dag_sources import connection_ids, dags_in, settle_times
from airflow_insightly_hooks.testing.outcome import DagOutcome, QueuedRun

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_insightly_hooks.core.workflow.definition import WorkflowDefinition
    from airflow_insightly_hooks.sandbox.server import RunningSandbox
    from airflow_insightly_hooks.testing.connections import SandboxConnections
    from airflow_insightly_hooks.testing.task_loop import TaskLoop

__all__ = ["DagRuns"]

MARGIN = timedelta(seconds=3)
"""Added to ``settle``, since the server's clock is known to a second, and record times are whole seconds."""


class DagRuns:
    """Runs DAGs against the sandbox, in this process.

    :param sandbox: the sandbox, with the CRM and the receivers.
    :param connections: the connections of the test. If a DAG names a connection that the test has not made,
        it is made.
    :param began: when the test began, by the sandbox's clock.
    """

    def __init__(self, sandbox: RunningSandbox, connections: SandboxConnections, began: datetime) -> None:
        self._sandbox = sandbox
        self._connections = connections
        self._began = began
        self._read_until: dict[str, datetime] = {}
        self._dags: dict[str, DAG] = {}

    def __call__(
        self,
        source: DAG | WorkflowDefinition | str | os.PathLike[str],
        *,
        dag_id: str | None = None,
        conf: dict[str, Any] | None = None,
        data_interval: tuple[datetime, datetime] | None = None,
        timeout: float = 60,
    ) -> DagOutcome:
        """Run a DAG once, and the runs that it starts, and return their outcome.

        The run reads the changes since the test began, or since the DAG's last run in the test. Nothing waits
        until they have settled: the sandbox's clock is moved forward by the DAG's ``settle`` and 3 seconds.

        :param source: a DAG, a ``Workflow``, or the path of a YAML file of workflows or of a DAG file.
        :param dag_id: the id of the DAG to run, if the file has several.
        :param conf: the run's conf. It sets the DAG's params.
        :param data_interval: the run's interval: two times with a time zone. If it is not given, a DAG whose
            timetable has intervals gets the time since the test began, or since its last run.
        :param timeout: seconds that the run and the runs that it starts may take.
        :raises TimeoutError: if they don't end in this time, for example because a sensor still waits.
        :raises InvalidWorkflowFile: if a workflow file is not valid.
        :raises ImportError: if a DAG file, or a workflow file that it loads, is not valid. With ``dag_id``,
            only if that DAG can't be made.
        :raises LookupError: if the file doesn't have the DAG that ``dag_id`` names, or ``dag_id`` is missing
            and the file has several DAGs.
        """
        dag, dags = dags_in(source, dag_id)
        self._dags.update({each.dag_id: each for each in dags})
        self._connections.add_missing(*connection_ids(dags))
        loop = self._loop(timeout)
        loop.store_dags()
        until = _next_second(self._sandbox.now())
        settles = settle_times(dags)
        self._sandbox.advance(seconds=max(settles) + MARGIN.total_seconds())
        run = self._new_run(dag, until, min(settles), data_interval, conf)
        with self._noting_requests() as requests:
            outcome = loop.finish(dag.dag_id, loop.create_run(dag.dag_id, **run))
            outcome.started.extend(self._run_queued(loop))
        self._read_until[dag.dag_id] = until
        outcome.requests.update(requests)
        outcome.queued.extend(loop.queued())
        return outcome

    def due(self, timeout: float = 60) -> list[DagOutcome]:
        """Run the queued runs that are due by the sandbox's clock, and the runs that they start.

        ``run_dag`` leaves these runs under ``queued``. They send webhooks with a time trigger, or retry
        messages. Move the clock forward first, with ``insightly_sandbox.advance(days=3)``.

        :param timeout: seconds that these runs may take.
        :raises TimeoutError: if they don't end in this time.
        """
        return self._run_queued(self._loop(timeout))

    @property
    def queued(self) -> list[QueuedRun]:
        """The runs that are not due yet, the next one first."""
        return self._loop(0).queued()

    def _loop(self, timeout: float) -> TaskLoop:
        from airflow_insightly_hooks.testing.task_loop import TaskLoop

        return TaskLoop(self._dags, timeout)

    def _run_queued(self, loop: TaskLoop) -> list[DagOutcome]:
        outcomes: list[DagOutcome] = []
        while due := [run for run in loop.queued() if run.run_after <= self._due_by()]:
            with self._noting_requests() as requests:
                outcomes.append(loop.finish(due[0].dag_id, due[0].run_id))
            outcomes[-1].requests.update(requests)
        return outcomes

    def _due_by(self) -> datetime:
        """Return the time up to which runs are due: a message due now may have a run a few seconds later."""
        from airflow_insightly_hooks.operators.common.triggered_runs import wake_up_time

        return wake_up_time(self._sandbox.now())

    def _new_run(
        self,
        dag: DAG,
        until: datetime,
        settle: float,
        interval: tuple[datetime, datetime] | None,
        conf: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """Return the arguments of a run that is made now."""
        from airflow.sdk import timezone as airflow_timezone
        from airflow.utils.types import DagRunTriggeredByType, DagRunType

        now = airflow_timezone.utcnow()
        run_type = DagRunType.MANUAL if dag.schedule is None else DagRunType.SCHEDULED
        if interval is None and _has_intervals(dag, now):
            interval = (self._read_until.get(dag.dag_id, self._began.replace(microsecond=0)), until)
        logical_date = now if interval is None else min(now, interval[0])
        # A first run reads from the time at which it began, by the server's clock less ``settle``.
        elapsed = self._sandbox.now() - self._began - timedelta(seconds=settle)
        return {
            "run_id": run_type.generate_run_id(suffix=now.isoformat()),
            "run_type": run_type,
            "logical_date": logical_date,
            "data_interval": interval or (logical_date, logical_date),
            "run_after": now,
            "start_date": now - elapsed,
            "conf": conf,
            "triggered_by": DagRunTriggeredByType.TEST,
        }

    @contextmanager
    def _noting_requests(self) -> Iterator[dict[str, list[dict[str, Any]]]]:
        receivers = self._connections.receivers
        before = {conn_id: len(receiver.requests) for conn_id, receiver in receivers.items()}
        found: dict[str, list[dict[str, Any]]] = {}
        yield found
        found.update({conn_id: receivers[conn_id].requests[count:] for conn_id, count in before.items()})


def _next_second(moment: datetime) -> datetime:
    """Return the end of the second that contains ``moment``: the API's times have whole seconds."""
    return moment.replace(microsecond=0) + timedelta(seconds=1)


def _has_intervals(dag: DAG, now: datetime) -> bool:
    """Return whether a DAG's timetable gives its runs intervals."""
    import pendulum
    from airflow.serialization.encoders import coerce_to_core_timetable

    timetable = coerce_to_core_timetable(dag.timetable)
    interval = timetable.infer_manual_data_interval(run_after=pendulum.instance(now))
    return bool(interval.start < interval.end)
