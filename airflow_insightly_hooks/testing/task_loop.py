"""Runs DAGs in this process, as Airflow's scheduler, worker and triggerer run them.

It is the loop of ``dag.test()``, with two differences. A run keeps its state for the next run: its cursor
moves, and webhooks that are due later are kept. And nothing waits: a retry follows at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from airflow.sdk.execution_time import supervisor
from airflow.utils.state import DagRunState, TaskInstanceState

from airflow_insightly_hooks.hooks.process_registry import clear_process_registries
from airflow_insightly_hooks.testing.outcome import DagOutcome, QueuedRun
from airflow_insightly_hooks.testing.own_airflow import BUNDLE

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.sdk import DAG

__all__ = ["TaskLoop"]

PAUSE = 0.05
"""Seconds between two checks of tasks that can't run yet."""


class TaskLoop:
    """Runs DAGs, one task after another.

    :param dags: the DAGs that can be run, by their ids.
    :param timeout: seconds, from now on, that all runs may take.
    """

    def __init__(self, dags: Mapping[str, DAG], timeout: float) -> None:
        self._dags = dags
        self._deadline = time.monotonic() + timeout
        self._timeout = timeout
        self._retry_delays: dict[str, list[timedelta]] = {}
        self._errors: dict[str, BaseException] = {}

    def store_dags(self) -> None:
        """Serialize the DAGs into Airflow's database."""
        from airflow.dag_processing.collection import update_dag_parsing_results_in_db
        from airflow.serialization.serialized_objects import LazyDeserializedDAG
        from airflow.utils.session import create_session

        errors: dict[tuple[str, str], str] = {}
        with create_session() as session:
            made = [LazyDeserializedDAG.from_dag(dag) for dag in self._dags.values()]
            update_dag_parsing_results_in_db(BUNDLE, None, made, errors, None, set(), session=session)
        if errors:
            raise ValueError("Airflow refuses the DAG, correct it:\n" + "\n".join(errors.values()))

    def create_run(self, dag_id: str, **arguments: Any) -> str:
        """Create a run, with arguments of Airflow's ``create_dagrun``. Return its id."""
        from airflow.utils.session import create_session

        with create_session() as session:
            run = self._serialized(dag_id).create_dagrun(
                **arguments, state=DagRunState.RUNNING, session=session
            )
            return str(run.run_id)

    def queued(self) -> list[QueuedRun]:
        """Return the runs that are not due yet, the next one first."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from sqlalchemy import select

        waiting = select(DagRun).where(DagRun.state == DagRunState.QUEUED).order_by(DagRun.run_after)
        with create_session() as session:
            runs = [QueuedRun(run.dag_id, run.run_id, run.run_after) for run in session.scalars(waiting)]
        return [run for run in runs if run.dag_id in self._dags]

    def finish(self, dag_id: str, run_id: str) -> DagOutcome:
        """Run the tasks of a run until it has ended.

        :raises TimeoutError: if it doesn't end in time.
        """
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session, _worker():
            of_id = select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
            run = session.scalars(of_id).one()
            run.dag = self._serialized(dag_id)
            if run.state == DagRunState.QUEUED:
                run.state = DagRunState.RUNNING
            while run.state == DagRunState.RUNNING:
                self._check_time(run, session)
                self._step(run, session)
            return self._outcome(run, session)

    def _serialized(self, dag_id: str) -> Any:
        """Return a DAG in the scheduler's form, with the callbacks that the scheduler calls."""
        from airflow.serialization.serialized_objects import DagSerialization

        dag = self._dags[dag_id]
        serialized: Any = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))
        serialized.on_success_callback = dag.on_success_callback
        serialized.on_failure_callback = dag.on_failure_callback
        return serialized

    def _step(self, run: DagRun, session: Any) -> None:
        """Run the tasks that can run now."""
        session.expire_all()
        schedulable, _ = run.update_state(session=session)
        for instance in schedulable:
            if instance.state != TaskInstanceState.UP_FOR_RESCHEDULE:
                instance.try_number += 1
            instance.state = TaskInstanceState.SCHEDULED
        session.commit()
        instances = list(run.get_task_instances(session=session))
        ready = [each for each in instances if each.state == TaskInstanceState.SCHEDULED]
        for instance in ready:
            self._run_task(run, instance, session)
        if not ready and run.state == DagRunState.RUNNING:
            time.sleep(PAUSE)

    def _check_time(self, run: DagRun, session: Any) -> None:
        if self._remaining():
            return
        states = {_name(each): str(each.state) for each in run.get_task_instances(session=session)}
        raise TimeoutError(
            f"{run.dag_id} has not ended after {self._timeout:g} s: {states}. If it needs longer, set a "
            "larger timeout="
        )

    def _run_task(self, run: DagRun, ready: TaskInstance, session: Any) -> None:
        """Run a task as a worker does, and its trigger as the triggerer does, up to its next state."""
        name = _name(ready)
        ready.state = TaskInstanceState.QUEUED
        session.commit()
        clear_process_registries()  # each task of a real run has a process of its own
        task = self._dags[ready.dag_id].task_dict[ready.task_id]
        result = supervisor.run_task_in_process(ti=_for_worker(ready), task=task)
        session.expire_all()
        # A retry has its own row and its own id.
        instances = run.get_task_instances(session=session)
        instance = next(each for each in instances if _name(each) == name)
        if result.error is not None:
            self._errors[name] = result.error
        if instance.state == TaskInstanceState.SUCCESS:
            self._errors.pop(name, None)
        if instance.state == TaskInstanceState.UP_FOR_RETRY:
            self._retry_now(instance, session)
        elif instance.state == TaskInstanceState.DEFERRED:
            self._run_trigger(instance, session)

    def _retry_now(self, instance: TaskInstance, session: Any) -> None:
        from airflow.serialization.serialized_objects import create_scheduler_operator

        task = self._dags[instance.dag_id].task_dict[instance.task_id]
        instance.task = create_scheduler_operator(task)
        delay = instance.next_retry_datetime() - instance.end_date
        self._retry_delays.setdefault(_name(instance), []).append(delay)
        instance.retry_delay_override = 0
        session.commit()

    def _run_trigger(self, instance: TaskInstance, session: Any) -> None:
        from airflow.models.trigger import Trigger
        from airflow.sdk._shared.module_loading import import_string

        row = session.get(Trigger, instance.trigger_id)
        limited = _Limited(lambda: import_string(row.classpath)(**row.kwargs), self._remaining())
        session.commit()
        try:
            event = supervisor.InProcessTestSupervisor.run_trigger_in_process(
                trigger=limited, ti=_for_worker(instance)
            )
        except Exception as error:
            if isinstance(error, asyncio.TimeoutError) and not self._remaining():
                raise TimeoutError(
                    f"{instance.dag_id}: {_name(instance)} still waits after {self._timeout:g} s. Before the "
                    "run, make the change for which it waits"
                ) from None
            # As in the triggerer, the task fails.
            Trigger.submit_failure(row.id, [f"{type(error).__name__}: {error}"], session=session)
        else:
            Trigger.submit_event(row.id, event, session=session)
        session.commit()

    def _remaining(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def _outcome(self, run: DagRun, session: Any) -> DagOutcome:
        instances = {_name(each): each for each in run.get_task_instances(session=session)}
        outcome = DagOutcome(
            dag_id=run.dag_id,
            run_id=run.run_id,
            state=str(run.state),
            tasks={name: str(each.state) for name, each in instances.items()},
            tries={name: each.try_number for name, each in instances.items()},
            retry_delays=self._retry_delays,
            errors=self._errors,
            xcoms=_xcoms(run, session),
        )
        self._retry_delays, self._errors = {}, {}
        return outcome


class _Limited:
    """A trigger with a time limit.

    :param make: makes the trigger, inside the event loop in which it runs.
    :param seconds: the time limit.
    """

    def __init__(self, make: Callable[[], Any], seconds: float) -> None:
        self._make = make
        self._seconds = seconds

    async def run(self) -> Any:
        events = self._make().run()
        yield await asyncio.wait_for(anext(events), self._seconds)


class _SupervisorComms(supervisor.InProcessSupervisorComms):
    """The supervisor's side of the connection to a task, as in ``dag.test()``.

    ``runs.airflow_runs`` compares the class's name to find runs that keep no state. Since this class has
    another name, its runs keep their state.
    """


@contextmanager
def _worker() -> Iterator[None]:
    with patch.object(supervisor, "InProcessSupervisorComms", _SupervisorComms):
        yield


def _for_worker(instance: Any) -> Any:
    from airflow.sdk.api.datamodels._generated import TaskInstance as WorkersTaskInstance

    return WorkersTaskInstance(
        id=instance.id,
        task_id=instance.task_id,
        dag_id=instance.dag_id,
        run_id=instance.run_id,
        try_number=instance.try_number,
        map_index=instance.map_index,
        dag_version_id=instance.dag_version_id,
    )


def _name(instance: Any) -> str:
    return instance.task_id if instance.map_index < 0 else f"{instance.task_id}[{instance.map_index}]"


def _xcoms(run: DagRun, session: Any) -> dict[str, dict[str, Any]]:
    from airflow.models.xcom import XComModel
    from airflow.sdk.bases.xcom import BaseXCom
    from sqlalchemy import select

    found: dict[str, dict[str, Any]] = {}
    rows = select(XComModel).where(XComModel.dag_id == run.dag_id, XComModel.run_id == run.run_id)
    for row in session.scalars(rows):
        found.setdefault(_name(row), {})[row.key] = BaseXCom.deserialize_value(row)
    return found
